"""Phase 2 as a custom operator: what PyTorch has to know of it, so that it can be compiled, exported and derived."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.engine.blocked.phase2 import Phase2
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.layout import Layout


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    scale: float,
    affinity: str,
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2: for a block of cells at a time gather the keys and values that they chose, and attend."""
    cells, members = layout.fine_cells.tensors(), layout.members.tensors()
    of_queries, of_keys = layout.positions or (None, None)
    out: Tensor = torch.ops.gpa_nd.blocked_attend(
        q, k, v, relevant, logits, bias, cells, members, of_queries, of_keys, layout.always, scale, affinity
    )
    return out


def attend_with_sums(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    scale: float,
    affinity: str,
) -> tuple[Float[Tensor, "b h n_q c_v"], Float[Tensor, "b h n_q"]]:
    """As :func:`attend`, and the log-sum-exp of the scores of each query, differentiable; any number in a NaN cell."""
    cells, members = layout.fine_cells.tensors(), layout.members.tensors()
    of_queries, of_keys = layout.positions or (None, None)
    out, lse = torch.ops.gpa_nd.blocked_attend_with_sums(
        q, k, v, relevant, logits, bias, cells, members, of_queries, of_keys, layout.always, scale, affinity
    )
    return out, lse


ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor relevant, Tensor? logits, Tensor? bias, Tensor[] cells, Tensor[] members, "
    "Tensor? query_positions, Tensor? key_positions, Tensor? always, float scale, str affinity"
)


torch.library.define("gpa_nd::blocked_attend", f"({ARGUMENTS}) -> Tensor")
torch.library.define(
    "gpa_nd::blocked_attend_backward", f"(Tensor grad, {ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


torch.library.define("gpa_nd::blocked_attend_with_sums", f"({ARGUMENTS}) -> (Tensor, Tensor)")
torch.library.define(
    "gpa_nd::blocked_attend_with_sums_backward",
    f"(Tensor grad, Tensor grad_sums, {ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("gpa_nd::blocked_attend", "CompositeExplicitAutograd")
def _attend(q, *others):  # type: ignore[no-untyped-def]
    with own_precision(q), torch.no_grad():
        return Phase2(q, *others).attend()


@torch.library.register_fake("gpa_nd::blocked_attend")
def _(q, k, v, *_):  # type: ignore[no-untyped-def]
    return q.new_empty(*q.shape[:3], v.shape[-1])


@torch.library.impl("gpa_nd::blocked_attend_backward", "CompositeExplicitAutograd")
def _attend_backward(grad, q, *others):  # type: ignore[no-untyped-def]
    with own_precision(q), torch.no_grad():
        return Phase2(q, *others).gradients(grad)


@torch.library.register_fake("gpa_nd::blocked_attend_backward")
def _(grad, q, k, v, relevant, *added_and_more):  # type: ignore[no-untyped-def]
    of_added = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in added_and_more[:2])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *of_added


@torch.library.impl("gpa_nd::blocked_attend_with_sums", "CompositeExplicitAutograd")
def _attend_with_sums(q, *others):  # type: ignore[no-untyped-def]
    with own_precision(q), torch.no_grad():
        return Phase2(q, *others).attend_with_sums()


@torch.library.register_fake("gpa_nd::blocked_attend_with_sums")
def _(q, k, v, *_):  # type: ignore[no-untyped-def]
    return q.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(q.shape[:3], dtype=wide(q.dtype))


@torch.library.impl("gpa_nd::blocked_attend_with_sums_backward", "CompositeExplicitAutograd")
def _attend_with_sums_backward(grad, grad_sums, q, *others):  # type: ignore[no-untyped-def]
    with own_precision(q), torch.no_grad():
        return Phase2(q, *others).gradients(grad, grad_sums)


@torch.library.register_fake("gpa_nd::blocked_attend_with_sums_backward")
def _(grad, grad_sums, q, k, v, relevant, *added_and_more):  # type: ignore[no-untyped-def]
    of_added = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in added_and_more[:2])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *of_added


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, cells, members, query_positions, key_positions, always, ctx.scale, ctx.affinity = inputs
    ctx.save_for_backward(*tensors, query_positions, key_positions, always, *cells, *members)


def _backward(ctx, *grads):  # type: ignore[no-untyped-def]
    ops = torch.ops.gpa_nd
    backward = ops.blocked_attend_backward if len(grads) == 1 else ops.blocked_attend_with_sums_backward
    q, k, v, relevant, logits, bias, *beside = ctx.saved_tensors
    (query_positions, key_positions, always), parts = beside[:3], beside[3:]
    cells, members = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    dq, dk, dv, dlogits, dbias = backward(
        *grads,
        *(q, k, v, relevant, logits, bias, cells, members),
        *(query_positions, key_positions, always, ctx.scale, ctx.affinity),
    )
    of_added = None if logits is None else dlogits, None if bias is None else dbias
    no_list = [None] * len(cells)
    return dq, dk, dv, None, *of_added, no_list, no_list, *(None,) * 5


def _no_second_derivative(ctx, *grads):  # type: ignore[no-untyped-def]
    raise NotImplementedError("backend 'torch' has no second derivatives; backend='reference' has them")


torch.library.register_autograd("gpa_nd::blocked_attend", _backward, setup_context=_keep)
torch.library.register_autograd("gpa_nd::blocked_attend_backward", _no_second_derivative)
torch.library.register_autograd("gpa_nd::blocked_attend_with_sums", _backward, setup_context=_keep)
torch.library.register_autograd("gpa_nd::blocked_attend_with_sums_backward", _no_second_derivative)
