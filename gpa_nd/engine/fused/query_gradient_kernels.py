"""Phase 2 backward, what queries own: their gradient, and that of the logits of their cell.

With p the softmax and δ = Σ dout · out of a query: ds = p (dout · v − δ); dq = scale Σ ds k; the gradient of a logit is
the sum of ds over its cell's queries and its group's elements.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused.attention_kernels import (
    LOG2E,
    elements_of,
    in_base_2,
    is_spoilt,
    keys_at,
    now_of,
    only_finite,
    queries_of,
    score_bias,
    visible_of,
)
from gpa_nd.engine.fused.tables import (
    bounds,
    chunked_products,
    first_tile,
    listed,
    load_rows,
    offsets_of,
    store_rows,
)


@triton.jit(do_not_specialize=["heads", "shared_by", "cells", "kappa", "tiles", "n_q"])
def query_gradient_kernel(
    q,
    k,
    v,
    out,
    remainder,
    tops,
    rests,
    grad_sums,
    grad_out,
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
    delta,
    grad_q,
    grad_logits,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    g_batch,
    g_head,
    g_row,
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
    TURNS: tl.constexpr,
    AXES: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program: dq, δ and its part of the logits' gradient, for one tile of one cell's queries.

    δ comes from the result and from what was rounded off it: without that, it would not cancel what it has to. For the
    gradients of logits, and of a bias beside 16 bits, even that is too much, and a first turn of two computes δ from
    the weights.
    """
    MASKED: tl.constexpr = AXES > 0 or PACKED > 0
    ROUNDED: tl.constexpr = out.dtype.element_ty != tl.float32
    head = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    cell, place, stop = queries_of(tile, cell_offsets, cell_of_tile, CELL, ROWS)
    if place >= stop:
        return
    row, inside = elements_of(place, stop, cell_order, ROWS)
    q += (head // heads).to(tl.int64) * q_batch + (head % heads).to(tl.int64) * q_head
    k += (head // heads).to(tl.int64) * k_batch + (head % heads // shared_by).to(tl.int64) * k_head
    v += (head // heads).to(tl.int64) * v_batch + (head % heads // shared_by).to(tl.int64) * v_head
    grad_out += (head // heads).to(tl.int64) * g_batch + (head % heads).to(tl.int64) * g_head
    out += head.to(tl.int64) * n_q * V
    remainder += head.to(tl.int64) * n_q * V
    grad_q += head.to(tl.int64) * n_q * C
    tops += head.to(tl.int64) * n_q
    rests += head.to(tl.int64) * n_q
    delta += head.to(tl.int64) * n_q
    if grad_sums is not None:
        grad_sums += head.to(tl.int64) * n_q
    chosen = relevant + (head.to(tl.int64) * cells + cell) * kappa
    takers += (head.to(tl.int64) * cells + cell) * kappa
    if HAS_LOGITS:
        logits += (head.to(tl.int64) * cells + cell) * kappa
        grad_logits += (head.to(tl.int64) * tiles + tile) * kappa
    if bias is not None:
        bias += (head // heads).to(tl.int64) * bias_batch + (head % heads // shared_by).to(tl.int64) * bias_head
    q_offset = offsets_of(row, q_row, WIDE)
    g_offset = offsets_of(row, g_row, WIDE)
    out_offset = offsets_of(row, V, WIDE)
    dq_offset = offsets_of(row, C, WIDE)

    # A spoilt cell takes no part: its width is 0, and so are its gradients.
    takes_part = 1 - is_spoilt(chosen, kappa, SLOTS)
    own = tl.zeros((ROWS,), tl.float32)
    if CHUNK == 0:
        q0 = load_rows(q, q_offset, inside, 0, C0, C, WIDEN)
        g0 = load_rows(grad_out, g_offset, inside, 0, V0, V, WIDEN)
        if C1 > 0:
            q1 = load_rows(q, q_offset, inside, C0, C1, C, WIDEN)
        if V1 > 0:
            g1 = load_rows(grad_out, g_offset, inside, V0, V1, V, WIDEN)
    if TURNS == 1:
        own += row_products(grad_out, g_offset, out, out_offset, inside, 0, V0, V)
        if ROUNDED:
            own += row_products(grad_out, g_offset, remainder, out_offset, inside, 0, V0, V)
        if V1 > 0:
            own += row_products(grad_out, g_offset, out, out_offset, inside, V0, V1, V)
            if ROUNDED:
                own += row_products(grad_out, g_offset, remainder, out_offset, inside, V0, V1, V)
    top = tl.load(tops + row, mask=inside, other=float("inf"))
    rest = tl.load(rests + row, mask=inside, other=0.0)
    now = now_of(query_positions, row, inside, AXES)
    dq0 = tl.zeros((ROWS, C0), tl.float32)
    if C1 > 0:
        dq1 = tl.zeros((ROWS, C1), tl.float32)

    for turn in tl.static_range(TURNS):
        if turn == TURNS - 1:
            if grad_sums is not None:
                own -= tl.load(grad_sums + row, mask=inside, other=0.0)
        for first_slot in range(0, kappa, SLOTS):
            slot = first_slot + tl.arange(0, SLOTS)
            group = tl.load(chosen + slot, mask=slot < kappa, other=-1).to(tl.int32)
            first, start, end = listed(group, member_offsets, GROUP)
            width = tl.max(end, 0) * takes_part
            if HAS_LOGITS:
                of_slots = tl.zeros((SLOTS,), tl.float32)
            for first_column in range(0, width, COLUMNS):
                column = first_column + tl.arange(0, COLUMNS)
                entry, key_place, seen = keys_at(column, width, chosen + first_slot, first, start, end, GROUP)
                key = tl.load(member_order + tl.where(seen, key_place, 0)).to(tl.int32)
                k_offset = offsets_of(key, k_row, WIDE)
                v_offset = offsets_of(key, v_row, WIDE)
                k0 = load_rows(k, k_offset, seen, 0, C0, C, WIDEN)
                if C1 > 0:
                    k1 = load_rows(k, k_offset, seen, C0, C1, C, WIDEN)
                if CHUNK > 0:
                    scores = chunked_products(q, q_offset, inside, k, k_offset, seen, C, CHUNK, PRECISION, WIDEN)
                    d_weights = chunked_products(
                        grad_out, g_offset, inside, v, v_offset, seen, V, CHUNK, PRECISION, WIDEN
                    )
                else:
                    scores = tl.dot(q0, tl.trans(k0), input_precision=PRECISION)
                    if C1 > 0:
                        scores = tl.dot(q1, tl.trans(k1), scores, input_precision=PRECISION)
                    v0 = load_rows(v, v_offset, seen, 0, V0, V, WIDEN)
                    d_weights = tl.dot(g0, tl.trans(v0), input_precision=PRECISION)
                    if V1 > 0:
                        v1 = load_rows(v, v_offset, seen, V0, V1, V, WIDEN)
                        d_weights = tl.dot(g1, tl.trans(v1), d_weights, input_precision=PRECISION)
                scores *= scale * LOG2E
                scores += score_bias(logits, first_slot + entry, kappa, seen, HAS_LOGITS)[None, :]
                unhidden = seen
                if bias is not None:
                    added = tl.load(bias + offsets_of(key, bias_row, WIDE), mask=seen, other=float("-inf"))
                    unhidden = added != float("-inf")
                    scores += in_base_2(added)[None, :]
                weights = tl.exp2(scores - top[:, None] - rest[:, None])
                if turn < TURNS - 1:
                    d_scores = weights * d_weights
                else:
                    d_scores = weights * (d_weights - own[:, None])
                if MASKED:
                    visible = visible_of(
                        *(unhidden, key, row, now, query_positions, key_positions),
                        *(takers + first_slot + entry, AXES, PACKED),
                    )
                    d_scores = tl.where(visible, d_scores, 0.0)
                elif bias is not None:
                    d_scores = tl.where(unhidden[None, :], d_scores, 0.0)
                if turn < TURNS - 1:
                    own += tl.sum(d_scores, 1)
                else:
                    if HAS_LOGITS:
                        of_column = tl.sum(d_scores, 0)
                        mine = (entry[:, None] == tl.arange(0, SLOTS)[None, :]) & seen[:, None]
                        of_slots += tl.sum(tl.where(mine, of_column[:, None], 0.0), 0)
                    if MASKED:
                        k0 = only_finite(k0)
                    dq0 = tl.dot(d_scores.to(k0.dtype), k0, dq0, input_precision=PRECISION)
                    if C1 > 0:
                        if MASKED:
                            k1 = only_finite(k1)
                        dq1 = tl.dot(d_scores.to(k1.dtype), k1, dq1, input_precision=PRECISION)
            if HAS_LOGITS:
                tl.store(grad_logits + slot, of_slots, mask=slot < kappa)

    tl.store(delta + row, own, mask=inside)
    store_rows(grad_q, dq_offset, inside, dq0 * scale, 0, C0, C)
    if C1 > 0:
        store_rows(grad_q, dq_offset, inside, dq1 * scale, C0, C1, C)


@triton.jit
def row_products(
    left, left_offset, right, right_offset, seen, FIRST: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr
):
    """The sum over channels of left · right, row by row."""
    a = load_rows(left, left_offset, seen, FIRST, WIDTH, CHANNELS, False).to(tl.float32)
    return tl.sum(a * load_rows(right, right_offset, seen, FIRST, WIDTH, CHANNELS, False).to(tl.float32), 1)


@triton.jit(do_not_specialize=["cells", "kappa", "tiles"])
def logit_gradient_kernel(
    parts,
    grad_logits,
    cell_offsets,
    cells,
    kappa,
    tiles,
    CELL: tl.constexpr,
    ROWS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program: the sum over the tiles of one cell, first to last."""
    head = tl.program_id(0) // cells
    cell = tl.program_id(0) % cells
    start, stop = bounds(cell, cell_offsets, CELL)
    parts += (head.to(tl.int64) * tiles + first_tile(cell, cell_offsets, CELL, ROWS)) * kappa
    grad_logits += (head.to(tl.int64) * cells + cell) * kappa
    for first_slot in range(0, kappa, SLOTS):
        slot = first_slot + tl.arange(0, SLOTS)
        total = tl.zeros((SLOTS,), tl.float32)
        part = parts
        for _ in range(0, tl.cdiv(stop - start, ROWS)):
            total += tl.load(part + slot, mask=slot < kappa, other=0.0)
            part += kappa
        tl.store(grad_logits + slot, total, mask=slot < kappa)
