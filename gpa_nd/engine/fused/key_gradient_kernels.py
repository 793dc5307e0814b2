"""Phase 2 backward, what keys own: the gradients of k, v and the bias; nothing is added by two programs at once.

With p the softmax and δ = Σ dout · out of a query: ds = p (dout · v − δ); dk = scale Σ ds q; dv = Σ p dout; the
gradient of a bias is the sum of ds over the queries that see its key.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gpa_nd.engine.fused.attention_kernels import (
    LOG2E,
    elements_of,
    in_base_2,
    named_by,
    only_finite,
    spoilt_values,
)
from gpa_nd.engine.fused.tables import (
    bounds,
    chunked_products,
    find,
    first_list_slot,
    first_tile,
    listed,
    load_rows,
    offsets_of,
    store_rows,
)


@triton.jit
def work_of(
    slot,
    head,
    groups,
    group_of_slot,
    lists,
    length,
    per_slot,
    slots,
    member_offsets,
    GROUP: tl.constexpr,
    KEYS: tl.constexpr,
):
    """What a slot of a (batch entry and) key head has to do.

    A group of t tiles has ⌈entries / (t · per_slot)⌉ shares of its list for each tile, at least one.

    Returns:
        The place of the tile's first key and the end of its group; where the group's list starts and stops; how many
        tiles and shares there are; this slot's number among them.
    """
    group = tl.load(group_of_slot + head.to(tl.int64) * slots + slot)
    lists += head.to(tl.int64) * (groups + 1)
    begin = (tl.load(lists + group) - head.to(tl.int64) * length).to(tl.int32)
    end = (tl.load(lists + group + 1) - head.to(tl.int64) * length).to(tl.int32)
    start, stop = bounds(group, member_offsets, GROUP)
    tiles = tl.cdiv(stop - start, KEYS)
    shares = tl.maximum(tl.cdiv(end - begin, tiles * per_slot), 1)
    own = first_tile(group, member_offsets, GROUP, KEYS) + first_list_slot(group, lists, head, length, per_slot)
    return start, stop, begin, end, tiles, shares, slot - own


@triton.jit(
    do_not_specialize=["key_heads", "shared_by", "cells", "groups", "kappa", "length", "per_slot", "slots", "n_q"]
)
def key_gradient_kernel(
    q,
    k,
    v,
    tops,
    rests,
    delta,
    grad_out,
    logits,
    bias,
    query_positions,
    key_positions,
    cell_order,
    cell_offsets,
    member_order,
    member_offsets,
    entries,
    takers,
    lists,
    group_of_slot,
    grad_k,
    grad_v,
    grad_bias,
    parts,
    bias_parts,
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
    key_heads,
    shared_by,
    cells,
    groups,
    kappa,
    length,
    per_slot,
    slots,
    part_slots,
    n_q,
    n_k,
    C: tl.constexpr,
    C0: tl.constexpr,
    C1: tl.constexpr,
    V: tl.constexpr,
    V0: tl.constexpr,
    V1: tl.constexpr,
    CELL: tl.constexpr,
    GROUP: tl.constexpr,
    KEYS: tl.constexpr,
    PART_KEYS: tl.constexpr,
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
    """One program: dk and dv of one tile of one group's elements, from one share of the cells that chose the group."""
    MASKED: tl.constexpr = AXES > 0 or PACKED > 0
    head = tl.program_id(0) // slots
    start, stop, begin, end, tiles, shares, number = work_of(
        tl.program_id(0) % slots,
        head,
        groups,
        group_of_slot,
        lists,
        length,
        per_slot,
        slots,
        member_offsets,
        GROUP,
        KEYS,
    )
    if number >= tiles * shares:
        return
    first_entry = begin + number % shares * tiles * per_slot
    last_entry = tl.minimum(end, first_entry + tiles * per_slot)
    key, real = elements_of(start + number // shares * KEYS, stop, member_order, KEYS)

    batch = (head // key_heads).to(tl.int64)
    key_head = (head % key_heads).to(tl.int64)
    first_query_head = head.to(tl.int64) * shared_by  # counted through batch entries
    q += batch * q_batch + key_head * shared_by * q_head
    k += batch * k_batch + key_head * k_head
    v += batch * v_batch + key_head * v_head
    grad_out += batch * g_batch + key_head * shared_by * g_head
    tops += first_query_head * n_q
    rests += first_query_head * n_q
    delta += first_query_head * n_q
    before = head.to(tl.int64) * length
    entries += before
    takers += before
    if HAS_LOGITS:
        logits += first_query_head * cells * kappa
    k_offset = offsets_of(key, k_row, WIDE)
    v_offset = offsets_of(key, v_row, WIDE)
    if CHUNK == 0:
        k0 = load_rows(k, k_offset, real, 0, C0, C, WIDEN)
        v0 = load_rows(v, v_offset, real, 0, V0, V, WIDEN)
        if C1 > 0:
            k1 = load_rows(k, k_offset, real, C0, C1, C, WIDEN)
        if V1 > 0:
            v1 = load_rows(v, v_offset, real, V0, V1, V, WIDEN)
    dk0 = tl.zeros((KEYS, C0), tl.float32)
    dv0 = tl.zeros((KEYS, V0), tl.float32)
    if C1 > 0:
        dk1 = tl.zeros((KEYS, C1), tl.float32)
    if V1 > 0:
        dv1 = tl.zeros((KEYS, V1), tl.float32)
    if AXES > 0:
        then = tl.load(key_positions + key * AXES, mask=real, other=0)
    if MASKED:
        spoilt = tl.zeros((KEYS,), tl.float32)
    unhidden = real
    if bias is not None:
        bias += batch * bias_batch + key_head * bias_head
        added = tl.load(bias + offsets_of(key, bias_row, WIDE), mask=real, other=float("-inf"))
        unhidden = added != float("-inf")
        added = in_base_2(added)
    if grad_bias is not None:
        d_bias = tl.zeros((KEYS,), tl.float32)

    for block in range(first_entry, last_entry, SLOTS):
        count = tl.minimum(last_entry - block, SLOTS)
        if CELL > 0:
            width = count * CELL
        else:
            local = tl.arange(0, SLOTS)
            name = (tl.load(entries + block + tl.minimum(local, count - 1)) - before).to(tl.int32)
            cell = tl.where(local < count, name // kappa % cells, -1)
            first, column_start, column_stop = listed(cell, cell_offsets, CELL)
            width = tl.max(column_stop, 0)
        for first_column in range(0, width, COLUMNS):
            column = first_column + tl.arange(0, COLUMNS)
            if CELL > 0:
                entry = tl.minimum(column // CELL, count - 1)
                seen = column < width
            else:
                entry, query_place, seen = find(column, first, column_start, column_stop)
            name_of = (tl.load(entries + block + entry) - before).to(tl.int32)
            if CELL > 0:
                query_place = name_of // kappa % cells * CELL + column % CELL
            query = tl.load(cell_order + tl.where(seen, query_place, 0)).to(tl.int32)
            query_head = name_of // kappa // cells
            q_offset = offsets_of(query, q_row, WIDE) + offsets_of(query_head, q_head, WIDE)
            g_offset = offsets_of(query, g_row, WIDE) + offsets_of(query_head, g_head, WIDE)
            at = offsets_of(query_head, n_q, WIDE) + query
            top = tl.load(tops + at, mask=seen, other=float("inf"))
            rest = tl.load(rests + at, mask=seen, other=0.0)
            own = tl.load(delta + at, mask=seen, other=0.0)
            q0 = load_rows(q, q_offset, seen, 0, C0, C, WIDEN)
            g0 = load_rows(grad_out, g_offset, seen, 0, V0, V, WIDEN)
            if C1 > 0:
                q1 = load_rows(q, q_offset, seen, C0, C1, C, WIDEN)
            if V1 > 0:
                g1 = load_rows(grad_out, g_offset, seen, V0, V1, V, WIDEN)
            if CHUNK > 0:
                scores = chunked_products(k, k_offset, real, q, q_offset, seen, C, CHUNK, PRECISION, WIDEN)
            else:
                scores = tl.dot(k0, tl.trans(q0), input_precision=PRECISION)
                if C1 > 0:
                    scores = tl.dot(k1, tl.trans(q1), scores, input_precision=PRECISION)
            scores *= scale * LOG2E
            if HAS_LOGITS:
                scores += tl.load(logits + name_of)[None, :] * LOG2E
            if bias is not None:
                scores += added[:, None]
            weights = tl.exp2(scores - top[None, :] - rest[None, :])
            if MASKED:
                visible = seen[None, :] & unhidden[:, None]
                if AXES > 0:
                    visible = visible & (then[:, None] <= tl.load(query_positions + query * AXES)[None, :])
                for axis in tl.static_range(1, AXES):
                    earlier = tl.load(key_positions + key * AXES + axis)
                    visible = visible & (earlier[:, None] <= tl.load(query_positions + query * AXES + axis)[None, :])
                if PACKED > 0:
                    bits = tl.load(takers + block + entry)
                    visible = visible & named_by(bits[None, :], tl.arange(0, KEYS)[:, None], 0, PACKED)
                weights = tl.where(visible, weights, 0.0)
                q0 = only_finite(q0)
                if C1 > 0:
                    q1 = only_finite(q1)
            elif bias is not None:
                weights = tl.where(unhidden[:, None], weights, 0.0)
            if MASKED:  # a gradient that is not finite reaches the values that its query sees
                bad = tl.max(spoilt_values(g0).to(tl.float32), 1)
                if V1 > 0:
                    bad = tl.maximum(bad, tl.max(spoilt_values(g1).to(tl.float32), 1))
                spoilt = tl.maximum(spoilt, tl.max(tl.where(visible, bad[None, :], 0.0), 1))
                dv0 = tl.dot(weights.to(g0.dtype), only_finite(g0), dv0, input_precision=PRECISION)
                if V1 > 0:
                    dv1 = tl.dot(weights.to(g1.dtype), only_finite(g1), dv1, input_precision=PRECISION)
            else:
                dv0 = tl.dot(weights.to(g0.dtype), g0, dv0, input_precision=PRECISION)
                if V1 > 0:
                    dv1 = tl.dot(weights.to(g1.dtype), g1, dv1, input_precision=PRECISION)
            if CHUNK > 0:
                d_weights = chunked_products(v, v_offset, real, grad_out, g_offset, seen, V, CHUNK, PRECISION, WIDEN)
            else:
                d_weights = tl.dot(v0, tl.trans(g0), input_precision=PRECISION)
                if V1 > 0:
                    d_weights = tl.dot(v1, tl.trans(g1), d_weights, input_precision=PRECISION)
            d_scores = weights * (d_weights - own[None, :])
            if MASKED:
                d_scores = tl.where(visible, d_scores, 0.0)
            elif bias is not None:
                d_scores = tl.where(unhidden[:, None] & seen[None, :], d_scores, 0.0)
            if grad_bias is not None:
                d_bias += tl.sum(d_scores, 1)
            dk0 = tl.dot(d_scores.to(q0.dtype), q0, dk0, input_precision=PRECISION)
            if C1 > 0:
                dk1 = tl.dot(d_scores.to(q1.dtype), q1, dk1, input_precision=PRECISION)

    if MASKED:
        dv0 = tl.where(spoilt[:, None] > 0, float("nan"), dv0)
        if V1 > 0:
            dv1 = tl.where(spoilt[:, None] > 0, float("nan"), dv1)
    if shares == 1:
        grad_k += head.to(tl.int64) * n_k * C
        grad_v += head.to(tl.int64) * n_k * V
        dk_offset = offsets_of(key, C, WIDE)
        dv_offset = offsets_of(key, V, WIDE)
        store_rows(grad_k, dk_offset, real, dk0 * scale, 0, C0, C)
        store_rows(grad_v, dv_offset, real, dv0, 0, V0, V)
        if C1 > 0:
            store_rows(grad_k, dk_offset, real, dk1 * scale, C0, C1, C)
        if V1 > 0:
            store_rows(grad_v, dv_offset, real, dv1, V0, V1, V)
        if grad_bias is not None:
            tl.store(grad_bias + head.to(tl.int64) * n_k + key, d_bias, mask=real)
    else:
        part = head.to(tl.int64) * part_slots + first_part(begin, per_slot) + number
        parts += part * PART_KEYS * (C + V)
        offset = tl.arange(0, KEYS) * (C + V)
        store_rows(parts, offset, real, dk0 * scale, 0, C0, C)
        store_rows(parts + C, offset, real, dv0, 0, V0, V)
        if C1 > 0:
            store_rows(parts, offset, real, dk1 * scale, C0, C1, C)
        if V1 > 0:
            store_rows(parts + C, offset, real, dv1, V0, V1, V)
        if grad_bias is not None:
            tl.store(bias_parts + part * PART_KEYS + tl.arange(0, KEYS), d_bias, mask=real)


@triton.jit
def first_part(begin, per_slot):
    """Where the parts of a split list are kept: ⌈x⌉ ≤ 2x from x = 1 on, so twice the entries before it are enough."""
    return (2 * begin.to(tl.int64) // per_slot).to(tl.int32)


@triton.jit(do_not_specialize=["groups", "length", "per_slot", "slots", "part_slots"])
def add_parts_kernel(
    member_order,
    member_offsets,
    lists,
    group_of_slot,
    parts,
    bias_parts,
    grad_k,
    grad_v,
    grad_bias,
    groups,
    length,
    per_slot,
    slots,
    part_slots,
    n_k,
    C: tl.constexpr,
    C_WIDTH: tl.constexpr,
    V: tl.constexpr,
    V_WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    KEYS: tl.constexpr,
    PART_KEYS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program: dk and dv of one tile whose list was split, its shares added first to last."""
    head = tl.program_id(0) // slots
    start, stop, begin, _end, tiles, shares, number = work_of(
        tl.program_id(0) % slots,
        head,
        groups,
        group_of_slot,
        lists,
        length,
        per_slot,
        slots,
        member_offsets,
        GROUP,
        KEYS,
    )
    if (shares == 1) | (number >= tiles):
        return
    key, real = elements_of(start + number * KEYS, stop, member_order, KEYS)
    part = head.to(tl.int64) * part_slots + first_part(begin, per_slot) + number * shares
    offset = tl.arange(0, KEYS) * (C + V)
    dk = tl.zeros((KEYS, C_WIDTH), tl.float32)
    dv = tl.zeros((KEYS, V_WIDTH), tl.float32)
    if grad_bias is not None:
        d_bias = tl.zeros((KEYS,), tl.float32)
    for share in range(shares):
        if grad_bias is not None:
            d_bias += tl.load(bias_parts + (part + share) * PART_KEYS + tl.arange(0, KEYS), mask=real, other=0.0)
        mine = parts + (part + share) * PART_KEYS * (C + V)
        dk += load_rows(mine, offset, real, 0, C_WIDTH, C, False)
        dv += load_rows(mine + C, offset, real, 0, V_WIDTH, V, False)
    store_rows(grad_k + head.to(tl.int64) * n_k * C, offsets_of(key, C, WIDE), real, dk, 0, C_WIDTH, C)
    store_rows(grad_v + head.to(tl.int64) * n_k * V, offsets_of(key, V, WIDE), real, dv, 0, V_WIDTH, V)
    if grad_bias is not None:
        tl.store(grad_bias + head.to(tl.int64) * n_k + key, d_bias, mask=real)
