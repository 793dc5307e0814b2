"""No step writes over what is there unless it is told to."""

from collections.abc import Iterable
from pathlib import Path

from examples.pose_morph.errors import UserError


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Make sure that none of the files is there, or that they may be replaced.

    Raises:
        UserError: a file is there; the message names it and says how many there are.
    """
    if overwrite:
        return
    there = [path for path in paths if path.exists()]
    if there:
        raise UserError(
            f"out: {there[0]} is already there ({len(there)} file(s) would be written over); "
            "choose another folder or add --overwrite"
        )
