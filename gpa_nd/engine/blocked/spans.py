"""Which coarse keys are looked at together, where every cell sees a range of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

FEW_KEYS = 512  # coarse keys that a matrix product takes no notice of
ROWS_OF_A_COPY = 4  # coarse queries that a coarse key could have met in the time that it takes to copy one


@dataclass(frozen=True)
class Span:
    """Some cells, and coarse keys that hold all that these see.

    Attributes:
        cells: (n,) their numbers, on the CPU; None for all.
        start: the first coarse key.
        stop: the one after the last.
        alike: whether every cell sees all of them.
    """

    cells: Int[Tensor, " n"] | None
    start: int
    stop: int
    alike: bool


@dataclass(frozen=True)
class Apart:
    """Some cells whose coarse keys have so little in common that each cell gets a copy of its own.

    Attributes:
        cells: (n,) their numbers, on the CPU.
        width: the most coarse keys that one of them sees.
    """

    cells: Int[Tensor, " n"]
    width: int


def plan(ranges: Int[Tensor, "m 2"], sizes: Int[Tensor, " m"]) -> tuple[list[Span], list[Apart]]:
    """Cells that see about the same go together, so that little is computed which is then not looked at.

    Args:
        ranges: which coarse keys each cell sees, on the CPU.
        sizes: how many coarse queries rank for each cell.

    Returns:
        Together the cells that see something. There are as many spans as there is work for: no cell or structure gets
        one of its own if it is small.

    Example:
        >>> ranges = torch.tensor([[0, 3], [0, 3], [3, 3], [3, 5]])
        >>> spans, apart = plan(ranges, torch.tensor([9, 9, 9, 1]))
        >>> [(span.cells.tolist(), span.start, span.stop, span.alike) for span in spans], apart
        ([([0, 1, 3], 0, 5, False)], [])
    """
    starts, stops = ranges.unbind(-1)
    widths = stops - starts
    some = (widths > 0).nonzero()[:, 0]
    for key in (stops, starts, _power_of_two(widths)):  # the last one counts most
        some = some[key[some].argsort(stable=True)]
    starts, stops, widths, sizes = (x[some] for x in (starts, stops, widths, sizes))
    spans, rest, begin = [], [], 0
    while begin < len(some):
        here = slice(begin, begin + _length(starts, stops, begin))
        start, stop = int(starts[here].min()), int(stops[here].max())
        worth = widths[here] * (sizes[here] + ROWS_OF_A_COPY)
        if (stop - start) * int(sizes[here].sum()) > 2 * int(worth.sum()):
            rest.append(torch.arange(here.start, here.stop))
        else:
            spans.append(Span(some[here], start, stop, bool((widths[here] == stop - start).all())))
        begin = here.stop
    apart = []
    if rest:
        left = torch.cat(rest)
        counts = _power_of_two(widths[left]).unique_consecutive(return_counts=True)[1].tolist()
        apart = [Apart(some[few], int(widths[few].max())) for few in left.split(counts)]
    return spans, apart


def _length(starts: Tensor, stops: Tensor, begin: int) -> int:
    """How many cells from here on see little but the same coarse keys."""
    tried = 256
    while True:
        start, stop = starts[begin : begin + tried], stops[begin : begin + tried]
        number = torch.arange(1, len(start) + 1)
        together = stop.cummax(0).values - start.cummin(0).values
        fits = (together <= FEW_KEYS) | (8 * together * number <= 9 * (stop - start).cumsum(0))
        fits[0] = True
        if not bool(fits.all()):
            return int(fits.int().argmin())
        if begin + tried >= len(starts):
            return len(start)
        tried *= 4


def _power_of_two(x: Tensor) -> Tensor:
    """The exponent of the largest power of two that is not greater."""
    return x.clamp_min(1).double().log2().floor().long()
