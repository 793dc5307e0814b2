"""The kernel that takes the κ best coarse keys of each cell, with which Phase 1 ends.

Conventions as in :mod:`gpa_nd.engine.fused.selection_kernels`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused.affinities import LOWEST


@triton.jit(do_not_specialize=["keys", "tiles", "first_head", "first_cell", "cells", "all_cells", "kappa"])
def select(
    sums,
    maxima,
    ranges,
    names,
    chosen,
    values,
    keys,
    tiles,
    first_head,
    first_cell,
    cells,
    all_cells,
    kappa,
    KEYS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCKS: tl.constexpr,
    HIDES: tl.constexpr,
):
    """The κ largest sums of a cell, ties to the lower index, best first; −1 where fewer are seen, −2 if one is NaN.

    A block is TILES tiles of keys. κ times: take the block with the largest sum that is left, find the key, and
    compute what is left in that block. Taken is what comes at or before the last pick in the order (sum, index), so
    nothing needs a mark. HIDES: −∞ is a key that is hidden, and no pick. Where there are ``names``
    (B·H, all_cells, keys), these are what is chosen, and the sums are of their places. ``values`` takes the sums.
    """
    head_here, cell = tl.program_id(0) // cells, tl.program_id(0) % cells
    sums += tl.program_id(0).to(tl.int64) * tiles * KEYS
    maxima += tl.program_id(0).to(tl.int64) * tiles
    row = ((first_head + head_here).to(tl.int64) * all_cells + first_cell + cell) * kappa
    chosen += row
    if values is not None:
        values += row
    start, stop = tl.cast(0, tl.int32), tl.cast(keys, tl.int32)
    if ranges is not None:
        start = tl.load(ranges + 2 * (first_cell + cell)).to(tl.int32)
        stop = tl.load(ranges + 2 * (first_cell + cell) + 1).to(tl.int32)

    block = tl.arange(0, BLOCKS)
    best = tl.full((BLOCKS,), float("-inf"), tl.float32)
    for turn in range(TILES):
        tile = block * TILES + turn
        overlaps = (tile * KEYS < stop) & ((tile + 1) * KEYS > start)
        best = tl.maximum(best, tl.load(maxima + tile, mask=overlaps, other=float("-inf")))
    top = tl.max(best, 0)
    rankable = (top > LOWEST) & (top < float("inf"))
    number = tl.where(rankable, tl.minimum(stop - start, kappa), 0)
    nothing = stop <= start
    if HIDES:
        nothing = nothing | (top == float("-inf"))
    fill = tl.where(rankable | nothing, -1, -2).to(tl.int64)

    if names is not None:
        names += ((first_head + head_here).to(tl.int64) * all_cells + first_cell + cell) * keys
    last = tl.cast(float("inf"), tl.float32)
    last_key = tl.cast(-1, tl.int32)
    for pick in range(0, number):
        last_top = last
        last = tl.max(best, 0)
        here = tl.min(tl.where(best == last, block, BLOCKS), 0)
        key = here * (TILES * KEYS) + tl.arange(0, TILES * KEYS)
        value = tl.load(sums + key, mask=(key >= start) & (key < stop), other=float("-inf"))
        left = (value < last_top) | ((value == last_top) & (key > last_key))
        value = tl.where(left, value, float("-inf"))
        last_key = tl.min(tl.where(value == last, key, 0x7FFFFFFF), 0)
        name = last_key.to(tl.int64)
        if names is not None:
            name = tl.load(names + last_key, mask=last_key < keys, other=-1).to(tl.int64)
        if HIDES:
            name = tl.where(last == float("-inf"), -1, name)
        tl.store(chosen + pick, name)
        if values is not None:
            tl.store(values + pick, last)
        rest = tl.max(tl.where(key == last_key, float("-inf"), value), 0)
        best = tl.where(block == here, rest, best)
    for pick in range(number, kappa):
        tl.store(chosen + pick, fill)
