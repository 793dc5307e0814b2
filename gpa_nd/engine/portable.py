"""Algorithm 1 for all cells at once, in operations that other runtimes have too: what ``torch.onnx.export`` writes.

Gathers, matrix products, a softmax and a top-k; shorter cells, groups and rows are padded and masked. All affinities of
Phase 1 and all gathered keys of Phase 2 are held at once. Nothing depends on the batch size.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.groups import for_query_heads, selectable
from gpa_nd.engine.mass import rows
from gpa_nd.engine.precision import wide
from gpa_nd.engine.rankings import Spread, gain, length
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

CHANNELS = 8  # of differences that are held at once, beside the scores


def pool(x: Float[Tensor, "b h n c"], groups: Partition) -> Float[Tensor, "b h n_low c"]:
    """Mean of each group (line 5), rounded as x is.

    Args:
        x: (B, H, n, c) elements.
        groups: which of them are in each group.

    Returns:
        (B, H, n', c) in the dtype of x.
    """
    means = _of_cells(x, groups).to(wide(x.dtype))
    if groups.uniform:
        return means.mean(3).to(x.dtype)
    means = means.masked_fill((groups.table < 0)[..., None], 0)
    return (means.sum(3) / groups.sizes[:, None]).to(x.dtype)


def select_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    kappa: int,
    scale: float,
    affinity: str,
    bias: CoarseBias | None,
    candidates: Int[Tensor, "b h m r"] | None,
    spread: Spread | None,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """Phase 1: the κ best coarse keys of each cell, and their sums of the softmax.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys, zero where they are masked.
        layout: who belongs to whom.
        kappa: how many coarse keys a cell keeps.
        scale: factor of the affinity.
        affinity: its kind.
        bias: what is added to the affinities of coarse keys.
        candidates: (B, H, m, r) the coarse keys that each cell chooses from, −1 for none; all by default.
        spread: how much the keys of each group differ, for ``ranking="moments"``.

    Returns:
        (B, H, m, κ) coarse keys, best first, and (B, H, m, κ) their sums.
    """
    heads, q_low, k_low = q.shape[1], pool(q, layout.query_groups), pool(k, layout.key_groups)
    if bias is not None:
        k_low = (k_low.to(bias.share.dtype) / bias.share[..., None]).to(k.dtype)
    rankers, k_low = layout.rankers.table, for_query_heads(_rankable(k_low), heads)
    q_cells = _rankable(_of_cells(q_low, layout.rankers))
    scores = _affinities(q_cells.flatten(2, 3), k_low, scale, affinity).unflatten(2, rankers.shape)
    if spread is not None:
        of_keys = (for_query_heads(x, heads)[:, :, None, None] for x in spread.tensors())
        scores = scores + gain(length(q_cells * scale), *of_keys)
    seen = selectable(layout, torch.arange(len(rankers), device=q.device))[None, None]
    if bias is not None:
        added = for_query_heads(bias.added, heads)[:, :, None]
        masked = added.isneginf()
        seen, scores = seen & ~masked, scores + added.masked_fill(masked, 0)[..., None, :]
    if candidates is not None:
        seen = seen & _named(candidates, len(layout.key_groups))
    sums = _softmax(scores, seen[..., None, :]).masked_fill((rankers < 0)[..., None], 0).sum(3)
    return _most_relevant(sums, seen.expand(sums.shape), min(kappa, len(layout.key_groups)))


def select_by_members(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    kappa: int,
    scale: float,
    affinity: str,
    added: Float[Tensor, "b h_k n_k"] | None,
    candidates: Int[Tensor, "b h m r"],
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """Phase 1 among candidates, of which each is ranked by its keys themselves instead of their mean.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom.
        kappa: how many coarse keys a cell keeps.
        scale: factor of the affinity.
        affinity: its kind.
        added: (B, H_k, n_k) what is added to the affinities of each key.
        candidates: (B, H, m, r) the coarse keys that each cell chooses from, −1 for none.

    Returns:
        (B, H, m, κ) coarse keys, best first, and (B, H, m, κ) their sums.
    """
    rankers, members = layout.rankers, layout.key_groups
    index = _members_of(candidates, members)
    seen, row = index >= 0, _row_of_key(index, k)
    scores = _affinities(_rankable(_of_cells(q, rankers)), rows(_rankable(k), row), scale, affinity)
    if added is not None:
        added = rows(added[..., None], row)[..., 0]
        masked = added.isneginf()
        seen, scores = seen & ~masked, scores + added.masked_fill(masked, 0)[..., None, :]
    weights = _softmax(scores, seen[..., None, :]).masked_fill((rankers.table < 0)[..., None], 0)
    each = candidates.shape[-1], members.largest
    sums, seen = weights.sum(3).unflatten(-1, each).sum(-1), seen.unflatten(-1, each).any(-1)
    place, best = _most_relevant(sums, seen, min(kappa, candidates.shape[-1]))
    chosen = torch.where(place >= 0, candidates.gather(-1, place.clamp_min(0)), place)
    missing = min(kappa, len(members)) - chosen.shape[-1]
    return torch.nn.functional.pad(chosen, (0, missing), value=-1), torch.nn.functional.pad(best, (0, missing))


def attend_with_sums(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m r"],
    logits: Float[Tensor, "b h m r"] | None,
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float,
    affinity: str,
) -> tuple[Float[Tensor, "b h n_q c_v"], Float[Tensor, "b h n_q"]]:
    """Phase 2, and the log-sum-exp of the scores of each query.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys, zero where they are masked.
        v: (B, H_k, n_k, c_v) values, zero where they are masked.
        layout: who belongs to whom.
        relevant: (B, H, m, r) coarse keys of each cell; −1 names none, −2 makes the cell NaN.
        logits: (B, H, m, r) what is added to the scores of all elements under each selected coarse key.
        bias: (B, H_k, n_k) what is added to the affinities of each key, −∞ where it is masked.
        scale: factor of the affinity.
        affinity: its kind.

    Returns:
        (B, H, n_q, c_v) in the dtype of q, and (B, H, n_q) in the dtype that scores are computed in.
    """
    cells, index = layout.fine_cells, _members_of(relevant, layout.members)
    seen, row = (index >= 0)[..., None, :], _row_of_key(index, k)
    scores = _affinities(_of_cells(q, cells), rows(k, row), scale, affinity)
    if logits is not None:
        of_members = logits.to(scores.dtype)[..., None].expand(*logits.shape, layout.members.largest)
        scores = scores + of_members.flatten(-2)[..., None, :]
    if bias is not None:
        added = rows(bias[..., None], row)[..., 0][..., None, :]
        masked = added.isneginf()
        seen, scores = seen & ~masked, scores + added.masked_fill(masked, 0)
    if layout.positions is not None:
        of_queries, of_keys = layout.positions
        later = of_keys[index.clamp_min(0)][..., None, :, :] > of_queries[cells.table.clamp_min(0)][:, :, None]
        seen = seen & ~later.any(-1)
    weights = _softmax(scores, seen)
    lse = scores.masked_fill(~seen, -torch.inf).logsumexp(-1)
    out = _weigh(weights, rows(v, row).to(weights.dtype), seen)
    out = out.masked_fill((relevant == -2).any(-1)[..., None, None], torch.nan).to(q.dtype)
    place = cells.labels * cells.largest + cells.inverse - cells.offsets[cells.labels]
    return out.flatten(2, 3).index_select(2, place), lse.flatten(2, 3).index_select(2, place)


def _of_cells(x: Float[Tensor, "b h n c"], cells: Partition) -> Float[Tensor, "b h m largest c"]:
    """The rows of each cell; those after the last one are any."""
    return torch.unflatten(x.index_select(2, cells.table.clamp_min(0).flatten()), 2, cells.table.shape)


def _members_of(chosen: Int[Tensor, "b h m r"], members: Partition) -> Int[Tensor, "b h m r_largest"]:
    """The elements under coarse keys (line 15); −1 where there is none."""
    return torch.where(chosen[..., None] >= 0, members.table[chosen.clamp_min(0)], -1).flatten(-2)


def _row_of_key(index: Int[Tensor, "b h m r"], k: Float[Tensor, "b h_k n_k c"]) -> Int[Tensor, "b h m r"]:
    """Where keys are among the rows of all batch entries and heads."""
    batch, heads = index.shape[:2]
    head = torch.arange(batch * heads, device=k.device).view(batch, heads, 1, 1) // (heads // k.shape[1])
    return head * k.shape[2] + index.clamp_min(0)


def _rankable(x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows c"]:
    """As wide as scores are computed in; infinity is NaN, so that what takes part in it cannot be ranked."""
    x = x.to(wide(x.dtype))
    return x.masked_fill(~x.isfinite(), torch.nan)


def _affinities(
    q: Float[Tensor, "*batch n_q c"], k: Float[Tensor, "*batch n_k c"], scale: float, affinity: str
) -> Float[Tensor, "*batch n_q n_k"]:
    """The logits Q Kᵀ · scale, or −|q − k|² · scale, from differences of a few channels at a time."""
    q, k = q.to(wide(q.dtype)), k.to(wide(k.dtype))
    if affinity == "dot":
        return q @ k.mT * scale
    squares: Tensor | None = None
    for some_q, some_k in zip(q.split(CHANNELS, dim=-1), k.split(CHANNELS, dim=-1), strict=True):
        some = (some_q[..., :, None, :] - some_k[..., None, :, :]).square().sum(-1)  # ONNX has no cdist
        squares = some if squares is None else squares + some
    assert squares is not None  # there is at least one channel
    return squares * -scale


def _softmax(
    scores: Float[Tensor, "*batch n_q n_k"], seen: Bool[Tensor, "*#batch #n_q n_k"]
) -> Float[Tensor, "*batch n_q n_k"]:
    """Softmax over the keys that are seen; zeros where there are none."""
    nothing = ~seen.any(-1, keepdim=True)
    return scores.masked_fill(~(seen | nothing), -torch.inf).softmax(-1).masked_fill(~seen, 0)


def _weigh(
    weights: Float[Tensor, "b h m s r"], v: Float[Tensor, "b h m r c_v"], seen: Bool[Tensor, "b h m #s r"]
) -> Float[Tensor, "b h m s c_v"]:
    """V · weights, in which a value that a query does not see counts for nothing, were it not a number."""
    if seen.shape[-2] == 1:
        return weights @ v.masked_fill(~seen.mT, 0)
    bad = ~v.isfinite()
    spoilt = seen.to(v.dtype) @ bad.to(v.dtype) > 0
    return (weights @ v.masked_fill(bad, 0)).masked_fill(spoilt, torch.nan)


def _named(candidates: Int[Tensor, "b h m r"], keys: int) -> Bool[Tensor, "b h m n_k"]:
    """Whether a coarse key is a candidate; what names none goes to a column of its own."""
    column = torch.where(candidates >= 0, candidates, keys)
    named = torch.zeros(*candidates.shape[:3], keys + 1, device=candidates.device)
    return named.scatter(-1, column, 1.0)[..., :keys] > 0


def _most_relevant(
    sums: Float[Tensor, "b h m n_k"], seen: Bool[Tensor, "b h m n_k"], kappa: int
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """R_κ; −1 where fewer are seen, −2 where a sum is not a number. Of equal ones ONNX takes the lower index."""
    unknown = sums.isnan() & seen
    ranked, index = sums.masked_fill(sums.isnan(), 0).masked_fill(~seen, -1).topk(kappa, dim=-1)
    index = index.masked_fill(ranked < 0, -1).masked_fill(unknown.any(-1, keepdim=True), -2)
    return index, ranked
