"""What a step says: sentences, and counts with the first few names."""

from collections.abc import Sequence

from rich.console import Console


def say(console: Console, text: str, *, style: str | None = None) -> None:
    """Print a line as it is: names may hold what rich would take for markup."""
    console.print(text, style=style, markup=False, soft_wrap=True, highlight=False)


def say_names(console: Console, what: str, which: Sequence[object], *, shown: int = 3) -> None:
    """Say how many there are and name the first; say nothing of nothing."""
    if which:
        say(console, f"{len(which)} {what}: {', '.join([*map(str, which[:shown]), '…'][: len(which)])}")
