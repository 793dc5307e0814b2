"""Checkpoints: a run's whole state in one file."""

from pathlib import Path
from typing import IO, Any

import torch

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.errors import UserError
from examples.pose_morph.state_file import load_state

FORMAT = 2
"""Counts up when older checkpoints lack what an exact resumption needs; format 1 had no number."""

INSTEAD = "put a whole copy of the file back, or start a new run in another --out"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) so that at any moment either the old or the new file is there.

    Raises:
        UserError: the disk is full or cannot be written to; the old file is left as it was.
    """

    def write(file: IO[bytes]) -> None:
        try:
            torch.save({**state, "format": FORMAT}, file)
        except RuntimeError as error:  # what torch makes of a write that fails
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise

    replace_file(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it (``weights_only``).

    Raises:
        UserError: the file is not there, is no checkpoint of this program, or was written by a newer version of it.
    """
    if not path.is_file():
        raise UserError(f"resume: there is no checkpoint {path}; leave --resume out to start a new run")
    try:
        state = load_state(path)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged, cut short or no checkpoint; {INSTEAD}"
        ) from error
    if not isinstance(state, dict) or "settings" not in state:
        raise UserError(f"{path} is no checkpoint of this program; {INSTEAD}")
    if not isinstance(state.get("format", 1), int):
        raise UserError(f"{path} is no checkpoint of this program; {INSTEAD}")
    if state.get("format", 1) > FORMAT:
        raise UserError(
            f"{path} was written by a newer version of this program (format {state['format']}, this one reads "
            f"{FORMAT}); update this program"
        )
    return state
