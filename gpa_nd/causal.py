"""Causal attention: which coarse keys a cell may select without seeing what comes after any of its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import table_of
from gpa_nd.checks import check_integers
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

PAIRS_AT_ONCE = 2**25  # of a cell and a coarse key: what is compared at the same time


def causal(
    layout: Layout,
    query_positions: Int[Tensor, " n_q *axes"],
    key_positions: Int[Tensor, " n_k *axes"],
    before: Sequence[Int[Tensor, " _cells"]] | None = None,
) -> Layout:
    """The same layout, in which no query sees a later key; those at its own position it does see.

    Strictly: a change of q, k or v at positions after t changes no output at or before t, selection included. Hence

    - a coarse key is selected only if none of its elements is later than the first query of the cell;
    - coarse keys that overlap the cell are always on (:attr:`Layout.always`), and masked element by element;
    - coarse keys are ranked for a cell by the queries of an earlier cell (:attr:`Layout.ranked_by`), since those of the
      cell itself are later than its first one. Where all queries of a cell stand at one position, they rank themselves.

    With several axes, "later" means later on at least one of them; then all coarse keys that reach past the cell's
    first position on one axis, and are not wholly later than its last, are always on.

    Args:
        layout: who belongs to whom, not causal yet; its ranges and always-on keys stay as far as they are not later.
        query_positions: where each query stands, on one causal axis (n_q,) or on several (n_q, axes).
        key_positions: where each key stands, on the same axes.
        before: for every level, finest first, (m,) the earlier cell whose queries rank for each cell, −1 for none; by
            default the one that ends last among those that end in time.

    Raises:
        TypeError: not a layout, or positions that are not integer tensors.
        ValueError: a layout that is causal already, positions that do not fit it, or a cell in ``before`` that does not
            end in time.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=3, kappa=2).layout((12,), (12,))
        >>> layout = gpa_nd.causal(layout, torch.arange(12), torch.arange(12))
        >>> layout.key_ranges.tolist(), layout.always.tolist(), layout.ranked_by.tolist()
        ([[0, 0], [0, 2], [0, 4]], [[0, 1], [2, 3], [4, 5]], [0, 0, 1])
    """
    spans = _checked(layout, query_positions, key_positions, before)
    made = _causal(layout, (spans[0], spans[0]), (spans[1], spans[1]), before)
    return replace(made, positions=spans)


Span = tuple[Tensor, Tensor]
"""First and last position of each element, (n, axes) both."""


def _checked(
    layout: Layout, query_positions: Tensor, key_positions: Tensor, before: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The positions as (n_q, axes) and (n_k, axes)."""
    if not isinstance(layout, Layout):
        raise TypeError(f"layout: expected a Layout, got {type(layout).__name__}")
    if layout.positions is not None or layout.coarse_positions is not None or layout.ranked_by is not None:
        raise ValueError("layout: expected one that is not causal yet; give positions on all axes at once")
    found = []
    for name, x, part in (
        ("query_positions", query_positions, layout.query_groups),
        ("key_positions", key_positions, layout.key_groups),
    ):
        check_integers(name, x)
        if x.ndim not in (1, 2) or len(x) != part.num_elements or 0 in x.shape[1:]:
            raise ValueError(
                f"{name}: expected shape ({part.num_elements},) or ({part.num_elements}, causal axes), a row for each "
                f"element, those of a grid row-major, got {tuple(x.shape)}"
            )
        found.append((x[:, None] if x.ndim == 1 else x).long().to(layout.device))
    of_queries, of_keys = found
    if of_queries.shape[1] != of_keys.shape[1]:
        raise ValueError(
            f"key_positions: expected {of_queries.shape[1]} axes as query_positions has, got {of_keys.shape[1]}"
        )
    if before is not None:
        if not isinstance(before, Sequence):
            raise TypeError(f"before: expected a sequence of tensors, got {type(before).__name__}")
        if len(before) != layout.levels:
            raise ValueError(f"before: expected one tensor for each of {layout.levels} levels, got {len(before)}")
    return of_queries, of_keys


def _causal(layout: Layout, of_queries: Span, of_keys: Span, before: Sequence[Tensor] | None) -> Layout:
    """One level, and those above it, from the spans of its queries and keys."""
    first, last = _spans(layout.fine_cells, of_queries)
    key_first, key_last = _spans(layout.key_groups, of_keys)
    own = torch.arange(len(first), device=layout.device)
    ranked_by = torch.where((first == last).all(-1), own, _earlier(layout, first, last, before))
    coarser, parents, ranked = layout.coarser, None, ranked_by >= 0
    if coarser is not None:
        rest = None if before is None else before[1:]
        coarse_spans = _spans(layout.query_groups, of_queries)
        coarser = _causal(coarser, coarse_spans, (key_first, key_last), rest)
        parents, in_time = _parents(layout, coarser, first, coarse_spans)
        ranked &= in_time  # a cell that no cell above may choose for has what is past always on
    ranges, always, exact = _visible(layout, (first, last), (key_first, key_last), ranked)
    return replace(
        layout,
        key_ranges=ranges,
        always=always,
        coarse_positions=None if exact else (first, key_last),
        ranked_by=torch.where(ranked, ranked_by, own),
        coarser=coarser,
        parents=parents,
    )


def _earlier(layout: Layout, first: Tensor, last: Tensor, before: Sequence[Tensor] | None) -> Tensor:
    """For each cell one that ends before it begins, or where it does; −1 for none."""
    if before is None:
        return _latest_in_time(layout, first, last)
    check_integers("before", before[0])
    earlier = before[0].long().to(first.device)
    if earlier.shape != first.shape[:1]:
        raise ValueError(
            f"before: expected shape ({len(first)},), one earlier cell for each, got {tuple(earlier.shape)}"
        )
    if len(earlier) and not (-1 <= int(earlier.min()) and int(earlier.max()) < len(earlier)):
        raise ValueError(
            f"before: expected cells −1 … {len(earlier) - 1}, got {int(earlier.min())} … {int(earlier.max())}"
        )
    fits = (last[earlier.clamp_min(0)] <= first).all(-1) | (earlier < 0) | (first == last).all(-1)
    if not bool(fits.all()):
        cell = int((~fits).nonzero()[0])
        raise ValueError(f"before: expected a cell that ends before cell {cell} begins, got {int(earlier[cell])}")
    return earlier


def _parents(layout: Layout, coarser: Layout, first: Tensor, coarse_spans: Span) -> tuple[Tensor, Tensor]:
    """The cell above each cell, of those that hold one of its coarse queries and begin in time; and if there is one."""
    above = coarser.fine_cells.labels
    begins, _ = _spans(coarser.fine_cells, coarse_spans)
    in_time = (begins[above] <= first[layout.query_cells.labels]).all(-1)
    late = torch.where(in_time, 0, len(above)) + torch.arange(len(above), device=above.device)
    chosen = late.new_zeros(len(first)).scatter_reduce_(0, layout.query_cells.labels, late, "amin", include_self=False)
    return above[chosen % max(1, len(above))], chosen < len(above)


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
    whole = torch.tensor([0, len(key_first)], device=layout.device).expand(len(first), 2)
    start, stop = (whole if layout.key_ranges is None else layout.key_ranges.long()).unbind(1)
    in_order = first.shape[1] == 1 and _ascends(key_first, start, stop) and _ascends(key_last, start, stop)
    find = _runs if in_order else _one_by_one
    ranges, row, column, exact = find(cells, keys, start, stop, ranked)
    if layout.always is not None:
        kept = (layout.always >= 0) & _each_not_later(key_first, layout.always, last)
        here, place = kept.nonzero(as_tuple=True)
        row, column = torch.cat([row, here]), torch.cat([column, layout.always[here, place]])
    return ranges, table_of(row, column, len(first)), exact


def _runs(cells: Span, keys: Span, start: Tensor, stop: Tensor, ranked: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Where coarse keys stand in their order on one axis, those that are past, and those that overlap, are runs."""
    (first, last), (key_first, key_last) = ([x[:, 0] for x in span] for span in (cells, keys))
    past = _bisect(key_last, first, start, stop)
    reached = _bisect(key_first, last, past, stop)
    since = torch.where(ranked, past, start)  # with nobody to rank them, all are on
    sizes = reached - since
    row = torch.arange(len(first), device=first.device).repeat_interleave(sizes)
    column = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row] + since[row]
    nothing = (past == start) | ~ranked
    return torch.stack([start, past], dim=1).masked_fill(nothing[:, None], 0), row, column, True


def _bisect(ascending: Tensor, target: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """For each target the first place in its own range whose number is greater; the end if there is none."""
    low, high = start.clone(), stop.clone()
    for _ in range(max(1, len(ascending)).bit_length()):
        middle = (low + high) // 2
        below = (ascending[middle.clamp_max(len(ascending) - 1)] <= target) & (low < high)
        low, high = torch.where(below, middle + 1, low), torch.where(below | (low >= high), high, middle)
    return low


def _ascends(x: Tensor, start: Tensor, stop: Tensor) -> bool:
    """Whether positions (n, 1) ascend within every range."""
    if not len(x):
        return False
    falls = torch.cat([x.new_zeros(1), (x[1:, 0] < x[:-1, 0]).long()]).cumsum(0)
    return bool(((falls[(stop - 1).clamp_min(0)] == falls[start.clamp_max(len(x) - 1)]) | (start >= stop)).all())


def _one_by_one(
    cells: Span, keys: Span, start: Tensor, stop: Tensor, ranked: Tensor
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """The same by comparing cells with all coarse keys that they may see, some cells at a time."""
    (first, last), (key_first, key_last) = cells, keys
    ranges, rows, columns, exact = [start.new_zeros(0, 2)], [start[:0]], [start[:0]], True
    for some, number in _blocks(start, stop, len(key_first)):
        there = (start[some, None] <= number) & (number < stop[some, None])
        past = there & _none_later(key_last[number], first[some])
        always = there & ~past & _none_later(key_first[number], last[some])
        always |= past & ~ranked[some, None]
        past &= ranked[some, None]
        seen = past.any(-1, keepdim=True)
        ends = torch.stack([past.int().argmax(-1), len(number) - past.flip(-1).int().argmax(-1)], dim=1)
        exact &= bool((past.sum(-1) == (ends.diff()[:, 0] * seen[:, 0])).all())
        ranges.append(torch.where(seen, ends + number[:1], 0))
        row, column = always.nonzero(as_tuple=True)
        rows.append(some[row])
        columns.append(number[column])
    return torch.cat(ranges), torch.cat(rows), torch.cat(columns), exact


def _blocks(start: Tensor, stop: Tensor, n_k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cells, and all coarse keys that they may see: of structures side by side not those of the others."""
    cells, keys = torch.arange(len(start), device=start.device), torch.arange(n_k, device=start.device)
    if not len(cells) or not n_k:
        return
    a_structure = len(cells) * int((stop - start).float().mean()) // n_k  # cells that see the same keys
    for some in cells.split(max(1, min(PAIRS_AT_ONCE // n_k, max(256, a_structure)))):
        low = min(int(start[some].min()), n_k - 1)
        yield some, keys[low : max(low + 1, int(stop[some].max()))]


def _none_later(keys: Tensor, cells: Tensor) -> Tensor:
    """(cells, keys): whether the key is later than the cell on no axis."""
    return _on_all_axes(cells.shape[1], lambda axis: keys[:, axis] <= cells[:, axis, None])


def _each_not_later(keys: Tensor, index: Tensor, cells: Tensor) -> Tensor:
    """(cells, a): whether the key that is named is later than the cell on no axis."""
    return _on_all_axes(cells.shape[1], lambda axis: keys[index.clamp_min(0), axis] <= cells[:, axis, None])


def _on_all_axes(axes: int, compare: Callable[[int], Tensor]) -> Tensor:
    result = compare(0)
    for axis in range(1, axes):
        result &= compare(axis)
    return result


def _latest_in_time(layout: Layout, first: Tensor, last: Tensor) -> Tensor:
    """For each cell the one that ends last among those of its structure that end in time, or where it begins; or −1."""
    structure = torch.zeros_like(first[:, 0])
    if layout.key_ranges is not None:  # structures side by side differ in what they see
        structure = layout.key_ranges.unique(dim=0, return_inverse=True)[1]
    if first.shape[1] == 1:
        rank = torch.cat([first, last])[:, 0].unique(return_inverse=True)[1]  # positions may be any numbers
        begins, ends = (rank + structure.repeat(2) * (len(rank) + 1)).view(2, -1)
        ends, order = ends.sort(stable=True)
        found = torch.searchsorted(ends, begins, right=True) - 1
        latest = order[found.clamp_min(0)]
        return torch.where((found >= 0) & (structure[latest] == structure), latest, -1)
    order = last.sum(-1).argsort(stable=True)
    latest = []
    for some in torch.arange(len(first), device=first.device).split(max(1, PAIRS_AT_ONCE // max(1, len(last)))):
        in_time = _none_later(last[order], first[some]) & (structure[order] == structure[some, None])
        found = len(order) - 1 - in_time.flip(-1).int().argmax(-1)
        latest.append(torch.where(in_time.any(-1), order[found], -1))
    return torch.cat([first.new_zeros(0), *latest])
