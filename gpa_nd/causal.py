"""Causal attention: which coarse keys a cell may select without seeing what stands behind any of its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

PAIRS_AT_ONCE = 2**25  # of a cell and a coarse key: what is compared at the same time


def causal(
    layout: Layout,
    query_positions: Int[Tensor, " n_q *axes"],
    key_positions: Int[Tensor, " n_k *axes"],
    before: Sequence[Int[Tensor, " m"]] | None = None,
) -> Layout:
    """The same layout, in which no query sees a key that stands behind it.

    Strictly: a change of q, k or v at positions behind t changes no output at or before t, selection included. Hence

    - a coarse key is selected only if none of its elements stands behind the first query of the cell;
    - coarse keys that overlap the cell are always on (:attr:`Layout.always`), and masked element by element;
    - coarse keys are ranked for a cell by the queries of an earlier cell (:attr:`Layout.ranked_by`), since those of the
      cell itself stand behind its first one. Where all queries of a cell stand at one position, they rank themselves.

    With several axes, "behind" means behind on at least one of them; then all coarse keys that reach behind the cell's
    first position on one axis, and not wholly behind its last, are always on.

    Args:
        layout: who belongs to whom; its ranges and always-on keys stay as far as they are not behind.
        query_positions: where each query stands, on one causal axis (n_q,) or on several (n_q, axes).
        key_positions: where each key stands, on the same axes.
        before: for every level, finest first, (m,) the earlier cell whose queries rank for each cell, −1 for none; by
            default the one that ends last among those that end in time.

    Raises:
        TypeError: positions that are not integer tensors.
        ValueError: positions that do not fit the layout, or a cell in ``before`` that does not end in time.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=3, kappa=2).layout((12,), (12,))
        >>> layout = gpa_nd.causal(layout, torch.arange(12), torch.arange(12))
        >>> layout.key_ranges.tolist(), layout.always.tolist(), layout.ranked_by.tolist()
        ([[0, 0], [0, 2], [0, 4]], [[0, 1], [2, 3], [4, 5]], [0, 0, 1])
    """
    spans = []
    for name, x, part in (
        ("query_positions", query_positions, layout.query_groups),
        ("key_positions", key_positions, layout.key_groups),
    ):
        check_integers(name, x)
        if x.ndim not in (1, 2) or len(x) != part.num_elements:
            raise ValueError(f"{name}: expected shape ({part.num_elements}, axes), got {tuple(x.shape)}")
        spans.append((x[:, None] if x.ndim == 1 else x).long().to(layout.device))
    of_queries, of_keys = spans
    if of_queries.shape[1] != of_keys.shape[1]:
        raise ValueError(
            f"key_positions: expected {of_queries.shape[1]} axes as query_positions has, got {of_keys.shape[1]}"
        )
    if before is not None and len(before) != layout.levels:
        raise ValueError(f"before: expected one tensor for each of {layout.levels} levels, got {len(before)}")
    made = _causal(layout, (of_queries, of_queries), (of_keys, of_keys), before)
    return replace(made, positions=(of_queries, of_keys))


Span = tuple[Tensor, Tensor]
"""First and last position of each element, (n, axes) both."""


def _causal(layout: Layout, of_queries: Span, of_keys: Span, before: Sequence[Tensor] | None) -> Layout:
    """One level, and those above it, from the spans of its queries and keys."""
    first, last = _spans(layout.fine_cells, of_queries)
    key_first, key_last = _spans(layout.key_groups, of_keys)
    own = torch.arange(len(first), device=layout.device)
    earlier = _latest_in_time(first, last) if before is None else before[0].to(layout.device)
    if earlier.shape != own.shape:
        raise ValueError(f"before: expected shape ({len(own)},), one earlier cell for each, got {tuple(earlier.shape)}")
    in_time = (last[earlier.clamp_min(0)] <= first).all(-1) | (earlier < 0)
    alone = (first == last).all(-1)
    if not bool((in_time | alone).all()):
        cell = int((~(in_time | alone)).nonzero()[0])
        raise ValueError(f"before: expected a cell that ends before cell {cell} begins, got {int(earlier[cell])}")
    ranked_by = torch.where(alone, own, earlier)
    ranges, always, exact = _visible(layout, (first, last), (key_first, key_last), ranked_by >= 0)
    coarser = layout.coarser
    if coarser is not None:
        rest = None if before is None else before[1:]
        coarser = _causal(coarser, _spans(layout.query_groups, of_queries), (key_first, key_last), rest)
    return replace(
        layout,
        key_ranges=ranges,
        always=always,
        coarse_positions=None if exact else (first, key_last),
        ranked_by=torch.where(ranked_by >= 0, ranked_by, own),
        coarser=coarser,
    )


def _spans(cells: Partition, of_elements: Span) -> Span:
    """First and last position of each cell, on every axis."""
    ends: list[Tensor] = []
    for x, how in zip(of_elements, ("amin", "amax"), strict=True):
        index = cells.labels[:, None].expand_as(x)
        ends.append(x.new_zeros(len(cells), x.shape[1]).scatter_reduce_(0, index, x, how, include_self=False))
    return ends[0], ends[1]


def _visible(layout: Layout, cells: Span, keys: Span, ranked: Tensor) -> tuple[Tensor, Tensor, bool]:
    """What each cell may select, as ranges; what is always on; and whether the ranges say all."""
    (first, last), (key_first, key_last) = cells, keys
    if not len(key_first):
        return first.new_zeros(len(first), 2), first.new_zeros(len(first), 0), True
    ranges, rows, columns, exact = [], [], [], True
    for some, number in _blocks(layout):
        there = torch.ones(len(some), len(number), dtype=torch.bool, device=layout.device)
        if layout.key_ranges is not None:
            there = (layout.key_ranges[some, :1] <= number) & (number < layout.key_ranges[some, 1:])
        past = there & _none_behind(key_last[number], first[some])
        always = there & ~past & _none_behind(key_first[number], last[some])
        if layout.always is not None:
            kept = layout.always[some]
            kept = torch.where((kept >= 0) & _each_not_behind(key_first, kept, last[some]), kept, -1)
            here, place = (kept >= 0).nonzero(as_tuple=True)
            always[here, kept[here, place] - number[0]] = True
        always |= past & ~ranked[some, None]  # with nobody to rank them
        past &= ranked[some, None]
        start = torch.where(past.any(-1), past.int().argmax(-1), 0)
        stop = torch.where(past.any(-1), len(number) - past.flip(-1).int().argmax(-1), 0)
        exact &= bool((past.sum(-1) == stop - start).all())
        seen = past.any(-1, keepdim=True)
        ranges.append(torch.where(seen, torch.stack([start, stop], dim=-1) + number[:1], 0))
        row, column = always.nonzero(as_tuple=True)
        rows.append(some[row])
        columns.append(number[column])
    row, column = torch.cat(rows), torch.cat(columns)
    sizes = torch.bincount(row, minlength=len(first))
    place = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
    table = torch.full((len(first), int(sizes.max()) if len(sizes) else 0), -1, device=layout.device)
    table[row, place] = column
    return torch.cat(ranges), table, exact


def _blocks(layout: Layout) -> Iterator[tuple[Tensor, Tensor]]:
    """Cells, and all coarse keys that they may see: of structures side by side not those of the others."""
    m, n_k = len(layout.query_cells), len(layout.key_groups)
    number = torch.arange(max(m, n_k), device=layout.device)
    cells, keys = number[:m], number[:n_k]
    at_once = max(1, PAIRS_AT_ONCE // n_k)
    if layout.key_ranges is None or not m:
        yield from ((some, keys) for some in cells.split(at_once))
        return
    a_structure = m * int(layout.key_ranges.diff().float().mean()) // n_k  # cells that see the same keys
    low, high = layout.key_ranges.unbind(1)
    if layout.always is not None:
        low = torch.minimum(low, layout.always.where(layout.always >= 0, n_k).amin(1))
        high = torch.maximum(high, layout.always.amax(1) + 1)
    for some in cells.split(min(at_once, max(256, a_structure))):
        start = min(int(low[some].min()), n_k - 1)
        yield some, keys[start : max(start + 1, int(high[some].max()))]


def _none_behind(keys: Tensor, cells: Tensor) -> Tensor:
    """(cells, keys): whether the key is behind the cell on no axis."""
    return _on_all_axes(cells.shape[1], lambda axis: keys[:, axis] <= cells[:, axis, None])


def _each_not_behind(keys: Tensor, index: Tensor, cells: Tensor) -> Tensor:
    """(cells, a): whether the key that is named is behind the cell on no axis."""
    return _on_all_axes(cells.shape[1], lambda axis: keys[index.clamp_min(0), axis] <= cells[:, axis, None])


def _on_all_axes(axes: int, compare: Callable[[int], Tensor]) -> Tensor:
    result = compare(0)
    for axis in range(1, axes):
        result &= compare(axis)
    return result


def _latest_in_time(first: Tensor, last: Tensor) -> Tensor:
    """For each cell the one that ends last among those that end in time, not behind its first position; −1: none."""
    order = last.sum(-1).argsort(stable=True)
    latest = []
    for some in first.split(max(1, PAIRS_AT_ONCE // max(1, len(last)))):
        in_time = _none_behind(last[order], some)
        found = len(order) - 1 - in_time.flip(-1).int().argmax(-1)
        latest.append(torch.where(in_time.any(-1), order[found], -1))
    return torch.cat(latest)
