"""What ``torch.save`` wrote, read without running code from it and without taking damage for content."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def load_state(path: Path) -> Any:
    """Read a file onto the CPU: tensors and plain values alone (``weights_only``).

    PyTorch writes a checksum of every part and does not look at it again: a flipped bit would become another weight.
    Files in the format from before PyTorch 1.6 have none.

    Raises:
        Exception: of any type; the archive's reader and PyTorch's raise whatever they meet.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("a part is packed, which torch.save does not do; unpacked it may be of any size")
            if sum(part.file_size for part in parts) > path.stat().st_size:
                raise ValueError("its parts claim to be larger than the file")
            broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"the checksum of {broken} is not that of its content")
    return torch.load(path, map_location="cpu", weights_only=True)
