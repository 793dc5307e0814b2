"""How a command starts and ends: options by tyro, errors as a red sentence, exit codes as shells expect them."""

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro
from rich.console import Console

from examples.pose_morph.errors import UserError

OptionsT = TypeVar("OptionsT")


def run_command(
    options: type[OptionsT], action: Callable[[OptionsT, Console], int], *, prog: str, description: str | None
) -> None:
    """Parse the command line into ``options``, do ``action`` and exit.

    The exit code is the action's, 2 for a `UserError` and 130 for Ctrl-C.
    """
    given = tyro.cli(options, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    console = Console()
    try:
        code = action(given, console)
    except UserError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        code = 2
    except KeyboardInterrupt:
        console.print("stopped; every file that was finished is kept")
        code = 130
    sys.exit(code)
