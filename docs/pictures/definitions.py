"""The drawings of the concepts: three partitions, and Definitions 1 to 5.

Run by hand from the root of the repository: ``python -m docs.pictures.definitions``. It writes ``docs/drawings/*.svg``,
which pages hold as they are, so that lines and letters take the colours of the page, light or dark. Groups, cells and
means are those of ``gpa_nd``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpa_nd.ops import GridDownsampler, GridIndexUpsampler
from gpa_nd.partitioners import GridPartitioner

DRAWINGS = Path(__file__).parents[1] / "drawings"
INK, FAINT, GROUND = (
    "var(--color-foreground-primary)",
    "var(--color-foreground-muted)",
    "var(--color-background-primary)",
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by colour-blind eyes, too
WIDTH, PANEL, RIGHT = 440, 160, 280  # of a drawing and of a panel in it, and where the second panel begins
SIDE, FACTOR, COARSE = 8, 2, 4


def main() -> None:
    """Draw and save all of them."""
    for name, drawing in {
        "three_partitions": three_partitions(),
        "definition_1": downsampling(),
        "definition_2": upsampling(),
        "definitions_3_4": partitioning(),
        "definition_5": consistency(),
    }.items():
        (DRAWINGS / f"{name}.svg").write_text(drawing.svg(), encoding="utf-8")


@dataclass
class Drawing:
    """What is drawn, in the order in which it is.

    Attributes:
        says: the same in words, for who does not see it.
        height: its own; all are of one width.
        parts: elements of SVG.
    """

    says: str
    height: float
    parts: list[str] = field(default_factory=list)

    def square(
        self, left: float, top: float, width: float, height: float, colour: str, opacity: float = 1, line: str = GROUND
    ) -> None:
        """An element, a group or a cell."""
        self.parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="{colour}" '
            f'fill-opacity="{opacity:.3g}" stroke="{line}" stroke-width="{1 if line == GROUND else 3}"/>'
        )

    def text(
        self, x: float, y: float, says: str, *, size: float = 13, anchor: str = "middle", colour: str = INK
    ) -> None:
        """A line of letters; x and y are its middle, or its left end at the base line."""
        place = f'x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} fill="{colour}">{says}</text>')

    def arrow(self, start: float, end: float, y: float, *lines: str) -> None:
        """From one panel to another, and above it what happens."""
        back = 9 if end > start else -9
        self.parts.append(f'<path d="M{start:g} {y:g}H{end - back:g}" stroke="{INK}" stroke-width="1.5"/>')
        self.parts.append(f'<path d="M{end:g} {y:g}l{-back:g} -5v10z" fill="{INK}"/>')
        for number, line in enumerate(reversed(lines)):
            self.text((start + end) / 2, y - 9 - 16 * number, line)

    def svg(self) -> str:
        """A part of a page."""
        head = f'<svg class="drawing" viewBox="0 0 {WIDTH} {self.height:g}" role="img" aria-label="{self.says}">'
        return "\n".join([head, *self.parts, "</svg>\n"])


def three_partitions() -> Drawing:
    """A row of queries with their groups and cells, and a row of keys with their groups."""
    drawing = Drawing("24 queries are gathered in 8 groups, these in 3 cells; 30 keys are gathered in 6 groups.", 172)
    groups, cells = GridDownsampler(3).groups((24,)), GridPartitioner(3).cells((8,))
    for element, group in enumerate(groups.labels.tolist()):
        drawing.square(9 * element, 20, 9, 22, COLOURS[cells.labels[group]], 0.35)
    for group, cell in enumerate(cells.labels.tolist()):
        drawing.square(27 * group, 78, 27, 22, COLOURS[cell], 0.65)
    for cell, size in enumerate(cells.sizes.tolist()):
        first = int(cells.order[cells.offsets[cell]])
        drawing.square(27 * first, 136, 27 * size, 22, COLOURS[cell])
        drawing.text(27 * (first + size / 2), 151.5, f"cell {cell}", colour="white", size=12)
    for element in range(30):
        drawing.square(236 + 6.8 * element, 20, 6.8, 22, FAINT, 0.4)
    for group in range(len(GridDownsampler(5).groups((30,)))):
        drawing.square(236 + 34 * group, 78, 34, 22, FAINT, 0.8)
    for left, y, name in (
        (0, 14, "24 queries"), (0, 72, "groups of 3: coarse queries"), (0, 130, "cells, here m = 3"),
        (236, 14, "30 keys"), (236, 72, "groups of 5: coarse keys"),
    ):  # fmt: skip
        drawing.text(left, y, name, anchor="start")
    return drawing


def downsampling() -> Drawing:
    """A picture, an arrow, and the means of its blocks."""
    drawing = Drawing("8 by 8 pixels become 4 by 4: each block of 2 by 2 pixels becomes its mean.", 186)
    rows, columns = torch.meshgrid(torch.arange(8.0) - 3, torch.arange(8.0) - 2.4, indexing="ij")
    fine = (-(rows**2 + columns**2) / 9).exp()[..., None]
    for left, values in ((0, fine), (RIGHT, GridDownsampler((FACTOR, FACTOR))(fine))):
        side = PANEL / len(values)
        for row, column in ((row, column) for row in range(len(values)) for column in range(len(values))):
            shade = 0.08 + 0.92 * float(values[row, column])
            drawing.square(left + side * column, side * row, side, side, COLOURS[0], shade)
        drawing.square(left + 40, 40, 40, 40, "none", line=COLOURS[1])
    drawing.arrow(172, 268, 88, "mean of each", "d × d block")
    drawing.text(80, 180, "X: 8 × 8")
    drawing.text(360, 180, "X′ = 𝒟(X), d = 2: 4 × 4")
    return drawing


def upsampling() -> Drawing:
    """Two coarse indices, an arrow, and the pixels under them."""
    drawing = Drawing("The coarse indices 5 and 11 become the eight pixels of their blocks.", 186)
    chosen = torch.tensor([5, 11])
    under = GridIndexUpsampler((FACTOR, FACTOR))(chosen, (SIDE, SIDE)).tolist()
    for left, side, count, marked in ((0, 40, COARSE, chosen.tolist()), (RIGHT, 20, SIDE, under)):
        for index in range(count**2):
            (row, column), hit = divmod(index, count), index in marked
            fill = (COLOURS[1], 1) if hit else (FAINT, 0.25)
            drawing.square(left + side * column, side * row, side, side, *fill)
            if hit or count == COARSE:
                size, colour = (13, 5) if count == COARSE else (9.5, 3.5), "white" if hit else INK
                middle = left + side * (column + 0.5), side * (row + 0.5) + size[1]
                drawing.text(*middle, str(index), size=size[0], colour=colour)
    drawing.arrow(172, 268, 88, "all elements", "of the block")
    drawing.text(80, 180, "I′ = {5, 11}")
    drawing.text(360, 180, "I = 𝒰(I′): 8 pixels")
    return drawing


def partitioning() -> Drawing:
    """A picture in one piece, and in four."""
    drawing = Drawing("A picture is cut into four cells, and the four cells make up the picture again.", 192)
    for index, cell in enumerate(GridPartitioner(2).cells((SIDE, SIDE)).labels.tolist()):
        row, column = divmod(index, SIDE)
        drawing.square(20 * column, 6 + 20 * row, 20, 20, COLOURS[cell], 0.8)
        apart = RIGHT - 12 + 20 * column + 12 * (cell % 2), 20 * row + 12 * (cell // 2)
        drawing.square(*apart, 20, 20, COLOURS[cell], 0.8)
    drawing.arrow(172, 256, 70, "partition")
    drawing.arrow(256, 172, 116, "compose")
    drawing.text(80, 186, "X")
    drawing.text(354, 188, "m = 4 cells")
    return drawing


def consistency() -> Drawing:
    """A cell of coarse queries, and the same cell of queries."""
    drawing = Drawing("The cell of the fine picture holds exactly what stands under the cell of the coarse one.", 186)
    coarse = GridPartitioner(2).cells((COARSE, COARSE)).labels
    groups = GridDownsampler((FACTOR, FACTOR)).groups((SIDE, SIDE)).labels
    for left, side, count, labels in ((0, 40, COARSE, coarse), (RIGHT, 20, SIDE, coarse[groups])):
        for index, cell in enumerate(labels.tolist()):
            row, column = divmod(index, count)
            drawing.square(left + side * column, side * row, side, side, COLOURS[cell], 1 if cell == 1 else 0.25)
    drawing.arrow(172, 268, 88, "all elements", "of its groups")
    drawing.text(80, 180, "J′ of a cell: 4 groups")
    drawing.text(360, 180, "J = 𝒰(J′): its 16 pixels")
    return drawing


if __name__ == "__main__":
    main()
