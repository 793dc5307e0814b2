"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, text: str) -> None:
    """All of it or nothing: whoever reads the file never sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The same for a JSON file."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
