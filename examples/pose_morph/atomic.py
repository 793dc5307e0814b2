"""Files that survive a kill: written beside the old one, flushed, then put in its place in one step."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from examples.pose_morph.errors import UserError


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill ``path``, so that at any moment either the old or the new file is there, whole.

    Raises:
        UserError: the disk is full or the folder cannot be written to. What was there before is left as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        before = "the old file is as it was" if path.exists() else "nothing was written"
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); {before}. Free some space or allow writing there"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        UserError: as of `replace_file`.
    """
    replace_file(path, lambda file: file.write(text.encode()))


def append_line(path: Path, line: str) -> None:
    """Add a line to a log; a kill may leave half of it.

    Raises:
        UserError: the disk is full or the file cannot be written to.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); free some space or allow writing there"
        ) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, whole or not at all.

    Raises:
        UserError: as of `replace_file`.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
