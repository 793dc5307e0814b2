"""Global keys: class tokens, registers and text, which have no place in the structure and are seen by all of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gpa_nd.checks import check_int
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition


def with_global_keys(layout: Layout, leading: int = 0, trailing: int = 0) -> Layout:
    """The same layout with keys before and after the others that every cell attends to, whatever it selects.

    They stand in groups of their own behind the others, no larger than those are, so that nothing is padded for them.
    No cell selects or ranks them: it chooses κ of the other groups, and the same ones as without them.

    Args:
        layout: who belongs to whom, not causal.
        leading: keys before the first one of the layout.
        trailing: keys after the last.

    Raises:
        TypeError: not a layout, or a number that is no int.
        ValueError: a negative number, or a causal layout, in which global keys would need positions.

    Example:
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
        >>> layout = with_global_keys(layout, leading=1, trailing=2)
        >>> layout, layout.key_groups.labels.tolist()
        (Layout(8 queries in 4 groups in 2 cells, 11 keys in 6 groups), [4, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
        >>> layout.always.tolist(), layout.key_ranges.tolist()
        ([[4, 5], [4, 5]], [[0, 4], [0, 4]])
    """
    if not isinstance(layout, Layout):
        raise TypeError(f"layout: expected a Layout, got {type(layout).__name__}")
    check_int("leading", leading, at_least=0)
    check_int("trailing", trailing, at_least=0)
    if not leading + trailing:
        return layout
    if layout.positions is not None or layout.coarse_positions is not None:
        raise ValueError(
            f"layout: expected one that is not causal, since global keys have no position, got the causal {layout}"
        )
    groups, m = len(layout.key_groups), len(layout.query_cells)
    made = _among(layout, leading, trailing)
    always = torch.arange(groups, len(made.key_groups), device=layout.device).expand(m, -1)
    if layout.always is not None:
        always = torch.cat([always, layout.always], dim=1)
    return replace(made, always=always)


def _among(layout: Layout, leading: int, trailing: int) -> Layout:
    """The layout, and those above it, in which these keys are there and no cell may select them."""
    groups, m = len(layout.key_groups), len(layout.query_cells)
    key_groups = _beside(layout.key_groups, leading, trailing, layout.key_groups.largest)
    more = len(key_groups) - groups
    ranges = torch.tensor([[0, groups]], device=layout.device).expand(m, 2)
    members = None if layout.key_members is None else _members_beside(layout, leading, trailing)
    return replace(
        layout,
        key_groups=key_groups,
        key_members=members,
        key_ranges=ranges if layout.key_ranges is None else layout.key_ranges,
        coarser=None if layout.coarser is None else _among(layout.coarser, 0, more),
        key_parts=None
        if layout.key_parts is None
        else _beside(layout.key_parts, leading, trailing, layout.key_groups.largest),
    )


def _beside(part: Partition, leading: int, trailing: int, size: int) -> Partition:
    """More elements before and after those of a partition, in cells of this size behind its own."""
    return Partition.from_labels(_labels(part.labels, len(part), leading, trailing, size))


def _members_beside(layout: Layout, leading: int, trailing: int) -> Partition:
    """The same of members, which may leave elements out."""
    members, size = layout.members, layout.key_groups.largest
    if members.covers:
        return _beside(members, leading, trailing, size)
    owner = torch.arange(len(members), device=layout.device).repeat_interleave(members.sizes)
    elements, place = members.order.sort()
    labels = _labels(owner[place], len(members), leading, trailing, size)
    n = leading + layout.key_groups.num_elements
    number = torch.arange(n + trailing, device=layout.device)
    return Partition.from_labels(labels, torch.cat([number[:leading], elements + leading, number[n:]]))


def _labels(labels: Tensor, cells: int, leading: int, trailing: int, size: int) -> Tensor:
    added = cells + torch.arange(leading + trailing, device=labels.device) // max(1, size)
    return torch.cat([added[:leading], labels, added[leading:]])
