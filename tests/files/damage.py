"""Files as a bad disk, half a copy or somebody with an editor leaves them."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

CLAIMS = (0, 1, 2**31 - 1, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1)
"""Numbers that a header may claim where a length belongs."""

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**60, 10**400, -(10**30), 1e308, float("inf"), float("nan"),
    "", "text", "x" * 2000, "\ud800", [], {}, [None], [[]], {"": {}}, "../../etc", "\0", [0] * 500,
)  # fmt: skip
"""What JSON may hold in the place of something else; Python's reader knows Infinity and NaN, too."""


def damaged(content: bytes, chance: Random) -> bytes:
    """Damage bytes in one to three ways."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(DAMAGES)(bytearray(content), chance)
    return content


def _flipped(content: bytearray, chance: Random) -> bytes:
    for _ in range(chance.choice((1, 1, 4, 64))):
        if content:
            content[_place(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(content)


def _cut_short(content: bytearray, chance: Random) -> bytes:
    return bytes(content[: _place(content, chance)])


def _piece_removed(content: bytearray, chance: Random) -> bytes:
    start, stop = _piece(content, chance)
    return bytes(content[:start] + content[stop:])


def _piece_twice(content: bytearray, chance: Random) -> bytes:
    start, stop = _piece(content, chance)
    return bytes(content[:stop] + content[start:])


def _pieces_swapped(content: bytearray, chance: Random) -> bytes:
    (a, b), (c, d) = sorted((_piece(content, chance), _piece(content, chance)))
    c = max(b, c)
    return bytes(content[:a] + content[c:d] + content[b:c] + content[a:b] + content[max(c, d) :])


def _overwritten(content: bytearray, chance: Random) -> bytes:
    start, stop = _piece(content, chance)
    kind = chance.randrange(3)
    content[start:stop] = chance.randbytes(stop - start) if kind == 0 else bytes([255 * (kind == 1)]) * (stop - start)
    return bytes(content)


def _claimed(content: bytearray, chance: Random) -> bytes:
    """Write a large number over some bytes, as a length that is no more true."""
    number = struct.pack(chance.choice("<>") + "Q", chance.choice(CLAIMS))
    number = number if chance.random() < 0.5 else number[:4]
    start = _place(content, chance)
    content[start : start + len(number)] = number
    return bytes(content)


def _followed(content: bytearray, chance: Random) -> bytes:
    return bytes(content) + chance.randbytes(chance.randint(1, 300))


DAMAGES: tuple[Callable[[bytearray, Random], bytes], ...] = (
    _flipped, _flipped, _cut_short, _piece_removed, _piece_twice, _pieces_swapped, _overwritten, _claimed, _followed,
)  # fmt: skip


def _place(content: bytearray, chance: Random) -> int:
    """Somewhere; every other time near an end, where headers and directories are."""
    length = len(content)
    match chance.randrange(4):
        case 0:
            return chance.randrange(min(length, 200) or 1)
        case 1:
            return max(0, length - 1 - chance.randrange(400))
        case _:
            return chance.randrange(length or 1)


def _piece(content: bytearray, chance: Random) -> tuple[int, int]:
    start = _place(content, chance)
    return start, min(len(content), start + chance.choice((1, 4, 8, 30, 200, 3000)))


def edited(value: Any, chance: Random, values: Sequence[Any] = ODD_VALUES) -> Any:
    """Change one to three things in nested dictionaries and lists; ``values`` are what may stand there instead."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return chance.choice(values)
        holder, key = chance.choice(places)
        match chance.randrange(5):
            case 0 | 1:
                holder[key] = chance.choice(values)
            case 2:
                del holder[key]
            case 3:
                other, name = chance.choice(places)
                one, another = copy.deepcopy((holder[key], other[name]))
                holder[key], other[name] = another, one
            case _ if isinstance(holder, dict):
                holder[f"{key} "] = holder.pop(key)
            case _:
                holder.append(holder[key])
    return value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth > 6 or not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key], depth + 1)


def edited_json(content: bytes, chance: Random) -> bytes:
    """Change some values of a JSON text; now and then nest it deeper than a reader goes."""
    if chance.random() < 0.03:
        return b"[" * 100_000
    return json.dumps(edited(json.loads(content), chance)).encode()


def edited_lines(content: bytes, chance: Random) -> bytes:
    """Change some values of a line of JSON lines."""
    lines = content.splitlines()
    number = chance.randrange(len(lines))
    lines[number] = edited_json(lines[number], chance)
    return b"\n".join(lines) + b"\n"


def rewritten_zip(content: bytes, chance: Random) -> bytes:
    """Make a valid archive anew that lacks an entry, has it twice, packed, empty, or with another one's bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = chance.randrange(len(entries))
    name, data = entries[number]
    method = zipfile.ZIP_STORED
    match chance.randrange(6):
        case 0:
            del entries[number]
        case 1:
            method = zipfile.ZIP_DEFLATED
        case 2:
            entries[number] = name, b""
        case 3:
            entries[number] = name, chance.choice(entries)[1]
        case 4:
            entries[number] = f"{name}.", data
        case _:
            entries[number] = name, damaged(data, chance)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return written.getvalue()


def edited_safetensors(content: bytes, chance: Random) -> bytes:
    """Change some values of the header, or of the settings in it; now and then claim another length."""
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length], content[8 + length :]
    if chance.random() < 0.5:
        fields = json.loads(header)
        fields["__metadata__"]["settings"] = edited_json(fields["__metadata__"]["settings"].encode(), chance).decode()
        header = json.dumps(fields).encode()
    else:
        header = edited_json(header, chance)
    claimed = len(header) if chance.random() < 0.9 else chance.choice(CLAIMS)
    return claimed.to_bytes(8, "little") + header + rest
