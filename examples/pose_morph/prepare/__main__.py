"""Prepare a folder for training: pair pictures, or render people."""

import sys
from typing import Annotated

import tyro
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.pairs import Pairs, make_pairs
from examples.pose_morph.prepare.synthetic import Synthetic, synthetic

Step = Annotated[Pairs, tyro.conf.subcommand("pairs")] | Annotated[Synthetic, tyro.conf.subcommand("synthetic")]


def prepare(step: Pairs | Synthetic, console: Console) -> None:
    """Run one step."""
    match step:
        case Pairs():
            make_pairs(step, console)
        case Synthetic():
            synthetic(step, console)


def main() -> None:
    """Read the command line and run the step."""
    step = tyro.cli(
        Step,
        prog="python -m examples.pose_morph.prepare",
        description=__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    console = Console()
    code = 0
    try:
        prepare(step, console)
    except UserError as error:
        console.print(f"[red]{error}[/]", soft_wrap=True, highlight=False)
        code = 2
    except KeyboardInterrupt:
        console.print("stopped; what is written so far is whole")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
