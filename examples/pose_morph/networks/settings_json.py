"""Settings as JSON and back: frozen dataclasses of numbers, strings, None, tuples and other dataclasses."""

from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from examples.pose_morph.errors import UserError

TAG = "type"
"""The key under which a dataclass leaves its name, so that a union of dataclasses can be read back."""


class SettingsError(UserError):
    """The JSON does not describe settings of this version; the message says where and why."""


def to_json(value: Any) -> Any:
    """Return ``value`` in the types of JSON; a dataclass becomes an object with its name beside its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {TAG: type(value).__name__, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"value: expected a dataclass, tuple, number, string or None, got {type(value).__name__}")


def from_json(kind: Any, data: Any, place: str = "settings") -> Any:
    """Return the value of type ``kind`` that `to_json` turned into ``data``.

    Fields that are missing take their default; names may be missing where only one dataclass is possible.

    Raises:
        SettingsError: something unknown, missing or of another type; ``place`` says where it stands.
    """
    if is_dataclass(kind):
        return _read_dataclass(kind, data, place)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(arguments, data, place)
    if origin is Literal:
        if data not in arguments:
            raise _unexpected(place, " or ".join(map(repr, arguments)), data)
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise _unexpected(place, "a list", data)
        kinds = arguments[:1] * len(data) if arguments[1:] == (...,) else arguments
        if len(kinds) != len(data):
            raise _unexpected(place, f"{len(kinds)} entries", data)
        both = enumerate(zip(kinds, data, strict=True))
        return tuple(from_json(item_kind, item, f"{place}[{index}]") for index, (item_kind, item) in both)
    allowed = {float: (float, int)}.get(kind, (kind,))
    if not isinstance(data, allowed) or (isinstance(data, bool) and kind is not bool):
        raise _unexpected(place, "null" if kind is NoneType else kind.__name__, data)
    try:
        return kind(data) if kind is not NoneType else None
    except OverflowError as error:  # JSON's whole numbers may be larger than any float
        raise _unexpected(place, kind.__name__, data) from error


def _read_dataclass(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict) or data.get(TAG, kind.__name__) != kind.__name__:
        raise _unexpected(place, kind.__name__, data)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(data) - set(known) - {TAG})
    if unknown:
        raise SettingsError(
            f"{place}: {kind.__name__} has no {', '.join(unknown)} in this version; another version made this file"
        )
    needed = [name for name, field in known.items() if field.default is field.default_factory is MISSING]
    missing = [name for name in needed if name not in data]
    if missing:
        raise SettingsError(f"{place}: {kind.__name__} expects {', '.join(missing)}, which is missing")
    hints = get_type_hints(kind)
    values = {name: from_json(hints[name], data[name], f"{place}.{name}") for name in known if name in data}
    try:
        return kind(**values)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{place}: {kind.__name__} refuses its values ({error})") from error


def _read_union(kinds: tuple[Any, ...], data: Any, place: str) -> Any:
    classes = [kind for kind in kinds if is_dataclass(kind)]
    if isinstance(data, dict) and classes:
        tagged = [kind for kind in classes if kind.__name__ == data.get(TAG)]
        alike = [kind for kind in classes if {field.name for field in fields(kind)} == set(data)]
        chosen = tagged if TAG in data else alike
        if len(chosen) != 1:
            raise _unexpected(place, " or ".join(kind.__name__ for kind in classes), data)
        return from_json(chosen[0], data, place)
    for kind in kinds:
        try:
            return from_json(kind, data, place)
        except SettingsError:
            continue
    raise _unexpected(place, " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds), data)


def _unexpected(place: str, expected: str, data: Any) -> SettingsError:
    text = repr(data)
    return SettingsError(f"{place}: expected {expected}, got {text if len(text) <= 80 else text[:77] + '...'}")
