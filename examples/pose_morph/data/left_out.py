"""The list of pictures that a person, or the doctor, wants left out."""

import re
from collections.abc import Collection
from pathlib import Path

from examples.pose_morph.atomic import write_text
from examples.pose_morph.data.tables import read_text

FILE_NAME = "left_out.txt"

COMMENT = re.compile(r"(^|\s)#.*")
"""A picture's name may hold a #; a comment begins a line or follows a space."""


def read_left_out(root: Path) -> list[str]:
    """Return the lines of ``{root}/left_out.txt`` without comments: a name, or phase/name; nothing without the file."""
    path = root / FILE_NAME
    if not path.is_file():
        return []
    lines = (COMMENT.sub("", line).strip() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def is_left_out(name: str, phase: str, lines: Collection[str]) -> bool:
    """Whether a line names the picture."""
    return any(line in lines for line in lines_for(name, phase))


def lines_for(name: str, phase: str) -> list[str]:
    """Return the lines that leave a picture out: it or a folder or video that it belongs to, with the phase or not.

    >>> lines_for("walk/1.png", "train")
    ['walk', 'train/walk', 'walk/1.png', 'train/walk/1.png']
    """
    parts = name.split("/")
    paths = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return [line for path in paths for line in (path, f"{phase}/{path}")]


def add_left_out(root: Path, lines: list[str]) -> None:
    """Add lines to ``{root}/left_out.txt``, atomically; the old ones stay, with their comments."""
    path = root / FILE_NAME
    before = read_text(path) if path.is_file() else "# left out of training, one name a line"
    text = before.rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    write_text(path, text)
