"""The kernels of Phase 1 that rank all coarse keys: log-sum-exp of each coarse query, sums over each cell.

Conventions: programs have one axis, with batch and head as its slowest part. Scratch tensors that only these kernels
see are contiguous; what their rows hold is said in :mod:`gpa_nd.engine.fused.affinities`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused.affinities import LOWEST, added_up, affinities, among, held, joined, not_later, weights_of


@triton.jit(do_not_specialize=["shared", "rows", "keys", "splits", "tiles_per_split"])
def log_sum_exp(
    q,
    k,
    ranges,
    cell_positions,
    key_positions,
    added,
    lse,
    shared,
    rows,
    keys,
    keys_stored,
    splits,
    tiles_per_split,
    scale,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    EVEN: tl.constexpr,
    AXES: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """Log-sum-exp of each coarse query over the visible coarse keys of one split, as (B·H, splits, 2, rows).

    The first is the largest q·k, the second the base-2 logarithm of the sum of exp2((q·k − largest) · scale). One
    number for both would round away what tells rows apart where affinities are large. ``scale`` is above zero.
    ``ranges`` (rows, 2) are the keys that each row may see, all of them where it is None; ``cell_positions``
    (rows, AXES) and ``key_positions`` (keys_stored, AXES) hide what is later; ``added`` (B·H_k, keys_stored) is a bias
    in base 2, −∞ for what it hides, and then the first of the two numbers is in base 2, too. A row that is not a number
    stays so; a row that sees nothing in this split has −∞.
    """
    row_tiles = tl.cdiv(rows, ROWS)
    row_tile = tl.program_id(0) % row_tiles
    split = tl.program_id(0) // row_tiles % splits
    head = tl.program_id(0) // (row_tiles * splits)
    row = tl.arange(0, ROWS)
    inside = row_tile * ROWS + row < rows
    q += (head.to(tl.int64) * rows + row_tile * ROWS) * STORED
    k += (head // shared).to(tl.int64) * keys_stored * STORED
    q_row = (q + row * STORED)[:, None]
    main, rest = held(q_row, inside[:, None], MAIN, REST, EMULATED)

    begin = split * tiles_per_split * KEYS
    end = tl.minimum(begin + tiles_per_split * KEYS, keys)
    if ranges is not None:
        start = tl.load(ranges + 2 * (row_tile * ROWS + row), mask=inside, other=keys).to(tl.int32)
        stop = tl.load(ranges + 2 * (row_tile * ROWS + row) + 1, mask=inside, other=0).to(tl.int32)
        begin = tl.maximum(begin, tl.min(start, 0) // KEYS * KEYS)
        end = tl.minimum(end, tl.max(stop, 0))
    if added is not None:
        added += (head // shared).to(tl.int64) * keys_stored
        factor, scale = scale, 1.0

    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for first in range(begin, end, KEYS):
        key = tl.arange(0, KEYS)
        k_tile = k + tl.cast(first, tl.int64) * STORED
        scores = affinities(
            *(q_row, inside[:, None], main, rest, k_tile),
            *(STORED, MAIN, REST, KEYS, PRECISION, EMULATED),
        )
        if added is not None:
            more = tl.load(added + first + key)
            scores = tl.where(more[None, :] == float("-inf"), float("-inf"), scores * factor + more[None, :])
        if ranges is not None:  # after what is added, which may be NaN
            scores = tl.where(among(first + key[None, :], start[:, None], stop[:, None]), scores, float("-inf"))
        elif not EVEN:
            scores = tl.where(first + key[None, :] < keys, scores, float("-inf"))
        if AXES > 0:
            seen = tl.zeros((ROWS, KEYS), tl.int32) == 0
            own = tl.where(inside, row_tile * ROWS + row, 0)
            seen = not_later(seen, first + key, own, cell_positions, key_positions, AXES)
            scores = tl.where(seen, scores, float("-inf"))
        largest, total = added_up(largest, total, scores, scale)
    out = lse + (head.to(tl.int64) * splits + split) * (2 * rows) + row_tile * ROWS + row
    tl.store(out, largest, mask=inside)
    tl.store(out + rows, tl.log2(total), mask=inside)


@triton.jit(
    do_not_specialize=[
        *("shared", "rows", "keys", "first_head", "first_cell", "cells"),
        *("splits", "size", "key_splits", "tiles_per_split"),
    ]
)
def cell_sums(
    q,
    k,
    lse,
    offsets,
    ranges,
    cell_positions,
    key_positions,
    added,
    sums,
    maxima,
    shared,
    rows,
    keys,
    keys_stored,
    first_head,
    first_cell,
    cells,
    splits,
    scale,
    size,
    key_splits,
    tiles_per_split,
    STORED: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    SLOTS: tl.constexpr,
    AXES: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """Sums over small cells: ROWS // SLOTS whole cells side by side, each in SLOTS rows of the tile.

    ``cells`` cells from ``first_cell`` on, of the heads from ``first_head`` on, go to ``sums`` (heads, cells,
    keys_stored), and the largest visible sum of each tile of keys to ``maxima`` (heads, cells, keys_stored / KEYS).
    With SLOTS = 1 these are the affinities themselves, which rank as their softmax does. NaN is stored as +∞; what
    positions or ``added`` (in base 2 only with SLOTS > 1) hide as −∞.
    """
    HIDES: tl.constexpr = AXES > 0 or added is not None
    CELLS: tl.constexpr = ROWS // SLOTS
    packs = tl.cdiv(cells, CELLS)
    pack = tl.program_id(0) % packs
    key_split = tl.program_id(0) // packs % key_splits
    head_here = tl.program_id(0) // (packs * key_splits)
    head = first_head + head_here
    tiles = keys_stored // KEYS
    q += head.to(tl.int64) * rows * STORED
    k += (head // shared).to(tl.int64) * keys_stored * STORED
    sums += (head_here.to(tl.int64) * cells + pack * CELLS) * keys_stored
    maxima += (head_here.to(tl.int64) * cells + pack * CELLS) * tiles

    slot = tl.arange(0, ROWS)
    slot_cell = pack * CELLS + slot // SLOTS
    if offsets is None:
        base = (first_cell + pack * CELLS) * size
        row = slot // SLOTS * size + slot % SLOTS
        inside = (slot_cell < cells) & (slot % SLOTS < size)
    else:
        base = tl.load(offsets + first_cell + pack * CELLS).to(tl.int32)
        start = tl.load(offsets + first_cell + slot_cell, mask=slot_cell < cells, other=0).to(tl.int32)
        stop = tl.load(offsets + first_cell + slot_cell + 1, mask=slot_cell < cells, other=0).to(tl.int32)
        row = start - base + slot % SLOTS
        inside = start + slot % SLOTS < stop
    q_row = (q + tl.cast(base, tl.int64) * STORED + row * STORED)[:, None]
    main, rest = held(q_row, inside[:, None], MAIN, REST, EMULATED)
    if added is not None:
        added += (head // shared).to(tl.int64) * keys_stored
        factor, scale = scale, 1.0
    if SLOTS > 1:
        lse += head.to(tl.int64) * splits * (2 * rows) + base
        largest, total = joined(lse, row, inside, splits, rows, scale, ROWS)

    cell = tl.arange(0, CELLS)
    inside_cell = pack * CELLS + cell < cells
    first_tile = key_split * tiles_per_split
    last_tile = tl.minimum(first_tile + tiles_per_split, tiles)
    if ranges is not None:
        first_key = tl.load(ranges + 2 * (first_cell + pack * CELLS + cell), mask=inside_cell, other=keys)
        last_key = tl.load(ranges + 2 * (first_cell + pack * CELLS + cell) + 1, mask=inside_cell, other=0)
        first_key, last_key = first_key.to(tl.int32), last_key.to(tl.int32)
        first_tile = tl.maximum(first_tile, tl.min(first_key, 0) // KEYS)
        last_tile = tl.minimum(last_tile, tl.cdiv(tl.max(last_key, 0), KEYS))

    for tile in range(first_tile, last_tile):
        key = tl.arange(0, KEYS)
        k_tile = k + tl.cast(tile, tl.int64) * KEYS * STORED
        scores = affinities(
            *(q_row, inside[:, None], main, rest, k_tile),
            *(STORED, MAIN, REST, KEYS, PRECISION, EMULATED),
        )
        if added is not None:
            more = tl.load(added + tile * KEYS + key)
            scores = scores * factor + more[None, :]
        if SLOTS == 1:
            if added is None:
                scores *= scale
            value = tl.where(scores == scores, tl.maximum(scores, LOWEST), float("inf"))
        else:
            weights = weights_of(scores, largest, total, scale)
            value = tl.sum(tl.reshape(weights, (CELLS, SLOTS, KEYS)), 1)
            value = tl.where(value == value, value, float("inf"))
        if HIDES:
            unhidden = tl.zeros((CELLS, KEYS), tl.int32) == 0
            if added is not None:
                unhidden = unhidden & (more != float("-inf"))[None, :]
            own = tl.where(inside_cell, first_cell + pack * CELLS + cell, 0)
            unhidden = not_later(unhidden, tile * KEYS + key, own, cell_positions, key_positions, AXES)
            value = tl.where(unhidden, value, float("-inf"))
        tl.store(sums + cell[:, None] * keys_stored + tile * KEYS + key[None, :], value, mask=inside_cell[:, None])
        key += tile * KEYS
        if ranges is not None:
            seen = among(key[None, :], first_key[:, None], last_key[:, None])
        else:
            seen = (key < keys)[None, :]
        tl.store(maxima + cell * tiles + tile, tl.max(tl.where(seen, value, float("-inf")), 1), mask=inside_cell)


@triton.jit(do_not_specialize=["shared", "rows", "keys", "first_head", "first_cell", "cells", "splits"])
def large_cell_sums(
    q,
    k,
    lse,
    offsets,
    ranges,
    cell_positions,
    key_positions,
    added,
    sums,
    maxima,
    shared,
    rows,
    keys,
    keys_stored,
    first_head,
    first_cell,
    cells,
    splits,
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
    """As :func:`cell_sums` for cells of any size: one program walks over all rows of a cell for one tile of keys."""
    tiles = keys_stored // KEYS
    tile = tl.program_id(0) % tiles
    cell = tl.program_id(0) // tiles % cells
    head_here = tl.program_id(0) // (tiles * cells)
    head = first_head + head_here
    start = tl.load(offsets + first_cell + cell).to(tl.int32)
    size = tl.load(offsets + first_cell + cell + 1).to(tl.int32) - start
    q += (head.to(tl.int64) * rows + start) * STORED
    k += ((head // shared).to(tl.int64) * keys_stored + tile * KEYS) * STORED
    lse += head.to(tl.int64) * splits * (2 * rows) + start
    first_key, last_key = 0, keys
    if ranges is not None:
        first_key = tl.load(ranges + 2 * (first_cell + cell)).to(tl.int32)
        last_key = tl.load(ranges + 2 * (first_cell + cell) + 1).to(tl.int32)
        if (tile * KEYS >= last_key) | ((tile + 1) * KEYS <= first_key):
            size = 0  # nothing here is seen, and nothing of it is read

    key = tl.arange(0, KEYS)
    if added is not None:
        more = tl.load(added + (head // shared).to(tl.int64) * keys_stored + tile * KEYS + key)
        factor, scale = scale, 1.0
    slot = tl.arange(0, ROWS)
    weights = tl.zeros((ROWS, KEYS), tl.float32)
    for first in range(0, size, ROWS):
        inside = first + slot < size
        q_row = (q + tl.cast(first, tl.int64) * STORED + slot * STORED)[:, None]
        main, rest = held(q_row, inside[:, None], MAIN, REST, EMULATED)
        largest, total = joined(lse + first, slot, inside, splits, rows, scale, ROWS)
        scores = affinities(
            *(q_row, inside[:, None], main, rest, k),
            *(STORED, MAIN, REST, KEYS, PRECISION, EMULATED),
        )
        if added is not None:
            scores = scores * factor + more[None, :]
        weights += weights_of(scores, largest, total, scale)
    value = tl.sum(weights, 0)
    value = tl.where(value == value, value, float("inf"))
    if added is not None:
        value = tl.where(more == float("-inf"), float("-inf"), value)
    for axis in tl.static_range(AXES):
        then = tl.load(key_positions + (tile * KEYS + key) * AXES + axis)
        now = tl.load(cell_positions + (first_cell + cell) * AXES + axis)
        value = tl.where(then <= now, value, float("-inf"))
    here = head_here.to(tl.int64) * cells + cell
    key += tile * KEYS
    tl.store(sums + here * keys_stored + key, value)
    seen = (key >= first_key) & (key < last_key)
    tl.store(maxima + here * tiles + tile, tl.max(tl.where(seen, value, float("-inf")), 0))
