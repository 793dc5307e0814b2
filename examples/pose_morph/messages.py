"""What a command says: sentences as they are, and counts with the first few names."""

from collections.abc import Iterable, Sequence

from rich.console import Console


def say(console: Console, text: str, *, style: str | None = None) -> None:
    """Print a line as it is: names may hold what rich would take for markup."""
    console.print(text, style=style, markup=False, soft_wrap=True, highlight=False)


def say_names(console: Console, what: str, which: Sequence[object]) -> None:
    """Say how many there are and name the first; say nothing of nothing."""
    if which:
        say(console, f"{len(which)} {what}: {some(which)}")


def counted(number: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "frame"), counted(2, "frame")
    ('1 frame', '2 frames')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Iterable[object]) -> str:
    """Return the first three names as text.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    texts = [*map(str, names)]
    return ", ".join([*texts[:3], "…"][: len(texts)])
