"""Backend "torch": Algorithm 1 for a block of cells at a time, on every device that PyTorch has.

Neither the n_q' × n_k' affinity nor, unless autograd has to keep them, all gathered keys are held at once. Batch and
heads are one axis h throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.blocks import Block, CellBlocks
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

ROWS_AT_ONCE = 256  # coarse queries that a matrix product needs to be worth its while


@torch.no_grad()
def select_keys(
    q: Tensor, k: Tensor, layout: Layout, kappa: int, scale: float, affinity: str
) -> Int[Tensor, "b h m kappa"]:
    """Phase 1: pool; then for a block of cells at a time softmax, sum over each cell, and keep the κ best."""
    q_low, k_low = (
        _wide(_not_finite_to_nan(groups.mean(x.flatten(0, 1))))
        for groups, x in ((layout.query_groups, q), (layout.key_groups, k))
    )
    n_k, limit = k_low.shape[1], _limit(q)
    chosen = []
    heads_at_once = max(1, limit // (ROWS_AT_ONCE * n_k))
    for q_some, k_some in zip(q_low.split(heads_at_once), k_low.split(heads_at_once), strict=True):
        row = len(k_some) * n_k
        blocks = CellBlocks(layout.query_cells, limit, per_element=row)
        of_blocks = []
        for block in blocks:
            hidden = _hidden(layout, block)
            sums = _cell_sums(q_some, k_some, block, hidden, scale, affinity, rows=max(1, limit // row))
            of_blocks.append(_most_relevant(sums, hidden, kappa))
        chosen.append(blocks.join_cells(of_blocks))
    return torch.unflatten(torch.cat(chosen), 0, q.shape[:2])


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    relevant: Tensor,
    logits: Tensor | None,
    scale: float,
    affinity: str,
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2: for a block of cells at a time gather the keys and values that they chose, and attend."""
    # Autograd keeps all gathered keys anyway, and each gather's backward passes over all keys: one block is best then.
    limit = 2**62 if _needs_grad(q, k, v, logits) else _limit(q)
    batch, members = q.shape[:2], layout.members
    q, k, v, relevant = (x.flatten(0, 1) for x in (q, k, v, relevant))
    spoilt = (relevant == -2).any(-1)[..., None, None] if bool((relevant == -2).any()) else None
    widest = _most_members(members, relevant.shape[-1])
    row = len(q) * (k.shape[-1] + v.shape[-1])
    scores = len(q) * widest if affinity == "euclidean" else 0  # what the fused path need not hold
    blocks = CellBlocks(layout.fine_cells, limit, per_element=row + scores, per_cell=row * widest)
    gaps = not members.uniform or bool((relevant == -1).any())
    outs = []
    for block in blocks:
        index, slot, seen = _upsample(relevant.index_select(1, block.cells), members, widest if gaps else None)
        bias = None if logits is None else logits.flatten(0, 1).index_select(1, block.cells).gather(-1, slot)
        q_cells = torch.unflatten(q.index_select(1, block.elements.flatten()), 1, block.elements.shape)
        if spoilt is not None:  # nothing of a cell that is NaN may reach the gradients of others
            q_cells = q_cells.masked_fill(spoilt.index_select(1, block.cells), 0)
        out = _attention(q_cells, _gather(k, index, seen), _gather(v, index, seen), seen, bias, scale, affinity)
        outs.append(out if spoilt is None else out.masked_fill(spoilt.index_select(1, block.cells), torch.nan))
    return torch.unflatten(blocks.join_elements(outs), 0, batch)


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Float[Tensor, "b h n_q c_v"]:
    """What both phases give when every coarse key is selected: dense attention, and NaN where they answer NaN."""
    out = _fused(q, k, v, None, scale)
    rankable = q.isfinite().all(-1, keepdim=True) & k.isfinite().all(-1).all(-1)[..., None, None]
    return out.masked_fill(~rankable, torch.nan)


def _cell_sums(
    q_low: Tensor, k_low: Tensor, block: Block, hidden: Tensor | None, scale: float, affinity: str, rows: int
) -> Float[Tensor, "h m n_k"]:
    """Sum of softmax(q_low k_low) over the coarse queries of each cell (lines 6–10), at most ``rows`` at a time."""
    cells, size = block.elements.shape
    sums = q_low.new_zeros(len(q_low), cells, k_low.shape[1])
    step = max(1, rows // cells)
    for start in range(0, size, step):
        part = block.elements[:, start : start + step]
        scores = torch.unflatten(_scores(q_low.index_select(1, part.flatten()), k_low, scale, affinity), 1, part.shape)
        if hidden is not None:
            scores.masked_fill_(hidden[:, None], -torch.inf)
        weights = scores.softmax(-1)
        if block.real is not None:
            weights.masked_fill_(~block.real[:, start : start + step, None], 0)
        sums += weights.sum(2)
    return sums


def _most_relevant(sums: Tensor, hidden: Tensor | None, kappa: int) -> Int[Tensor, "h m kappa"]:
    """R_κ: the κ largest sums, ties to the lower index; −1 where fewer are seen, −2 where a sum is not a number."""
    if hidden is not None:
        sums = sums.masked_fill(hidden, -1)
    unrankable = sums.sum(-1, keepdim=True).isnan()
    kappa = min(kappa, sums.shape[-1])
    value, index = sums.topk(min(kappa + 1, sums.shape[-1]), dim=-1)
    tied = (value[..., 1:] == value[..., :-1]).any(-1)  # topk orders equal sums as it likes
    if bool(tied.any()):
        ranked = sums[tied].sort(dim=-1, descending=True, stable=True)
        value[tied], index[tied] = (x[..., : value.shape[-1]] for x in ranked)
    return index.masked_fill(value < 0, -1).masked_fill(unrankable, -2)[..., :kappa]


def _most_members(members: Partition, kappa: int) -> int:
    """The most elements that κ coarse keys can have under them: a width that no value of any tensor can sway."""
    sizes = members.host_offsets.diff()
    return max(1, int(sizes.topk(min(kappa, len(sizes))).values.sum()))


def _upsample(
    chosen: Int[Tensor, "h m kappa"], members: Partition, width: int | None
) -> tuple[Int[Tensor, "h m r"], Int[Tensor, "h m r"], Bool[Tensor, "h m r"] | None]:
    """Line 15: the elements under the chosen coarse keys, which of the κ each comes from, and which of them are real.

    A width is given where there are gaps (groups of different sizes, or entries that name no key): the real elements of
    a cell then come first, and the rest of the width is padding.
    """
    named = chosen.clamp_min(0)
    if width is None:
        elements = members.order.view(-1, members.largest)[named]
        slot = torch.arange(chosen.shape[-1], device=chosen.device).repeat_interleave(members.largest)
        return elements.flatten(-2), slot.expand(*chosen.shape[:2], -1), None
    place = torch.arange(width, device=chosen.device).expand(*chosen.shape[:2], -1).contiguous()
    if not chosen.shape[-1]:
        return torch.zeros_like(place), place, torch.zeros_like(place, dtype=torch.bool)
    stops = torch.where(chosen >= 0, members.sizes[named], 0).cumsum(-1)
    seen = place < stops[..., -1:]
    slot = torch.searchsorted(stops, place, right=True).clamp_max(chosen.shape[-1] - 1)
    group = named.gather(-1, slot)
    within = place - (stops.gather(-1, slot) - members.sizes[group])
    element = members.order[(members.offsets[group] + within).clamp(0, members.num_elements - 1)]
    return torch.where(seen, element, 0), slot, seen


def _gather(x: Tensor, index: Tensor, seen: Tensor | None) -> Float[Tensor, "h m r c"]:
    """Line 16: rows of x by an index of its own for each h; zeros where an entry is not real."""
    first = torch.arange(len(x), device=x.device)[:, None, None] * x.shape[1]
    rows = torch.unflatten(x.flatten(0, 1).index_select(0, (index + first).flatten()), 0, index.shape)
    return rows if seen is None else rows.masked_fill(~seen[..., None], 0)


def _attention(
    q: Float[Tensor, "h m s c"],
    k: Float[Tensor, "h m r c"],
    v: Float[Tensor, "h m r c_v"],
    seen: Bool[Tensor, "h m r"] | None,
    bias: Float[Tensor, "h m r"] | None,
    scale: float,
    affinity: str,
) -> Float[Tensor, "h m s c_v"]:
    """Line 17: softmax attention of each cell's queries over the keys of the cell; zeros where none is seen."""
    dtype = v.dtype
    if bias is not None or affinity == "euclidean":  # float16 and bfloat16 would be too coarse
        q, k, v = _wide(q), _wide(k), _wide(v)
    mask = None if bias is None else bias.to(q.dtype)
    if seen is not None:
        hidden = ~seen & seen.any(-1, keepdim=True)
        mask = ~hidden if mask is None else mask.masked_fill(hidden, -torch.inf)
    mask = None if mask is None else mask[:, :, None]
    exact = q.dtype in (torch.float32, torch.float64) and _needs_grad(q, k, v, mask)
    if affinity == "dot" and not exact:
        out = _fused(q, k, v, mask, scale)
    else:  # the backward of the fused path errs up to seven times as much as this one does
        scores = _scores(q, k, scale, affinity)
        if mask is not None:
            scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
        out = scores.softmax(-1) @ v
    return out.to(dtype) if seen is None else out.to(dtype).masked_fill(~seen.any(-1)[..., None, None], 0)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Float[Tensor, "h m s c_v"]:
    """PyTorch's own attention, whose fused path wants as many channels in v as in q and k."""
    c_v = v.shape[-1]
    widest = max(q.shape[-1], c_v)
    q, k, v = (x if x.shape[-1] == widest else F.pad(x, (0, widest - x.shape[-1])) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[..., :c_v]


def _scores(q: Tensor, k: Tensor, scale: float, affinity: str) -> Float[Tensor, "*batch n_q n_k"]:
    """q·k · scale, or −|q − k|² · scale from differences: the expanded square is wrong far away from the origin."""
    if affinity == "dot":
        return (q * scale) @ k.mT
    return torch.cdist(q, k, compute_mode="donot_use_mm_for_euclid_dist").square() * -scale


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _hidden(layout: Layout, block: Block) -> Bool[Tensor, "m n_k"] | None:
    """The coarse keys that the cells of a block may not see; None if they see all."""
    if layout.key_ranges is None:
        return None
    keys, ranges = torch.arange(len(layout.key_groups), device=layout.device), layout.key_ranges[block.cells]
    return (keys < ranges[:, :1]) | (keys >= ranges[:, 1:])


def _limit(x: Tensor) -> int:
    """Numbers in a block: what stays in the cache of a CPU, what keeps a GPU busy."""
    return 2**20 if x.device.type == "cpu" else 2**26


def _wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _not_finite_to_nan(x: Tensor) -> Tensor:
    """Infinity to NaN, so that whatever an element that is not finite takes part in cannot be ranked."""
    return x.masked_fill(~x.isfinite(), torch.nan)
