"""Phase 1 around what a backend ranks: levels above, always-on keys beside, and which keys are masked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias, coarse_bias, hide
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

Rank = Callable[[Tensor, Tensor, Layout, int, "CoarseBias | None", "Tensor | None"], Tensor]
"""A backend's selection: q, k, layout, κ, the bias of coarse keys, and the candidates of each cell."""

Pool = Callable[[Tensor, Partition], Tensor]
"""A backend's :meth:`~gpa_nd.Partition.mean`."""


def select(
    q: Tensor, k: Tensor, layout: Layout, kappas: tuple[int, ...], bias: Tensor | None, rank: Rank, pool: Pool
) -> Int[Tensor, "b h m chosen"]:
    """The relevant coarse keys of every cell: those that are ranked best, then those that are always on.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom, and the levels above.
        kappas: how many coarse keys to select at each level, finest first.
        bias: (B, H_k, n_k) what is added to the affinities of each key, −∞ where it is masked.
        rank: the backend's.
        pool: the backend's.
    """
    q, k, bias = q.detach(), k.detach(), None if bias is None else bias.detach()
    k = hide(k, bias)
    coarse = None if bias is None else coarse_bias(bias, layout.key_groups)
    candidates, spoilt = None, None
    if layout.coarser is not None and layout.parents is not None and layout.children is not None:
        q_low, k_low = pool(q, layout.query_groups), pool(k, layout.key_groups)
        if coarse is not None:
            k_low = (k_low / coarse.share[..., None]).to(k.dtype)
        above = select(q_low, k_low, layout.coarser, kappas[1:], None if coarse is None else coarse.added, rank, pool)
        above = above.index_select(2, layout.parents)
        spoilt = (above == -2).any(-1, keepdim=True)
        candidates = torch.where(above[..., None] >= 0, layout.children[above.clamp_min(0)], -1).flatten(-2)
    chosen = rank(q, k, layout, kappas[0] + layout.contested, coarse, candidates)
    if layout.always is not None:
        if layout.contested:  # what is always on takes no place among the κ
            chosen = _without(chosen, layout.always)[..., : min(kappas[0], len(layout.key_groups))]
        chosen = torch.cat([chosen, _always_on(chosen, layout.always)], dim=-1)
    if spoilt is not None:
        chosen = chosen.masked_fill(spoilt, -2)
    return chosen


def _without(chosen: Tensor, always: Tensor) -> Tensor:
    """The coarse keys that are not always on, in their order, and −1 after them; a row of −2 stays."""
    ordered = always.sort(dim=-1).values.expand(*chosen.shape[:3], -1).contiguous()
    place = torch.searchsorted(ordered, chosen.contiguous()).clamp_max(always.shape[1] - 1)
    there = (ordered.gather(-1, place) == chosen) & (chosen >= 0)
    kept = chosen.masked_fill(there, -1)
    return kept.gather(-1, there.int().argsort(dim=-1, stable=True))


def _always_on(chosen: Tensor, always: Tensor) -> Tensor:
    """The coarse keys that are always on, for every batch entry and head; −2 in cells that could not be ranked."""
    shape = (*chosen.shape[:-1], always.shape[1])
    return always.expand(shape).masked_fill((chosen == -2).any(-1, keepdim=True), -2)
