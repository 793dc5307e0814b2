"""One table per question, for a terminal and for a page, and how its cells are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """One table per question."""

    question: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: object) -> None:
        """A row; None is a dash."""
        self.rows.append(["–" if cell is None else str(cell) for cell in cells])

    def text(self) -> str:
        """For a terminal: the first column to the left, the others to the right."""
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = []
        for line in lines:
            first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            body.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
        return "\n".join([self.question, "-" * len(self.question), *body, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        """For a page."""
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        head = ["| " + " | ".join(self.columns) + " |", "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        return "\n".join([f"### {self.question}", "", *head, *rows, *(["", self.note] if self.note else [])])


def milliseconds(value: float | None) -> str | None:
    """Seconds as milliseconds with three digits."""
    if value is None:
        return None
    number = value * 1e3
    return f"{number:.0f} ms" if number >= 100 else f"{number:.3g} ms"


def times(value: float | None) -> str | None:
    """A ratio."""
    if value is None:
        return None
    return f"{value:.0f}×" if value >= 100 else f"{value:.3g}×"


def mebibytes(value: float | None) -> str | None:
    """Bytes as MiB."""
    return None if value is None else f"{value / 2**20:.3g} MiB" if value < 2**27 else f"{value / 2**20:.0f} MiB"


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Their quotient, where both were measured."""
    return numerator / denominator if numerator and denominator else None
