"""The launches of Phase 2's backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from gpa_nd.engine.fused.call import Call, packed_cells, rows_of, slots_at_once
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.key_gradient_kernels import add_parts_kernel, key_gradient_kernel
from gpa_nd.engine.fused.launch import launch
from gpa_nd.engine.fused.lists import turned_round
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.query_gradient_kernels import logit_gradient_kernel, query_gradient_kernel


def query_gradient(
    call: Call,
    grad_out: Tensor,
    grad_sums: Tensor | None,
    out: Tensor,
    remainder: Tensor,
    lse: Tensor,
    relevant: Tensor,
    cells: Groups,
    members: Groups,
    dq: Tensor,
    dlogits: Tensor,
    of_bias: bool,
) -> Tensor:
    """Fill dq, and dlogits where there are logits; return δ (B, H, n_q), fit for the gradient of a bias if wanted.

    δ is less by ``grad_sums`` (B, H, n_q), the gradient of the log-sum-exp: that of a score is its weight.
    """
    q, k, v = call.q, call.k, call.v
    delta = torch.empty_like(lse[0])
    cells, relevant, takers = packed_cells(cells, relevant, call.logits, call.axes > 0)
    tiles = call.tiles("query gradient", cells)
    count, cell_of_tile = cells.tiles(tiles.rows)
    batch, heads, _, kappa = relevant.shape
    adds = call.logits is not None and count > len(cells)
    twice = call.logits is not None or (of_bias and q.dtype != torch.float32)
    parts = torch.empty(batch * heads, count, kappa, dtype=torch.float32, device=q.device) if adds else dlogits
    launch(
        query_gradient_kernel,
        (batch * heads * count,),
        q,
        k,
        v,
        out,
        remainder,
        *lse,
        None if grad_sums is None else grad_sums.contiguous(),
        grad_out,
        relevant,
        takers,
        *call.extras,
        cells.order,
        cells.offsets,
        cell_of_tile,
        members.order,
        members.offsets,
        delta,
        dq,
        parts,
        *rows_of(q, k, v, grad_out),
        *call.bias_strides,
        call.scale,
        heads,
        heads // k.shape[1],
        len(cells),
        kappa,
        count,
        q.shape[2],
        CELL=cells.size,
        GROUP=members.size,
        ROWS=tiles.rows,
        SLOTS=slots_at_once(kappa),
        TURNS=2 if twice else 1,
        PACKED=cells.packed,
        **call.settings(tiles),
    )
    if adds:
        launch(
            logit_gradient_kernel,
            (batch * heads * len(cells),),
            parts,
            dlogits,
            cells.offsets,
            len(cells),
            kappa,
            count,
            CELL=cells.size,
            ROWS=tiles.rows,
            SLOTS=slots_at_once(kappa),
            num_warps=1,
        )
    return delta


def key_gradient(
    call: Call,
    grad_out: Tensor,
    lse: Tensor,
    delta: Tensor,
    relevant: Tensor,
    cells: Groups,
    members: Groups,
    dk: Tensor,
    dv: Tensor,
    dbias: Tensor | None,
) -> None:
    """Fill dk and dv of the members, and dbias where it is wanted.

    They come from the lists of cells that chose their groups, in parts where those are long.
    """
    q, k, v = call.q, call.k, call.v
    batch, heads, _, kappa = relevant.shape
    key_heads, n_q, n_k = k.shape[1], q.shape[2], k.shape[2]
    pack = members.packable if call.logits is None else 1
    lists = turned_round(relevant, len(members), key_heads, pack)
    members = members.pack(pack)
    tiles = call.tiles("key gradient", members)
    per_slot = entries_per_slot(cells.typical, lists.length, len(members))
    slots, group_of_slot = members.shares(tiles.rows, lists, per_slot)
    part_keys, part_slots = min(tiles.rows, members.largest), 2 * lists.length // per_slot
    width = q.shape[-1] + v.shape[-1]
    parts = torch.empty(batch * key_heads, part_slots, part_keys, width, dtype=torch.float32, device=q.device)
    bias_parts = None if dbias is None else parts.new_empty(parts.shape[:3])
    launch(
        key_gradient_kernel,
        (batch * key_heads * slots,),
        q,
        k,
        v,
        *lse,
        delta,
        grad_out,
        *call.extras,
        cells.order,
        cells.offsets,
        members.order,
        members.offsets,
        lists.entries,
        lists.takers,
        lists.offsets,
        group_of_slot,
        dk,
        dv,
        dbias,
        parts,
        bias_parts,
        *rows_of(q, k, v, grad_out),
        *call.bias_strides,
        call.scale,
        key_heads,
        heads // key_heads,
        len(cells),
        len(members),
        kappa,
        lists.length,
        per_slot,
        slots,
        part_slots,
        n_q,
        n_k,
        CELL=cells.size,
        GROUP=members.size,
        KEYS=tiles.rows,
        PART_KEYS=part_keys,
        SLOTS=16 if cells.typical >= 16 else 64,
        PACKED=members.packed,
        **call.settings(tiles),
    )
    if part_slots:
        launch(
            add_parts_kernel,
            (batch * key_heads * slots,),
            members.order,
            members.offsets,
            lists.offsets,
            group_of_slot,
            parts,
            bias_parts,
            dk,
            dv,
            dbias,
            len(members),
            lists.length,
            per_slot,
            slots,
            part_slots,
            n_k,
            C=q.shape[-1],
            C_WIDTH=power_of_two(q.shape[-1], at_least=16),
            V=v.shape[-1],
            V_WIDTH=power_of_two(v.shape[-1], at_least=16),
            GROUP=members.size,
            KEYS=tiles.rows,
            PART_KEYS=part_keys,
            WIDE=call.is_wide,
            num_warps=4,
            **({"maxnreg": 255} if call.chip.is_nvidia and dbias is not None else {}),
        )


def entries_per_slot(cell: int, length: int, groups: int) -> int:
    """How many entries of a list are a program's work: at least 16, more where cells are so small that it is little.

    And at least twice as many as a list of ``length / groups`` has, so that the parts of the lists that are split take
    no more room than the gradients themselves.

    Example:
        >>> entries_per_slot(64, 12288, 4096), entries_per_slot(1, 12288, 4096), entries_per_slot(64, 98304, 960)
        (16, 1024, 205)
    """
    return max(16, min(1024, power_of_two(1024 // cell, at_least=16)), -(-2 * length // groups))
