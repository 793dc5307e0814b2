"""Configurations that tuning found to be faster on a GPU: kept in a file, and chosen on such a GPU from then on.

``python -m benchmarks.gpu --tune --keep`` writes the file: ``gpa_nd/tuned.json`` in the user's cache folder
(``XDG_CACHE_HOME``, else ``~/.cache``). ``GPA_ND_TUNED`` names another one, and none at all where it is empty.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch

from gpa_nd.engine.fused.launch import Chip, interpreted

P = ParamSpec("P")
Configuration = TypeVar("Configuration")
Found = dict[str, dict[str, int]]  # the name of a choice, and the numbers to be chosen


def tunable(choose: Callable[P, Configuration]) -> Callable[P, Configuration]:
    """Let the file have the last word on what ``choose`` returns, a frozen dataclass of whole numbers."""

    @wraps(choose)
    def choose_tuned(*arguments: P.args, **named: P.kwargs) -> Configuration:
        chosen = choose(*arguments, **named)
        if not (found := kept_here()):
            return chosen
        numbers = found.get(name_of(choose, (*arguments, *named.values())), {})
        if unknown := numbers.keys() - {field.name for field in fields(cast(Any, chosen))}:
            raise ValueError(f"{path()}: {type(chosen).__name__} has no {', '.join(sorted(unknown))}; tune again")
        return cast(Configuration, replace(cast(Any, chosen), **numbers))

    return choose_tuned


def name_of(choose: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """A choice by its function and what decides it besides the chip.

    Example:
        >>> from gpa_nd.engine.fused.selection_tiles import select_tile
        >>> name_of(select_tile, (64,))
        'select_tile(64)'
    """
    return f"{choose.__name__}({', '.join(str(x) for x in arguments if not isinstance(x, Chip))})"


def path() -> Path | None:
    """The file, whether it is there or not."""
    if "GPA_ND_TUNED" in os.environ:
        return Path(os.environ["GPA_ND_TUNED"]) if os.environ["GPA_ND_TUNED"] else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpa_nd" / "tuned.json"


@lru_cache
def kept_here() -> Found:
    """What the file holds for this machine's GPU, looked up once; nothing where kernels are interpreted."""
    file = path()
    if file is None or interpreted() or not torch.cuda.is_available():
        return {}
    return kept(file).get(torch.cuda.get_device_name(), {})


def kept(file: Path) -> dict[str, Found]:
    """What the file holds, by the name of the device.

    Raises:
        ValueError: it is not such a file.
    """
    if not file.exists():
        return {}
    try:
        return {
            device: {name: {field: _whole(x) for field, x in numbers.items()} for name, numbers in found.items()}
            for device, found in json.loads(file.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: expected what benchmarks.gpu --keep wrote; delete it and tune again") from error


def _whole(x: Any) -> int:
    if type(x) is not int or not 0 <= x < 2**31:
        raise ValueError(f"expected a whole number, got {x!r}")
    return x


def keep(file: Path, device: str, found: Found) -> None:
    """Add what was found for a device to what the file holds.

    Raises:
        OSError: the file cannot be written; the error names it, and what was there before is as it was.
    """
    everything = kept(file)
    everything[device] = {**everything.get(device, {}), **found}
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
            part.replace(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    kept_here.cache_clear()
