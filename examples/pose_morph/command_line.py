"""How a command starts and ends: options by tyro, errors as a red sentence, exit codes as shells expect them."""

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import say

OptionsT = TypeVar("OptionsT")


def run_command(
    options: type[OptionsT], action: Callable[[OptionsT, Console], int], *, prog: str, description: str | None
) -> None:
    """Parse the command line into ``options``, do ``action`` and exit.

    ``options`` is a dataclass, or a union of them for a command with subcommands. The exit code is the action's, 2 for
    a `UserError` or a file system that refuses, and 130 for Ctrl-C.
    """
    given = tyro.cli(options, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    console = Console()
    try:
        code = action(given, console)
    except UserError as error:
        say(console, str(error), style="red")
        code = 2
    except OSError as error:
        if error.filename is None:  # not about a file: nothing that a person at the keyboard would understand
            raise
        say(console, f"{error.filename}: {error.strerror}; free some space or allow reading and writing", style="red")
        code = 2
    except KeyboardInterrupt:
        say(console, "stopped; every file that was finished is kept")
        code = 130
    sys.exit(code)
