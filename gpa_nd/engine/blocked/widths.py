"""Cells by how many coarse keys they name: where what is always on is ragged, the rows of many end in −1."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def widths(
    relevant: Int[Tensor, "h m r"], always: Int[Tensor, "m a"] | None
) -> list[tuple[int, Int[Tensor, " some"] | None]]:
    """How many columns of ``relevant`` are looked at, and for which cells; None if for all of them.

    Cells of a row have a quarter of the columns to spare at most. Numbers come from ``always`` alone: nothing that a
    tensor holds may sway the rounding of what is computed over them. Looked up on a CPU, not waited for on a GPU.

    Example:
        >>> always = torch.tensor([[0, -1, -1, -1], [1, 2, 3, 4], [5, 6, 7, -1]])
        >>> relevant = torch.cat([torch.tensor([[8], [9], [8]]), always], dim=1)[None]
        >>> [(columns, cells.tolist()) for columns, cells in widths(relevant, always)]
        [(5, [1, 2]), (2, [0])]
    """
    columns = relevant.shape[-1]
    if always is None or always.device.type != "cpu" or columns < always.shape[1]:
        return [(columns, None)]
    others = columns - always.shape[1]
    if bool(((relevant[..., others:] >= 0) & (always < 0)).any()):  # keys of one's own, from elsewhere
        return [(columns, None)]
    last = (always >= 0) * torch.arange(1, always.shape[1] + 1)
    needed, cells = (others + last.amax(-1)).clamp_min(1).sort(descending=True, stable=True)
    found: list[tuple[int, Tensor | None]] = []
    start = 0
    while start < len(cells):
        most = int(needed[start])
        stop = int(torch.searchsorted(-needed, -(3 * most // 4), right=True))
        found.append((most, cells[start:stop].sort().values))
        start = max(stop, start + 1)
    return found if len(found) > 1 else [(columns, None)]
