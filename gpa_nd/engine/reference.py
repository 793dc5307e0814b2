"""Algorithm 1, line by line, in plain PyTorch with plain autograd: what "correct" means."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.fill import Rest
from gpa_nd.engine.rankings import Spread, gain, length
from gpa_nd.layout import Layout


@torch.no_grad()
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
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """Phase 1: finding relevant keys at the low resolution."""
    q_low, k_low = layout.query_groups.mean(q), pooled_keys(k, layout, bias)  # line 5
    seen = visible(layout, candidates).expand(*q.shape[:2], -1, -1)
    scores = affinities(not_finite_to_nan(q_low), not_finite_to_nan(for_query_heads(k_low, q)), scale, affinity)
    if bias is not None:
        added = for_query_heads(bias.added, q)[:, :, None]
        scores, seen = scores + added, seen & ~added.isneginf()
    if spread is not None:
        lengths = length(not_finite_to_nan(q_low).to(scores.dtype) * scale)
        scores = scores + gain(lengths, *(for_query_heads(x[..., None], q).mT for x in spread.tensors()))
    return most_relevant(cell_sums(scores, seen, layout), seen, kappa)  # lines 9–11


@torch.no_grad()
def select_by_members(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    kappa: int,
    scale: float,
    affinity: str,
    added: Tensor | None,
    candidates: Tensor,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """Phase 1 among candidates, of which each is ranked by its keys themselves instead of their mean.

    Of equal ones, the candidate that comes first is the better.
    """
    scores = affinities(not_finite_to_nan(q), not_finite_to_nan(for_query_heads(k, q)), scale, affinity)
    seen = visible(layout, candidates).expand(*q.shape[:2], -1, -1)[..., layout.key_groups.labels]
    if added is not None:
        added = for_query_heads(added[..., None], q).mT
        scores, seen = scores + added, seen & ~added.isneginf()
    sums = cell_sums(scores, seen, layout)
    sums = torch.stack([x.sum(-2) for x in layout.key_groups.split(sums.mT)], dim=-1)
    seen = torch.stack([x.any(-2) for x in layout.key_groups.split(seen.mT)], dim=-1)
    named = candidates.clamp_min(0)  # of equal ones, the first
    place, best = most_relevant(sums.gather(-1, named), seen.gather(-1, named) & (candidates >= 0), kappa)
    chosen = torch.where(place >= 0, candidates.gather(-1, place.clamp_min(0)), place)
    missing = min(kappa, len(layout.key_groups)) - chosen.shape[-1]
    return torch.nn.functional.pad(chosen, (0, missing), value=-1), torch.nn.functional.pad(best, (0, missing))


def cell_sums(scores: Tensor, seen: Tensor, layout: Layout) -> Float[Tensor, "b h m n_k"]:
    """Sums of the softmax over the coarse queries that rank for each cell."""
    cells = layout.query_cells.split(scores)  # lines 7–8
    ranked_by = range(len(cells)) if layout.ranked_by is None else layout.ranked_by.tolist()
    a_cells = [softmax(cells[by], seen[:, :, cell, None]) for cell, by in enumerate(ranked_by)]  # line 6
    # Along contiguous rows, which are all added up in the same order: equal keys then have equal sums.
    return torch.stack([a_cell.mT.contiguous().sum(-1) for a_cell in a_cells], dim=-2)


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
    rest: Rest | None = None,
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2: using the relevant keys for approximate attention at the original resolution."""
    k, v = for_query_heads(k, q), for_query_heads(v, q)
    x_cells = []
    for cell, q_cell in enumerate(layout.fine_cells.split(q)):  # lines 13–14
        chosen = relevant[:, :, cell]
        index = torch.where(chosen[..., None] >= 0, layout.members.table[chosen.clamp_min(0)], -1)  # line 15
        k_cell, v_cell = gather(k, index.flatten(-2)), gather(v, index.flatten(-2))  # line 16
        scores, seen = affinities(q_cell, k_cell, scale, affinity), (index >= 0).flatten(-2)[:, :, None]
        if logits is not None:
            scores = scores + logits[:, :, cell, :, None].expand(index.shape).flatten(-2)[:, :, None]
        if bias is not None:
            added = gather(for_query_heads(bias, q)[..., None], index.flatten(-2)).mT
            scores, seen = scores + added.masked_fill(added.isneginf(), 0), seen & ~added.isneginf()
        if layout.positions is not None:
            seen = seen & not_later(*layout.positions, layout, cell, index.flatten(-2))
        if rest is not None and rest.keys.added is not None:  # one pooled key for each group that was not selected
            unselected = rest.unselected(torch.tensor([cell], device=q.device))
            scores_of_rest = affinities(q_cell.to(rest.keys.k.dtype), rest.keys.k, scale, affinity)
            scores = torch.cat([scores, scores_of_rest + rest.added[:, :, None]], dim=-1)
            both = torch.broadcast_tensors(seen[..., :1], unselected[..., :1])
            seen = torch.cat([x.expand(*both[0].shape[:3], -1) for x in (seen, unselected)], dim=-1)
            v_cell = torch.cat([v_cell.to(rest.keys.v.dtype), rest.keys.v], dim=-2)
        x_cell = weigh(softmax(scores, seen), v_cell, seen)  # line 17
        x_cells.append(x_cell.masked_fill((chosen == -2).any(-1)[..., None, None], torch.nan).to(q.dtype))
    return layout.fine_cells.join(x_cells)  # line 19


def affinities(q: Tensor, k: Tensor, scale: float, affinity: str) -> Float[Tensor, "b h n_q n_k"]:
    """The logits Q Kᵀ · scale, or −|q − k|² · scale; float16 and bfloat16 are computed in float32."""
    q, k = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (q, k))
    if affinity == "dot":
        return q @ k.mT * scale
    return torch.stack([(row[..., None, :] - k).square().sum(-1) for row in q.unbind(-2)], dim=-2) * -scale


def softmax(scores: Tensor, seen: Tensor) -> Float[Tensor, "b h n_q n_k"]:
    """Softmax over the keys that are seen; zeros where there are none."""
    nothing = ~seen.any(-1, keepdim=True)
    return scores.masked_fill(~(seen | nothing), -torch.inf).softmax(-1).masked_fill(~seen, 0)


def weigh(weights: Tensor, v: Tensor, seen: Tensor) -> Float[Tensor, "b h n_q c_v"]:
    """V · weights, in which a value that a query does not see counts for nothing, were it not a number."""
    v = v.to(weights.dtype)
    if seen.shape[-2] == 1:
        return weights @ v.masked_fill(~seen.mT, 0)
    return (weights[..., None] * torch.where(seen[..., None], v[..., None, :, :], 0)).sum(-2)


def not_later(
    of_queries: Tensor, of_keys: Tensor, layout: Layout, cell: int, index: Tensor
) -> Bool[Tensor, "b h n_q r"]:
    """Whether a key is later than a query of the cell on no axis."""
    return (of_keys[index][:, :, None] <= layout.fine_cells.split(of_queries)[cell][:, None]).all(-1)


def pooled_keys(k: Tensor, layout: Layout, bias: CoarseBias | None) -> Float[Tensor, "b h_k n_k c"]:
    """Means over the keys that are visible; the masked ones are zero."""
    if bias is None:
        return layout.key_groups.mean(k)
    return (layout.key_groups.mean(k.to(bias.share.dtype)) / bias.share[..., None]).to(k.dtype)


def for_query_heads(x: Tensor, q: Tensor) -> Float[Tensor, "b h n *c"]:
    """Keys or values for every head of the queries; neighbouring heads may share them."""
    return x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def visible(layout: Layout, candidates: Tensor | None) -> Bool[Tensor, "*b_h m n_k"]:
    """Whether a cell may select a coarse key."""
    keys = torch.arange(len(layout.key_groups), device=layout.device)
    seen = torch.ones(len(layout.query_cells), len(keys), dtype=torch.bool, device=layout.device)
    if layout.key_ranges is not None:
        seen = (layout.key_ranges[:, :1] <= keys) & (keys < layout.key_ranges[:, 1:])
    if layout.coarse_positions is not None:
        of_cells, of_keys = layout.coarse_positions
        seen = seen & (of_keys <= of_cells[:, None]).all(-1)
    if candidates is not None:
        seen = seen & (candidates[..., None] == keys).any(-2)
    return seen


def most_relevant(
    sums: Tensor, seen: Tensor, kappa: int
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"]]:
    """R_κ: the κ largest sums, ties to the lower index; −1 where fewer are seen, −2 where a sum is not a number."""
    ranked, index = sums.masked_fill(~seen, -1).sort(dim=-1, descending=True, stable=True)
    index = index.masked_fill(ranked < 0, -1)
    index = index.masked_fill((sums.isnan() & seen).any(-1, keepdim=True), -2)
    return index[..., :kappa], ranked[..., :kappa]


def gather(x: Tensor, index: Tensor) -> Float[Tensor, "b h r c"]:
    """Rows of x by an index of its own for each batch entry and head; zeros where the index is −1."""
    rows = x.gather(-2, index.clamp_min(0)[..., None].expand(*index.shape, x.shape[-1]))
    return rows.masked_fill((index < 0)[..., None], 0)


def not_finite_to_nan(x: Tensor) -> Tensor:
    """Infinity to NaN, so that whatever an element that is not finite takes part in cannot be ranked."""
    return x.masked_fill(~x.isfinite(), torch.nan)
