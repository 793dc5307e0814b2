"""How a command starts and ends: options by tyro, errors as a red sentence, exit codes as shells expect them."""

import os
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
    a `UserError` or a file system that refuses, and 130 for Ctrl-C. Of the processes that torchrun starts only
    the first speaks, but each says what stops it.
    """
    given = tyro.cli(options, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    rank = os.environ.get("RANK", "0")  # set by torchrun
    console = Console(quiet=rank != "0")
    try:
        code = action(given, console)
    except UserError as error:
        _say_what_stopped(rank, str(error))
        code = 2
    except OSError as error:
        if error.filename is None:  # not about a file: nothing that a person at the keyboard would understand
            raise
        _say_what_stopped(rank, f"{error.filename}: {error.strerror}; free some space or allow reading and writing")
        code = 2
    except KeyboardInterrupt:
        say(console, "stopped; every file that was finished is kept")
        code = 130
    sys.exit(code)


def _say_what_stopped(rank: str, text: str) -> None:
    """Say it even where the process is otherwise quiet."""
    say(Console(), text if rank == "0" else f"process {rank}: {text}", style="red")
