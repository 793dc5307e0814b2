"""No step writes over what is there unless it is told to, and none over what it reads."""

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


def refuse_inside(out: Path, pictures: Path) -> None:
    """Make sure that results do not land among the pictures that are read.

    Raises:
        UserError: they would.
    """
    if out.resolve().is_relative_to(pictures.resolve()):
        raise UserError(f"out: {out} lies in {pictures}, which is read; choose a folder outside")
