"""The kernels of Phase 1 where cells have candidates: the log-sum-exp and the sums over these alone.

Conventions, and the kernels that are named here without being there, are those of
:mod:`gpa_nd.engine.fused.selection_kernels`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused.affinities import LOWEST, added_up, held, joined, products, weights_of
from gpa_nd.engine.fused.attention_kernels import queries_of


@triton.jit
def _candidate(
    names,
    ranges,
    cell_positions,
    key_positions,
    added,
    cell,
    inside,
    AXES: tl.constexpr,
):
    """The coarse keys that ``names`` points at, which of them the cell sees, and what is added to their affinities."""
    key = tl.load(names, mask=inside, other=-1).to(tl.int32)
    seen = key >= 0
    key = tl.maximum(key, 0)
    if ranges is not None:
        first_key = tl.load(ranges + 2 * cell).to(tl.int32)
        last_key = tl.load(ranges + 2 * cell + 1).to(tl.int32)
        seen = seen & (key >= first_key) & (key < last_key)
    for axis in tl.static_range(AXES):
        now = tl.load(cell_positions + cell * AXES + axis)
        seen = seen & (tl.load(key_positions + key * AXES + axis) <= now)
    more = tl.zeros(key.shape, tl.float32)
    if added is not None:
        more = tl.load(added + key)
        seen = seen & (more != float("-inf"))
    return key, seen, more


@triton.jit(do_not_specialize=["shared", "rows", "cells", "tiles", "count"])
def candidate_log_sum_exp(
    q,
    k,
    names,
    cell_offsets,
    cell_of_tile,
    ranges,
    cell_positions,
    key_positions,
    added,
    lse,
    shared,
    rows,
    keys_stored,
    cells,
    tiles,
    count,
    scale,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CELL: tl.constexpr,
    AXES: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """As ``log_sum_exp`` with one split, over the candidates ``names`` (B·H, cells, count) of each row's cell."""
    head, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    cell, place, stop = queries_of(tile, cell_offsets, cell_of_tile, CELL, ROWS)
    if place >= stop:
        return
    row = place + tl.arange(0, ROWS)
    inside = row < stop
    q_row = (q + head.to(tl.int64) * rows * STORED + row * STORED)[:, None]
    k += (head // shared).to(tl.int64) * keys_stored * STORED
    names += (head.to(tl.int64) * cells + cell) * count
    main, rest = held(q_row, inside[:, None], MAIN, REST, EMULATED)
    if added is not None:
        added += (head // shared).to(tl.int64) * keys_stored
        factor, scale = scale, 1.0

    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for first in range(0, count, KEYS):
        at = first + tl.arange(0, KEYS)
        key, seen, more = _candidate(names + at, ranges, cell_positions, key_positions, added, cell, at < count, AXES)
        scores = products(
            *(q_row, inside[:, None], main, rest, (k + key * STORED)[None, :]),
            *(STORED, MAIN, REST, PRECISION, EMULATED),
        )
        if added is not None:
            scores = scores * factor + more[None, :]
        scores = tl.where(seen[None, :], scores, float("-inf"))
        largest, total = added_up(largest, total, scores, scale)
    out = lse + head.to(tl.int64) * (2 * rows) + row
    tl.store(out, largest, mask=inside)
    tl.store(out + rows, tl.log2(total), mask=inside)


@triton.jit(do_not_specialize=["shared", "rows", "first_head", "first_cell", "cells", "all_cells", "count"])
def candidate_sums(
    q,
    k,
    lse,
    names,
    offsets,
    ranges,
    cell_positions,
    key_positions,
    added,
    sums,
    maxima,
    shared,
    rows,
    keys_stored,
    first_head,
    first_cell,
    cells,
    all_cells,
    count,
    scale,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    AXES: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """As ``large_cell_sums``, over a tile of the candidates of each cell; −∞ for what it does not see.

    Without ``lse`` cells have one row, and their affinities rank as they are.
    """
    tiles = tl.cdiv(count, KEYS)
    tile = tl.program_id(0) % tiles
    cell = tl.program_id(0) // tiles % cells
    head_here = tl.program_id(0) // (tiles * cells)
    head = first_head + head_here
    start = tl.load(offsets + first_cell + cell).to(tl.int32)
    size = tl.load(offsets + first_cell + cell + 1).to(tl.int32) - start
    q += (head.to(tl.int64) * rows + start) * STORED
    k += (head // shared).to(tl.int64) * keys_stored * STORED
    if lse is not None:
        lse += head.to(tl.int64) * (2 * rows) + start
    if added is not None:
        added += (head // shared).to(tl.int64) * keys_stored
    at = tile * KEYS + tl.arange(0, KEYS)
    names += (head.to(tl.int64) * all_cells + first_cell + cell) * count
    key, seen, more = _candidate(
        names + at, ranges, cell_positions, key_positions, added, first_cell + cell, at < count, AXES
    )
    k_row = (k + key * STORED)[None, :]
    if added is not None:
        factor, scale = scale, 1.0

    slot = tl.arange(0, ROWS)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    for first in range(0, size, ROWS):
        inside = first + slot < size
        q_row = (q + tl.cast(first, tl.int64) * STORED + slot * STORED)[:, None]
        main, rest = held(q_row, inside[:, None], MAIN, REST, EMULATED)
        scores = products(
            *(q_row, inside[:, None], main, rest, k_row, STORED, MAIN, REST, PRECISION, EMULATED),
        )
        if added is not None:
            scores = scores * factor + more[None, :]
        if lse is None:
            weights += tl.where(inside[:, None], scores * scale, 0.0)
        else:
            largest, total = joined(lse + first, slot, inside, 1, rows, scale, ROWS)
            weights += weights_of(scores, largest, total, scale)
    value = tl.sum(weights, 0)
    if lse is None:
        value = tl.where(value == value, tl.maximum(value, LOWEST), float("inf"))
    else:
        value = tl.where(value == value, value, float("inf"))
    value = tl.where(seen, value, float("-inf"))
    here = head_here.to(tl.int64) * cells + cell
    tl.store(sums + here * tiles * KEYS + at, value)
    tl.store(maxima + here * tiles + tile, tl.max(value, 0))
