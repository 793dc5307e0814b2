"""The best of coarse keys, as a backend ranks them: by their means, then perhaps by their parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.choice import writes_onnx
from gpa_nd.engine.rankings import Spread
from gpa_nd.engine.rules import Rule
from gpa_nd.engine.steps import Phase1Steps
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition


@dataclass(frozen=True)
class Compared:
    """Coarse keys as a ranking takes them.

    Attributes:
        k: (B, H_k, n_k', c) means of keys, which the ranking may have made longer.
        added: (B, H_k, n_k') what is added to the affinities of each; None for nothing.
        spread: how much the keys of a group differ, for ``ranking="moments"``.
    """

    k: Float[Tensor, "b h_k n_k_low c"]
    added: Float[Tensor, "b h_k n_k_low"] | None
    spread: Spread | None

    def best(
        self,
        q: Float[Tensor, "b h n_q_low c"],
        over: Layout,
        layout: Layout,
        candidates: Int[Tensor, "b h m r"] | None,
        rule: Rule,
        backend: Phase1Steps,
    ) -> Int[Tensor, "b h m kappa"]:
        """The best that are not always on.

        Args:
            q: (B, H, n_q', c) pooled queries.
            over: whose elements these and the coarse keys are.
            layout: what tells what is always on.
            candidates: (B, H, m, r) what each cell chooses from; all by default.
            rule: how many, and which mass they shall hold.
            backend: what ranks.
        """
        ranked = backend.rank(
            q,
            self.k,
            over,
            kappa=rule.kappa + layout.contested,
            bias=None if self.added is None else CoarseBias(self.added, torch.ones_like(self.added)),
            candidates=candidates,
            spread=self.spread,
            wants_sums=rule.mass is not None,
        )
        return kept_keys(*ranked, over.rankers, layout, rule)


def ranked_again(
    q_parts: Float[Tensor, "b h parts c"],
    k_parts: Float[Tensor, "b h_k parts_of_keys c"],
    added: Float[Tensor, "b h_k parts_of_keys"] | None,
    layout: Layout,
    candidates: Int[Tensor, "b h m r"],
    rule: Rule,
    backend: Phase1Steps,
) -> Int[Tensor, "b h m kappa"]:
    """The best of candidates: parts of queries against parts of keys.

    Args:
        q_parts: (B, H, parts, c) means of parts of groups.
        k_parts: (B, H_k, parts, c) means of parts of groups.
        added: (B, H_k, parts) what is added to affinities, so that a part counts as often as it has visible keys.
        layout: cells over parts of queries, and coarse keys that are groups of parts.
        candidates: (B, H, m, r) what each cell chooses from; a row of −2 stays.
        rule: how many, and which mass they shall hold.
        backend: what ranks.
    """
    ranked = backend.rank_by_members(
        q_parts,
        k_parts,
        layout,
        kappa=rule.kappa,
        added=added,
        candidates=candidates,
        wants_sums=rule.mass is not None,
    )
    chosen = kept_keys(*ranked, layout.rankers, None, rule)
    return chosen.masked_fill((candidates == -2).any(-1, keepdim=True), -2)


def kept_keys(
    chosen: Int[Tensor, "b h m more"],
    sums: Float[Tensor, "b h _m _more"],
    rankers: Partition,
    layout: Layout | None,
    rule: Rule,
) -> Int[Tensor, "b h m kappa"]:
    """The first κ that are not always on, in their order, and −1 after them; a row of −2 stays.

    Where a mass is asked for, none after those that hold it, with what is always on where it is among the best.
    """
    if rule.mass is not None:
        share = sums / rankers.offsets.diff()[:, None]
        held = share.cumsum(-1) - share
        chosen = chosen.masked_fill((held >= rule.mass) & (chosen >= 0), -1)
    if layout is None or layout.always is None or not layout.contested:
        return chosen
    always = layout.always
    if writes_onnx():  # which has no search
        there = (chosen[..., None] == always[:, None]).any(-1) & (chosen >= 0)
    else:
        ordered = always.sort(dim=-1).values.expand(*chosen.shape[:3], -1).contiguous()
        place = torch.searchsorted(ordered, chosen.contiguous()).clamp_max(always.shape[1] - 1)
        there = (ordered.gather(-1, place) == chosen) & (chosen >= 0)
    kept = chosen.masked_fill(there, -1)
    last = torch.arange(kept.shape[-1], device=kept.device) + kept.shape[-1] * there  # a stable order, which ONNX lacks
    return kept.gather(-1, last.argsort(dim=-1))[..., : min(rule.kappa, len(layout.key_groups))]
