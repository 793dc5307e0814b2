"""How many pairs of a query and a key there are: those in reach, those that are met, and those that are left."""

from __future__ import annotations

import torch
from torch import Tensor

from gpa_nd.layout import Layout

PAIRS_AT_ONCE = 2**25
"""Pairs of a cell and a coarse key that are compared at the same time."""


def pairs(layout: Layout, kappa: int) -> tuple[float, float, float]:
    """Pairs of a query and a key that are in reach of its cell, and those that it attends to, in the mean.

    And pairs of a query and a coarse key that its cell might select and does not.
    """
    ends, members = layout.key_groups.host_offsets, layout.members.host_offsets
    queries, keys = layout.fine_cells.host_offsets.diff(), len(layout.key_groups)
    ranges = layout.host_ranges
    if ranges is None:
        ranges = torch.tensor([[0, keys]]).expand(len(queries), 2)
    start, stop = ranges.unbind(1)
    selectable, reach, sizes = (
        (stop - start).double(),
        (ends[stop] - ends[start]).double(),
        members[stop] - members[start],
    )
    of_each = sizes / selectable.clamp_min(1)  # the mean size of what may be selected
    if layout.coarse_positions is not None:
        selectable, reach, of_each = _not_later(layout, ranges)
    always = torch.zeros(len(queries), dtype=torch.float64)
    if layout.always is not None:
        table = layout.always.cpu()
        there, named = table >= 0, table.clamp_min(0)
        inside = there & (start[:, None] <= table) & (table < stop[:, None])
        if layout.coarse_positions is not None:
            of_cells, of_keys = (x.cpu() for x in layout.coarse_positions)
            inside &= (of_keys[named] <= of_cells[:, None]).all(-1)
        always = (members.diff()[named] * there).sum(1).double()
        reach = reach + (ends.diff()[named] * (there & ~inside)).sum(1)
        selectable = selectable - inside.sum(1)
    attended = selectable.clamp_max(kappa) * of_each + always
    rest = (selectable - kappa).clamp_min(0)
    reached, met, left = (float((queries * x).sum()) for x in (reach, attended.minimum(reach), rest))
    return reached, met, left


def _not_later(layout: Layout, ranges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each cell: the coarse keys in its range that are not later, their elements, and the mean of their members."""
    assert layout.coarse_positions is not None
    of_cells, of_keys = (x.cpu() for x in layout.coarse_positions)
    numbers = torch.arange(len(of_keys))
    elements, members = (x.host_offsets.diff().double() for x in (layout.key_groups, layout.members))
    found = []
    for some in torch.arange(len(of_cells)).split(max(1, PAIRS_AT_ONCE // max(1, len(of_keys)))):
        seen = (of_keys <= of_cells[some, None]).all(-1)
        seen &= (ranges[some, :1] <= numbers) & (numbers < ranges[some, 1:])
        weights = seen.double()
        count = weights.sum(1)
        found.append(torch.stack([count, weights @ elements, weights @ members / count.clamp_min(1)]))
    counted, reach, of_each = torch.cat(found, dim=1)
    return counted, reach, of_each
