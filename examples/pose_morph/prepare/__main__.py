"""Prepare a folder for training: rename DeepFashion, split, pair, extract keypoints, crop, or render people."""

from typing import Annotated

from rich.console import Console
from tyro.conf import subcommand

from examples.pose_morph.command_line import run_command
from examples.pose_morph.prepare.crop import Crop, crop
from examples.pose_morph.prepare.keypoints import Keypoints, keypoints
from examples.pose_morph.prepare.pairs import Pairs, make_pairs
from examples.pose_morph.prepare.rename import Rename, rename
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


def prepare(step: Step, console: Console) -> int:
    """Run one step; return the exit code."""
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
    return 0


def main() -> None:
    """Read the command line and run the step."""
    run_command(Named, prepare, prog="python -m examples.pose_morph.prepare", description=__doc__)


if __name__ == "__main__":
    main()
