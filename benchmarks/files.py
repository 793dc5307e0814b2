"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> None:
    """All of it or nothing: whoever reads the file never sees half.

    Raises:
        OSError: it cannot be written; the error names the file, and what was there before is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(content if isinstance(content, bytes) else content.encode())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The same for a JSON file."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
