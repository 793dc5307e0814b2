"""Phase 2 forward: a tile of one cell's queries attends to the elements under the cell's coarse keys.

Scores are in base 2 (scaled by log₂e), and so is the log-sum-exp, kept for the backward kernels as a row's largest
score and the logarithm of the sum of what is over it: in one float32 the logarithm would be lost beside a large score.
Channels come in two parts, both a power of two wide (80 = 64 + 16), the second perhaps absent. Where small cells are
packed, "cell" below is a pack, its list is a union, and bits say which of the cells sees what.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused import packs
from gpa_nd.engine.fused.tables import (
    bounds,
    chunked_products,
    find,
    first_tile,
    listed,
    load_rows,
    offsets_of,
    store_rows,
)

LOG2E = tl.constexpr(1.4426950408889634)
MOST = tl.constexpr(3.4028234663852886e38)  # the largest finite float32
SPOILT = tl.constexpr(packs.SPOILT)


@triton.jit(do_not_specialize=["heads", "shared_by", "cells", "kappa", "tiles", "n_q"])
def attend_kernel(
    q,
    k,
    v,
    relevant,
    takers,
    logits,
    bias,
    query_positions,
    key_positions,
    cell_order,
    cell_offsets,
    cell_of_tile,
    member_order,
    member_offsets,
    out,
    remainder,
    tops,
    rests,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    bias_batch,
    bias_head,
    bias_row,
    scale,
    heads,
    shared_by,
    cells,
    kappa,
    tiles,
    n_q,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    V: tl.constexpr,
    V0: tl.constexpr,
    V1: tl.constexpr,
    CELL: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    CHUNK: tl.constexpr,
    HAS_LOGITS: tl.constexpr,
    AXES: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program: one tile of one cell's queries, in one batch entry and head."""
    MASKED: tl.constexpr = AXES > 0 or PACKED > 0
    head = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    cell, place, stop = queries_of(tile, cell_offsets, cell_of_tile, CELL, ROWS)
    if place >= stop:
        return
    row, inside = elements_of(place, stop, cell_order, ROWS)
    q += (head // heads).to(tl.int64) * q_batch + (head % heads).to(tl.int64) * q_head
    k += (head // heads).to(tl.int64) * k_batch + (head % heads // shared_by).to(tl.int64) * k_head
    v += (head // heads).to(tl.int64) * v_batch + (head % heads // shared_by).to(tl.int64) * v_head
    out += head.to(tl.int64) * n_q * V
    remainder += head.to(tl.int64) * n_q * V
    tops += head.to(tl.int64) * n_q
    rests += head.to(tl.int64) * n_q
    chosen = relevant + (head.to(tl.int64) * cells + cell) * kappa
    takers += (head.to(tl.int64) * cells + cell) * kappa
    if HAS_LOGITS:
        logits += (head.to(tl.int64) * cells + cell) * kappa
    if bias is not None:
        bias += (head // heads).to(tl.int64) * bias_batch + (head % heads // shared_by).to(tl.int64) * bias_head
    q_offset = offsets_of(row, q_row, WIDE)
    out_offset = offsets_of(row, V, WIDE)

    if is_spoilt(chosen, kappa, SLOTS) > 0:
        nan = tl.full((ROWS, V0), float("nan"), tl.float32)
        store_result(out, remainder, out_offset, inside, nan, 0, V0, V)
        if V1 > 0:
            nan = tl.full((ROWS, V1), float("nan"), tl.float32)
            store_result(out, remainder, out_offset, inside, nan, V0, V1, V)
        tl.store(tops + row, tl.full((ROWS,), float("nan"), tl.float32), mask=inside)
        tl.store(rests + row, tl.full((ROWS,), float("nan"), tl.float32), mask=inside)
        return

    if CHUNK == 0:
        q0 = load_rows(q, q_offset, inside, 0, C0, C, WIDEN)
        if C1 > 0:
            q1 = load_rows(q, q_offset, inside, C0, C1, C, WIDEN)
    now = now_of(query_positions, row, inside, AXES)
    if MASKED:
        any_seen = tl.zeros((ROWS,), tl.int32)
        spoilt = 0.0
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    applied = tl.zeros((ROWS,), tl.float32)  # the sum of the weights as they are rounded before they multiply values
    columns = 0
    acc0 = tl.zeros((ROWS, V0), tl.float32)
    if V1 > 0:
        acc1 = tl.zeros((ROWS, V1), tl.float32)

    for first_slot in range(0, kappa, SLOTS):
        slot = first_slot + tl.arange(0, SLOTS)
        group = tl.load(chosen + slot, mask=slot < kappa, other=-1).to(tl.int32)
        first, start, end = listed(group, member_offsets, GROUP)
        width = tl.max(end, 0)
        if bias is None:
            columns += width
        for first_column in range(0, width, COLUMNS):
            column = first_column + tl.arange(0, COLUMNS)
            entry, key_place, seen = keys_at(column, width, chosen + first_slot, first, start, end, GROUP)
            key = tl.load(member_order + tl.where(seen, key_place, 0)).to(tl.int32)
            k_offset = offsets_of(key, k_row, WIDE)
            v_offset = offsets_of(key, v_row, WIDE)
            if CHUNK > 0:
                scores = chunked_products(q, q_offset, inside, k, k_offset, seen, C, CHUNK, PRECISION, WIDEN)
            else:
                k0 = load_rows(k, k_offset, seen, 0, C0, C, WIDEN)
                scores = tl.dot(q0, tl.trans(k0), input_precision=PRECISION)
                if C1 > 0:
                    k1 = load_rows(k, k_offset, seen, C0, C1, C, WIDEN)
                    scores = tl.dot(q1, tl.trans(k1), scores, input_precision=PRECISION)
            scores *= scale * LOG2E
            scores += score_bias(logits, first_slot + entry, kappa, seen, HAS_LOGITS)[None, :]
            unhidden = seen
            if bias is not None:
                added = tl.load(bias + offsets_of(key, bias_row, WIDE), mask=seen, other=float("-inf"))
                unhidden = added != float("-inf")
                scores = tl.where(unhidden[None, :], scores + in_base_2(added)[None, :], float("-inf"))
                columns += tl.sum(unhidden.to(tl.int32), 0)
            if MASKED:
                visible = visible_of(
                    *(unhidden, key, row, now, query_positions, key_positions),
                    *(takers + first_slot + entry, AXES, PACKED),
                )
                any_seen = tl.maximum(any_seen, tl.max(visible.to(tl.int32), 1))
                scores = tl.where(visible, scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))
            base = tl.where(new_top == float("-inf"), 0.0, new_top)
            weights = tl.exp2(scores - base[:, None])
            keep = tl.exp2(top - base)
            total = total * keep + tl.sum(weights, 1)
            top = new_top
            v0 = load_rows(v, v_offset, seen, 0, V0, V, WIDEN)
            acc0 = acc0 * keep[:, None]
            if MASKED:
                spoilt = tl.maximum(spoilt, tl.max(tl.max(spoilt_values(v0).to(tl.float32), 1), 0))
                v0 = only_finite(v0)
            rounded = weights.to(v0.dtype)
            applied = applied * keep + tl.sum(rounded.to(tl.float32), 1)
            acc0 = tl.dot(rounded, v0, acc0, input_precision=PRECISION)
            if V1 > 0:
                v1 = load_rows(v, v_offset, seen, V0, V1, V, WIDEN)
                acc1 = acc1 * keep[:, None]
                if MASKED:
                    spoilt = tl.maximum(spoilt, tl.max(tl.max(spoilt_values(v1).to(tl.float32), 1), 0))
                    v1 = only_finite(v1)
                acc1 = tl.dot(rounded, v1, acc1, input_precision=PRECISION)

    if MASKED:
        if spoilt > 0:  # a value that is not finite reaches those that see its key, which 0 · ∞ would not tell apart
            for first_slot in range(0, kappa, SLOTS):
                slot = first_slot + tl.arange(0, SLOTS)
                group = tl.load(chosen + slot, mask=slot < kappa, other=-1).to(tl.int32)
                first, start, end = listed(group, member_offsets, GROUP)
                width = tl.max(end, 0)
                for first_column in range(0, width, COLUMNS):
                    column = first_column + tl.arange(0, COLUMNS)
                    entry, key_place, seen = keys_at(column, width, chosen + first_slot, first, start, end, GROUP)
                    key = tl.load(member_order + tl.where(seen, key_place, 0)).to(tl.int32)
                    v_offset = offsets_of(key, v_row, WIDE)
                    unhidden = seen
                    if bias is not None:
                        added = tl.load(bias + offsets_of(key, bias_row, WIDE), mask=seen, other=float("-inf"))
                        unhidden = added != float("-inf")
                    visible = visible_of(
                        *(unhidden, key, row, now, query_positions, key_positions),
                        *(takers + first_slot + entry, AXES, PACKED),
                    )
                    v0 = spoilt_values(load_rows(v, v_offset, seen, 0, V0, V, WIDEN))
                    acc0 = tl.where(tl.dot(visible.to(v0.dtype), v0, input_precision=PRECISION) > 0, float("nan"), acc0)
                    if V1 > 0:
                        v1 = spoilt_values(load_rows(v, v_offset, seen, V0, V1, V, WIDEN))
                        acc1 = tl.where(
                            tl.dot(visible.to(v1.dtype), v1, input_precision=PRECISION) > 0, float("nan"), acc1
                        )

    nothing = total == 0
    if not MASKED:
        any_seen = tl.zeros((ROWS,), tl.int32) + columns
    total = tl.where(nothing, tl.where(any_seen > 0, float("nan"), 1.0), total)
    if PACKED > 0:
        total = tl.where(named_by(tl.load(takers), tl.arange(0, ROWS), SPOILT, PACKED), float("nan"), total)
    applied = tl.where(total == total, tl.where(nothing, 1.0, applied), float("nan"))
    store_result(out, remainder, out_offset, inside, acc0 / applied[:, None], 0, V0, V)
    if V1 > 0:
        store_result(out, remainder, out_offset, inside, acc1 / applied[:, None], V0, V1, V)
    tl.store(tops + row, top, mask=inside)
    tl.store(rests + row, tl.log2(total), mask=inside)


@triton.jit
def store_result(
    out, remainder, offset, inside, rows, FIRST: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr
):
    """The result, and in 16 bits what was rounded off it, which the backward kernels need."""
    store_rows(out, offset, inside, rows, FIRST, WIDTH, CHANNELS)
    if out.dtype.element_ty != tl.float32:
        rest = rows - rows.to(out.dtype.element_ty).to(tl.float32)
        store_rows(remainder, offset, inside, rest, FIRST, WIDTH, CHANNELS)


@triton.jit
def queries_of(tile, cell_offsets, cell_of_tile, CELL: tl.constexpr, ROWS: tl.constexpr):
    """The cell of a tile, and where its queries start and stop in the order of cells."""
    if CELL > 0:
        cell = tile // ((CELL + ROWS - 1) // ROWS)
    else:
        cell = tl.load(cell_of_tile + tile)
    start, stop = bounds(cell, cell_offsets, CELL)
    return cell, start + (tile - first_tile(cell, cell_offsets, CELL, ROWS)) * ROWS, stop


@triton.jit
def elements_of(place, stop, order, ROWS: tl.constexpr):
    """The elements at a tile's places, and which of them are there."""
    places = place + tl.arange(0, ROWS)
    inside = places < stop
    return tl.load(order + places, mask=inside, other=0).to(tl.int32), inside


@triton.jit
def keys_at(column, width, chosen, first, start, stop, GROUP: tl.constexpr):
    """Which slot of a block each column belongs to, its place in the order of members, and whether it has one."""
    if GROUP > 0:
        slot = column // GROUP
        group = tl.load(chosen + slot, mask=column < width, other=-1).to(tl.int32)
        return slot, group * GROUP + column % GROUP, group >= 0
    else:
        return find(column, first, start, stop)


@triton.jit
def now_of(positions, row, inside, AXES: tl.constexpr):
    """Where rows stand on the first axis, if that matters; on the others they are asked tile by tile."""
    if AXES > 0:
        return tl.load(positions + row * AXES, mask=inside, other=-(2**63))
    else:
        return row


@triton.jit
def visible_of(seen, key, row, now, query_positions, key_positions, takers, AXES: tl.constexpr, PACKED: tl.constexpr):
    """(rows, columns) what each query sees: no later key, and of a pack's list what its own cell named."""
    visible = seen[None, :] & (tl.zeros(now.shape, tl.int32) == 0)[:, None]
    if AXES > 0:
        visible = visible & (tl.load(key_positions + key * AXES)[None, :] <= now[:, None])
    for axis in tl.static_range(1, AXES):
        later = tl.load(query_positions + row * AXES + axis)
        visible = visible & (tl.load(key_positions + key * AXES + axis)[None, :] <= later[:, None])
    if PACKED > 0:
        bits = tl.load(takers, mask=seen, other=0)
        visible = visible & named_by(bits[None, :], tl.arange(0, now.shape[0])[:, None], 0, PACKED)
    return visible


@triton.jit
def named_by(bits, row, FIRST: tl.constexpr, PACKED: tl.constexpr):
    """Whether the bits, from FIRST on, hold that of the cell (group) that a row of a pack belongs to."""
    return ((bits >> (row // PACKED + FIRST)) & 1) == 1


@triton.jit
def is_spoilt(chosen, kappa, SLOTS: tl.constexpr):
    """1 if an entry is −2: the cell answers NaN."""
    spoilt = 0
    for first_slot in range(0, kappa, SLOTS):
        slot = first_slot + tl.arange(0, SLOTS)
        group = tl.load(chosen + slot, mask=slot < kappa, other=-1).to(tl.int32)
        spoilt = tl.maximum(spoilt, tl.max((group == -2).to(tl.int32), 0))
    return spoilt


@triton.jit
def score_bias(logits, slot, kappa, seen, HAS_LOGITS: tl.constexpr):
    """What is added to the scores of each column: its logit in base 2, −∞ where there is no element."""
    if HAS_LOGITS:
        bias = tl.load(logits + tl.minimum(slot, kappa - 1)) * LOG2E
    else:
        bias = tl.zeros(seen.shape, tl.float32)
    return tl.where(seen, bias, float("-inf"))


@triton.jit
def in_base_2(bias):
    """A bias as it is added to scores; what is finite stays so, since people hide keys by the lowest number."""
    scaled = tl.minimum(tl.maximum(bias * LOG2E, -MOST), MOST)
    return tl.where(tl.abs(bias) <= MOST, scaled, bias)


@triton.jit
def only_finite(rows):
    """Zero for what is not finite."""
    return tl.where(tl.abs(rows.to(tl.float32)) < float("inf"), rows, 0.0).to(rows.dtype)


@triton.jit
def spoilt_values(rows):
    """1 for what is not finite, 0 for what is."""
    return tl.where(tl.abs(rows.to(tl.float32)) < float("inf"), 0.0, 1.0).to(rows.dtype)
