"""Phase 2 on a GPU: the operators that autograd and torch.compile see, and the launch of the forward pass."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused.attention_kernels import attend_kernel
from gpa_nd.engine.fused.call import Call, check_reach, packed_cells, rows_of, slots_at_once
from gpa_nd.engine.fused.gradients import key_gradient, query_gradient
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import chip_of, launch, with_whole_rows
from gpa_nd.layout import Layout

LOG_2 = math.log(2)


def attend(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m kappa"],
    logits: Float[Tensor, "b h m kappa"] | None,
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float,
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2 (lines 12–19): every query attends to the elements under its cell's coarse keys.

    Query head h reads key head h // (H / H_k). ``bias`` is added to the scores of keys; −∞ hides one, and then it is
    zero in k and v.
    """
    return _results(q, k, v, layout, relevant, logits, bias, scale)[0]


def attend_with_sums(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m kappa"],
    logits: Float[Tensor, "b h m kappa"] | None,
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float,
) -> tuple[Float[Tensor, "b h n_q c_v"], Float[Tensor, "b h n_q"]]:
    """As :func:`attend`, and the log-sum-exp of the scores of each query, differentiable; any number in a NaN cell."""
    out, lse, _ = _results(q, k, v, layout, relevant, logits, bias, scale)
    return out, lse.sum(0) * LOG_2


def _results(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    cells, members = layout.fine_cells, layout.members
    query_positions, key_positions = layout.positions or (None, None)
    results: tuple[Tensor, Tensor, Tensor] = fused_attend(
        q,
        k,
        v,
        relevant,
        None if logits is None else logits.float(),
        bias,
        query_positions,
        key_positions,
        cells.order,
        cells.offsets,
        members.order,
        members.offsets,
        cells.largest,
        members.largest,
        float(scale),
    )
    return results


@torch.library.custom_op("gpa_nd::fused_attend", mutates_args=())
def fused_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    cell_order: Tensor,
    cell_offsets: Tensor,
    member_order: Tensor,
    member_offsets: Tensor,
    largest_cell: int,
    largest_group: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output (B, H, n_q, c_v), and the log-sum-exp in base 2: (2, B, H, n_q) float32 that are to be added.

    The first is a row's largest score, −∞ where nothing is seen. It is their sum that has a gradient.
    """
    out, lse, remainder = empty_results(q, v)
    q, k, v = (with_whole_rows(x) for x in (q, k, v))
    cells = Groups(cell_order, cell_offsets, largest_cell)
    members = Groups(member_order, member_offsets, largest_group)
    call = Call(chip_of(q.device), q, k, v, logits, bias, query_positions, key_positions, scale, wide=(q, k, v, out))
    check_reach(q, k, relevant)
    cells, relevant, takers = packed_cells(cells, relevant, logits, call.axes > 0)
    tiles = call.tiles("forward", cells)
    count, cell_of_tile = cells.tiles(tiles.rows)
    heads, kappa = relevant.shape[1], relevant.shape[3]
    launch(
        attend_kernel,
        (q.shape[0] * heads * count,),
        q,
        k,
        v,
        relevant,
        takers,
        *call.extras,
        cells.order,
        cells.offsets,
        cell_of_tile,
        members.order,
        members.offsets,
        out,
        remainder,
        *lse,
        *rows_of(q, k, v),
        *call.bias_strides,
        scale,
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
        PACKED=cells.packed,
        **call.settings(tiles),
    )
    return out, lse, remainder


@fused_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return empty_results(q, v)


@torch.library.custom_op("gpa_nd::fused_attend_backward", mutates_args=())
def fused_attend_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    remainder: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    cell_order: Tensor,
    cell_offsets: Tensor,
    member_order: Tensor,
    member_offsets: Tensor,
    largest_cell: int,
    largest_group: int,
    scale: float,
    of_bias: bool,
    grad_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, logits and bias; the last two are empty where they are not there or not wanted."""
    dq, dk, dv, dlogits, dbias = empty_gradients(q, k, v, relevant, logits, of_bias)
    grad_out, q, k, v = (with_whole_rows(x) for x in (grad_out, q, k, v))
    cells = Groups(cell_order, cell_offsets, largest_cell)
    members = Groups(member_order, member_offsets, largest_group)
    call = Call(
        chip_of(q.device),
        q,
        k,
        v,
        logits,
        bias,
        query_positions,
        key_positions,
        scale,
        wide=(q, k, v, grad_out, dq, dk, dv, out),
    )
    grad_sums = None if grad_lse is None else grad_lse[0] / LOG_2
    delta = query_gradient(
        call, grad_out, grad_sums, out, remainder, lse, relevant, cells, members, dq, dlogits, of_bias
    )
    if len(member_order) < k.shape[2]:
        dk.zero_()
        dv.zero_()
        dbias.zero_()
    key_gradient(call, grad_out, lse, delta, relevant, cells, members, dk, dv, dbias if of_bias else None)
    return dq, dk, dv, dlogits, dbias


@fused_attend_backward.register_fake
def _(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    remainder: Tensor,
    relevant: Tensor,
    logits: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return empty_gradients(q, k, v, relevant, logits, rest[10])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, relevant, logits, bias, *rest = inputs
    ctx.save_for_backward(q, k, v, *output, relevant, logits, bias, *rest[:6])
    ctx.rest = rest[6:]
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        grad_out = torch.zeros_like(ctx.saved_tensors[3])
    of_logits, of_bias = ctx.needs_input_grad[4:6]
    dq, dk, dv, dlogits, dbias = fused_attend_backward(grad_out, *ctx.saved_tensors, *ctx.rest, of_bias, grad_lse)
    return dq, dk, dv, None, dlogits if of_logits else None, dbias if of_bias else None, *(None,) * 9


fused_attend.register_autograd(_differentiate, setup_context=_save)


def _differentiate_twice(ctx: Any, *_: Tensor) -> NoReturn:
    raise NotImplementedError("backend 'triton' has no second derivatives; backend='reference' has them")


fused_attend_backward.register_autograd(_differentiate_twice)


def empty_results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the output, the log-sum-exp, and in 16 bits for what is rounded off the output."""
    out = q.new_empty(*q.shape[:3], v.shape[3])
    lse = q.new_empty(2, *q.shape[:3], dtype=torch.float32)
    return out, lse, torch.empty_like(out) if out.dtype != torch.float32 else q.new_empty(0)


def empty_gradients(
    q: Tensor, k: Tensor, v: Tensor, relevant: Tensor, logits: Tensor | None, of_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients of q, k, v, logits and bias."""
    dlogits = q.new_empty(0 if logits is None else relevant.shape, dtype=torch.float32)
    dbias = q.new_empty(k.shape[:3] if of_bias else 0, dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dlogits, dbias
