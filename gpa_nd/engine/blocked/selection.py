"""Phase 1 as a custom operator: pooling, and what PyTorch has to know of it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.blocked.blocks import CellBlocks, Scratch, limit
from gpa_nd.engine.blocked.phase1 import Phase1
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.engine.rankings import Spread
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition


def select_keys(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    kappa: int,
    scale: float,
    affinity: str,
    bias: CoarseBias | None,
    candidates: Tensor | None,
    spread: Spread | None,
    wants_sums: bool,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h _m _kappa"]]:
    """Phase 1: pool; then for a block of cells at a time softmax, sum over each cell, and keep the κ best."""
    groups, rankers, keys = (x.tensors() for x in (layout.query_groups, layout.rankers, layout.key_groups))
    ranges, positions = (layout.key_ranges, layout.host_ranges), layout.coarse_positions or (None, None)
    added, share = (None, None) if bias is None else (bias.added, bias.share)
    deviation, log_size = (None, None) if spread is None else (spread.deviation, spread.log_size)
    ranked: tuple[Tensor, Tensor] = torch.ops.gpa_nd.blocked_select_keys(
        *(q, k, groups, rankers, keys, *ranges, *positions, added, share, deviation, log_size, candidates),
        *(kappa, scale, affinity, wants_sums),
    )
    return ranked


def select_by_members(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    kappa: int,
    scale: float,
    affinity: str,
    added: Tensor | None,
    candidates: Tensor,
    wants_sums: bool,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h _m _kappa"]]:
    """Phase 1 among candidates, of which each is ranked by its keys themselves instead of their mean."""
    rankers, keys = layout.rankers.tensors(), layout.key_groups.tensors()
    ranked: tuple[Tensor, Tensor] = torch.ops.gpa_nd.blocked_select_by_members(
        q, k, rankers, keys, added, candidates, kappa, scale, affinity, wants_sums
    )
    return ranked


def pool(x: Tensor, groups: Partition) -> Float[Tensor, "b h n c"]:
    """Mean of each group (line 5), rounded as x is; NaN where one is not finite. Differentiable."""
    low: Tensor = torch.ops.gpa_nd.blocked_pool(x, groups.tensors())
    return low


torch.library.define("gpa_nd::blocked_pool", "(Tensor x, Tensor[] groups) -> Tensor")
torch.library.define("gpa_nd::blocked_pool_backward", "(Tensor grad, Tensor[] groups) -> Tensor")
torch.library.define(
    "gpa_nd::blocked_select_keys",
    "(Tensor q, Tensor k, Tensor[] query_groups, Tensor[] rankers, Tensor[] key_groups, Tensor? key_ranges, "
    "Tensor? host_ranges, Tensor? cell_positions, Tensor? key_positions, Tensor? added, Tensor? share, "
    "Tensor? deviation, Tensor? log_size, Tensor? candidates, int kappa, float scale, str affinity, bool wants_sums) "
    "-> (Tensor, Tensor)",
)
torch.library.define(
    "gpa_nd::blocked_select_by_members",
    "(Tensor q, Tensor k, Tensor[] rankers, Tensor[] key_groups, Tensor? added, Tensor candidates, int kappa, "
    "float scale, str affinity, bool wants_sums) -> (Tensor, Tensor)",
)


@torch.library.impl("gpa_nd::blocked_select_keys", "CompositeExplicitAutograd")
def _select_keys(
    q: Tensor,
    k: Tensor,
    query_groups: list[Tensor],
    rankers: list[Tensor],
    key_groups: list[Tensor],
    key_ranges: Tensor | None,
    host_ranges: Tensor | None,
    cell_positions: Tensor | None,
    key_positions: Tensor | None,
    added: Tensor | None,
    share: Tensor | None,
    deviation: Tensor | None,
    log_size: Tensor | None,
    candidates: Tensor | None,
    kappa: int,
    scale: float,
    affinity: str,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    with own_precision(q):
        q_low = _pool(q, Partition.from_tensors(query_groups))
        k_low = _pool(k, Partition.from_tensors(key_groups), share)
        if affinity == "dot":
            q_low *= scale
        added, deviation, log_size = (_of_heads(x, len(q_low)) for x in (added, deviation, log_size))
        phase = Phase1(
            q_low,
            _for_query_heads(k_low, len(q_low)),
            Partition.from_tensors(rankers),
            ranges=(key_ranges, host_ranges),
            added=added,
            positions=None if cell_positions is None or key_positions is None else (cell_positions, key_positions),
            spread=None if deviation is None or log_size is None else Spread(deviation, log_size),
            kappa=kappa,
            scale=scale,
            affinity=affinity,
            room=limit(q),
            wants_sums=wants_sums,
        )
        ranked = phase.among_all() if candidates is None else phase.among(candidates.flatten(0, 1))
        return ranked[0].unflatten(0, q.shape[:2]), ranked[1].unflatten(0, q.shape[:2])


@torch.library.impl("gpa_nd::blocked_select_by_members", "CompositeExplicitAutograd")
def _select_by_members(
    q: Tensor,
    k: Tensor,
    rankers: list[Tensor],
    key_groups: list[Tensor],
    added: Tensor | None,
    candidates: Tensor,
    kappa: int,
    scale: float,
    affinity: str,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    with own_precision(q):
        rows, keys = (x.flatten(0, 1).to(wide(x.dtype), copy=True) for x in (q, k))
        for x in (rows, keys):
            x.masked_fill_(~x.isfinite(), torch.nan)
        if affinity == "dot":
            rows *= scale
        phase = Phase1(
            rows,
            _for_query_heads(keys, len(rows)),
            Partition.from_tensors(rankers),
            added=_of_heads(added, len(rows)),
            kappa=kappa,
            scale=scale,
            affinity=affinity,
            room=limit(q),
            wants_sums=wants_sums,
            members=Partition.from_tensors(key_groups),
        )
        ranked = phase.among(candidates.flatten(0, 1))
        return ranked[0].unflatten(0, q.shape[:2]), ranked[1].unflatten(0, q.shape[:2])


@torch.library.impl("gpa_nd::blocked_pool", "CompositeExplicitAutograd")
def _pool_each(x: Tensor, groups: list[Tensor]) -> Tensor:
    low = _pool(x, Partition.from_tensors(groups)).to(x.dtype)
    return low.view(*x.shape[:2], *low.shape[1:])


@torch.library.register_fake("gpa_nd::blocked_select_by_members")
def _(q, k, rankers, key_groups, *others):  # type: ignore[no-untyped-def]
    return _room(q, rankers, key_groups, kappa=others[-4], wants_sums=others[-1])


def _room(
    q: Tensor, rankers: list[Tensor], key_groups: list[Tensor], kappa: int, wants_sums: bool
) -> tuple[Tensor, Tensor]:
    cells, keys = len(rankers[1]) - 1, len(key_groups[1]) - 1
    shape = (*q.shape[:2], cells, min(kappa, keys))
    sums = q.new_empty(shape if wants_sums else (*q.shape[:2], 0, 0), dtype=wide(q.dtype))
    return q.new_empty(shape, dtype=torch.int64), sums


@torch.library.register_fake("gpa_nd::blocked_pool")
def _(x, groups):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:2], len(groups[1]) - 1, x.shape[-1])


@torch.library.impl("gpa_nd::blocked_pool_backward", "CompositeExplicitAutograd")
def _spread(grad: Tensor, groups: list[Tensor]) -> Tensor:
    part = Partition.from_tensors(groups)
    return (grad / part.sizes[:, None].to(wide(grad.dtype))).to(grad.dtype).index_select(2, part.labels)


@torch.library.register_fake("gpa_nd::blocked_pool_backward")
def _(grad, groups):  # type: ignore[no-untyped-def]
    return grad.new_empty(*grad.shape[:2], len(groups[0]), grad.shape[-1])


def _keep_groups(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[1])


def _pool_backward(ctx, grad):  # type: ignore[no-untyped-def]
    return torch.ops.gpa_nd.blocked_pool_backward(grad, ctx.saved_tensors), [None] * 3


def _spread_backward(ctx, grad):  # type: ignore[no-untyped-def]
    return torch.ops.gpa_nd.blocked_pool(grad, ctx.saved_tensors), [None] * 3


torch.library.register_autograd("gpa_nd::blocked_pool", _pool_backward, setup_context=_keep_groups)
torch.library.register_autograd("gpa_nd::blocked_pool_backward", _spread_backward, setup_context=_keep_groups)


@torch.library.register_fake("gpa_nd::blocked_select_keys")
def _(q, k, query_groups, rankers, key_groups, *others):  # type: ignore[no-untyped-def]
    return _room(q, rankers, key_groups, kappa=others[-4], wants_sums=others[-1])


def _pool(x: Tensor, groups: Partition, share: Tensor | None = None) -> Float[Tensor, "h n c"]:
    """Means (line 5) over the share of each group that is visible, rounded as x is.

    NaN where one is not finite, so that no cell that it takes part in is ranked.
    """
    dtype = wide(x.dtype)
    if groups.uniform and _in_order(groups):
        low = x.unflatten(2, (len(groups), groups.largest)).mean(3, dtype=dtype).flatten(0, 2)
    else:
        low = _gathered_means(x, groups, dtype)
    if share is not None:
        low /= share.reshape(-1, 1)
    low = low.to(x.dtype).to(dtype)
    low.masked_fill_(~low.isfinite(), torch.nan)
    means: Tensor = low.view(-1, len(groups), x.shape[-1])
    return means


def _in_order(groups: Partition) -> bool:
    """Whether the elements of each group follow those of the one before it: looked up where nothing has to wait."""
    order = groups.order
    return order.device.type == "cpu" and bool(order.equal(torch.arange(len(order))))


def _gathered_means(x: Tensor, groups: Partition, dtype: torch.dtype) -> Float[Tensor, "h_n c"]:
    rows, heads, scratch = x.reshape(-1, x.shape[-1]), x.shape[0] * x.shape[1], Scratch(x.device)
    low = torch.empty(heads * len(groups), x.shape[-1], dtype=dtype, device=x.device)
    for block in CellBlocks(groups, limit(x), per_element=x.shape[-1], heads=heads):
        row = block.elements + block.heads[:, None] * x.shape[2]
        picked = torch.index_select(rows, 0, row.flatten(), out=scratch("rows", (row.numel(), x.shape[-1]), x.dtype))
        picked = picked.unflatten(0, row.shape)
        if block.real is None:
            mean = picked.mean(1, dtype=dtype)
        else:
            picked *= block.real[..., None].to(picked.dtype)  # padding repeats an element: 0 · NaN is NaN there anyway
            mean = picked.sum(1, dtype=dtype) / block.real.sum(1, keepdim=True)
        low[block.heads * len(groups) + block.cells] = mean
    return low


def _of_heads(x: Float[Tensor, "b h_k n"] | None, heads: int) -> Float[Tensor, "h n"] | None:
    return None if x is None else _for_query_heads(x.flatten(0, 1), heads)


def _for_query_heads(x: Tensor, heads: int) -> Tensor:
    """Rows of key heads for every head of the queries; neighbouring ones share them."""
    return x.contiguous() if len(x) == heads else x.repeat_interleave(heads // len(x), dim=0)
