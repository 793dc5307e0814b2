"""The list of pictures that a person, or the doctor, wants left out."""

from pathlib import Path

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.tables import read_text

FILE_NAME = "left_out.txt"


def read_left_out(root: Path) -> list[str]:
    """Return the lines of ``{root}/left_out.txt`` without comments: a name, or phase/name; nothing without the file."""
    path = root / FILE_NAME
    if not path.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def is_left_out(name: str, phase: str, lines: set[str]) -> bool:
    """Whether a line names the picture, with or without its phase, or a folder or video that it belongs to."""
    parts = name.split("/")
    paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(path in lines or f"{phase}/{path}" in lines for path in paths)


def add_left_out(root: Path, lines: list[str]) -> None:
    """Add lines to ``{root}/left_out.txt``, atomically; the old ones stay, with their comments."""
    path = root / FILE_NAME
    before = read_text(path) if path.is_file() else "# left out of training, one name a line"
    text = before.rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    try:
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise DataError(f"data: cannot write {path} ({error.strerror})") from error
