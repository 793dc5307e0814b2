"""Prepare a folder for training: rename DeepFashion, split, pair, extract keypoints, crop, or render people."""

import sys
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import subcommand

from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.crop import Crop, crop
from examples.pose_morph.prepare.keypoints import Keypoints, keypoints
from examples.pose_morph.prepare.pairs import Pairs, make_pairs
from examples.pose_morph.prepare.rename import Rename, rename
from examples.pose_morph.prepare.report import say
from examples.pose_morph.prepare.split import Split, split
from examples.pose_morph.prepare.synthetic import Synthetic, synthetic

Step = Rename | Split | Pairs | Keypoints | Crop | Synthetic
Named = (
    Annotated[Rename, subcommand("rename")]
    | Annotated[Split, subcommand("split")]
    | Annotated[Pairs, subcommand("pairs")]
    | Annotated[Keypoints, subcommand("keypoints")]
    | Annotated[Crop, subcommand("crop")]
    | Annotated[Synthetic, subcommand("synthetic")]
)


def prepare(step: Step, console: Console) -> None:
    """Run one step."""
    match step:
        case Rename():
            rename(step, console)
        case Split():
            split(step, console)
        case Pairs():
            make_pairs(step, console)
        case Keypoints():
            keypoints(step, console)
        case Crop():
            crop(step, console)
        case Synthetic():
            synthetic(step, console)


def main() -> None:
    """Read the command line and run the step."""
    config = (tyro.conf.FlagCreatePairsOff,)
    step = tyro.cli(Named, prog="python -m examples.pose_morph.prepare", description=__doc__, config=config)
    console = Console()
    code = 0
    try:
        prepare(step, console)
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        say(console, str(error), style="red")
        code = 2
    except KeyboardInterrupt:
        say(console, "stopped; every file that was written is whole")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
