"""Checkpoints: a run's whole state in one file."""

from pathlib import Path
from typing import Any

import torch

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.errors import UserError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) so that at any moment either the old or the new file is there."""
    replace_file(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it (``weights_only``).

    Raises:
        UserError: the file is not there or is no checkpoint.
    """
    if not path.is_file():
        raise UserError(f"resume: there is no checkpoint {path}; leave --resume out to start a new run")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise UserError(f"resume: {path} cannot be read as a checkpoint ({type(error).__name__})") from error
