"""The bar that a command shows while it works."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console, *, transient: bool = False) -> Progress:
    """Return a bar with the count and the time left; a ``transient`` one vanishes at its end."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, TextColumn("left"), console=console, transient=transient)
