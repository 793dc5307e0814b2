"""Phase 1 on blocks of cells, as a custom operator."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.blocked.blocks import Block, CellBlocks, Scratch, limit, softmax
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

ROWS_AT_ONCE = 256  # coarse queries that a matrix product needs to be worth its while


@torch.no_grad()
def select_keys(
    q: Tensor, k: Tensor, layout: Layout, kappa: int, scale: float, affinity: str
) -> Int[Tensor, "b h m kappa"]:
    """Phase 1: pool; then for a block of cells at a time softmax, sum over each cell, and keep the κ best."""
    groups, cells, keys = (x.tensors() for x in (layout.query_groups, layout.query_cells, layout.key_groups))
    relevant: Tensor = torch.ops.gpa_nd.blocked_select_keys(
        q, k, groups, cells, keys, layout.key_ranges, kappa, scale, affinity
    )
    return relevant


torch.library.define(
    "gpa_nd::blocked_select_keys",
    "(Tensor q, Tensor k, Tensor[] query_groups, Tensor[] query_cells, Tensor[] key_groups, Tensor? key_ranges, "
    "int kappa, float scale, str affinity) -> Tensor",
)


@torch.library.impl("gpa_nd::blocked_select_keys", "CompositeExplicitAutograd")
def _select_keys(
    q: Tensor,
    k: Tensor,
    query_groups: list[Tensor],
    query_cells: list[Tensor],
    key_groups: list[Tensor],
    key_ranges: Tensor | None,
    kappa: int,
    scale: float,
    affinity: str,
) -> Tensor:
    cells = Partition.from_tensors(query_cells)
    with own_precision(q):
        q_low, k_low = _pool(q, Partition.from_tensors(query_groups)), _pool(k, Partition.from_tensors(key_groups))
        k_low = k_low.repeat_interleave(q.shape[1] // k.shape[1], dim=0)
        if affinity == "dot":
            q_low *= scale
        n_k, room = k_low.shape[1], limit(q)
        chosen, scratch = [], Scratch(q.device)
        heads_at_once = max(1, room // (ROWS_AT_ONCE * n_k))
        for q_some, k_some in zip(q_low.split(heads_at_once), k_low.split(heads_at_once), strict=True):
            row = len(k_some) * n_k
            blocks, of_blocks = CellBlocks(cells, room, per_element=row), []
            for block in blocks:
                hidden = None if key_ranges is None else _hidden(key_ranges[block.cells], n_k)
                sums = _cell_sums(q_some, k_some, block, hidden, scale, affinity, max(1, room // row), scratch)
                of_blocks.append(_most_relevant(sums, hidden, kappa))
            chosen.append(blocks.join_cells(of_blocks))
        return torch.unflatten(torch.cat(chosen), 0, q.shape[:2])


@torch.library.register_fake("gpa_nd::blocked_select_keys")
def _(q, k, query_groups, query_cells, key_groups, key_ranges, kappa, *_):  # type: ignore[no-untyped-def]
    cells, keys = (len(partition[1]) - 1 for partition in (query_cells, key_groups))
    return q.new_empty(*q.shape[:2], cells, min(kappa, keys), dtype=torch.int64)


def _pool(x: Tensor, groups: Partition) -> Float[Tensor, "h n c"]:
    """Means (line 5), rounded as x is; NaN where one is not finite, so that no cell that it takes part in is ranked."""
    rows, dtype = x.reshape(-1, x.shape[-1]), wide(x.dtype)
    heads, scratch = x.shape[0] * x.shape[1], Scratch(x.device)
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
    low = low.to(x.dtype).to(dtype)
    return torch.unflatten(low.masked_fill_(~low.isfinite(), torch.nan), 0, (heads, -1))


def _cell_sums(
    q_low: Tensor,
    k_low: Tensor,
    block: Block,
    hidden: Tensor | None,
    scale: float,
    affinity: str,
    rows: int,
    scratch: Scratch,
) -> Float[Tensor, "h m n_k"]:
    """Sum of softmax(q_low k_low) over the coarse queries of each cell (lines 6–10), at most ``rows`` at a time."""
    cells, size = block.elements.shape
    heads, n_k = k_low.shape[:2]
    sums = scratch("sums", (heads, cells, n_k), q_low.dtype)
    step = max(1, rows // cells)
    for start in range(0, size, step):
        part = block.elements[:, start : start + step]
        shape = (heads, part.numel(), n_k)
        some = q_low.index_select(1, part.flatten())
        if affinity == "dot":
            scores = torch.bmm(some, k_low.mT, out=scratch("scores", shape, q_low.dtype))
        else:
            scores = torch.cdist(some, k_low, compute_mode="donot_use_mm_for_euclid_dist").square_().mul_(-scale)
        if hidden is not None:
            scores.unflatten(1, part.shape).masked_fill_(hidden[:, None], -torch.inf)
        weights = softmax(scores, scratch).unflatten(1, part.shape)
        if block.real is not None:
            weights *= block.real[:, start : start + step, None].to(weights.dtype)  # as above
        if start == 0:
            torch.sum(weights, 2, out=sums)
        else:
            sums += weights.sum(2)
    return sums


def _most_relevant(sums: Tensor, hidden: Tensor | None, kappa: int) -> Int[Tensor, "h m kappa"]:
    """R_κ: the κ largest sums, ties to the lower index; −1 where fewer are seen, −2 where a sum is not a number."""
    if hidden is not None:
        sums.masked_fill_(hidden, -1)
    unrankable = sums.sum(-1, keepdim=True).isnan()
    kappa = min(kappa, sums.shape[-1])
    if sums.device.type != "cpu":  # where looking for ties would wait for the device
        value, index = sums.sort(dim=-1, descending=True, stable=True)
    else:
        value, index = sums.topk(min(kappa + 1, sums.shape[-1]), dim=-1)
        tied = (value[..., 1:] == value[..., :-1]).any(-1)  # topk orders equal sums as it likes
        if bool(tied.any()):
            ranked = sums[tied].sort(dim=-1, descending=True, stable=True)
            value[tied], index[tied] = (x[..., : value.shape[-1]] for x in ranked)
    return index.masked_fill(value < 0, -1).masked_fill(unrankable, -2)[..., :kappa]


def _hidden(ranges: Int[Tensor, "m 2"], num_keys: int) -> Bool[Tensor, "m n_k"]:
    """The coarse keys that cells may not see."""
    keys = torch.arange(num_keys, device=ranges.device)
    return (keys < ranges[:, :1]) | (keys >= ranges[:, 1:])
