"""Types of options, with the names that --help shows for their values, and the check that numbers share."""

from pathlib import Path
from typing import Annotated

import tyro

from examples.pose_morph.errors import UserError

Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
RequiredFolder = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Frame = Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="HEIGHT WIDTH", help_behavior_hint="")]


def check_least(name: str, value: float | None, least: int) -> None:
    """Make sure that the option of a field's ``name``, where it was given, is large enough.

    Raises:
        UserError: it is smaller, or no number.
    """
    if value is not None and not value >= least:
        raise UserError(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")
