"""Phase 1 around what a backend ranks: levels above, always-on keys beside, which keys are masked, and how it ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias, coarse_bias, hide
from gpa_nd.engine.choice import writes_onnx
from gpa_nd.engine.precision import wide
from gpa_nd.engine.rankings import Spread, as_long_as_keys
from gpa_nd.engine.rules import Rule
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

CANDIDATES = 3  # times κ, among which ``ranking="rerank"`` looks a second time


Pool = Callable[[Tensor, Partition], Tensor]
"""A backend's :meth:`~gpa_nd.Partition.mean`."""

Ranked = tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h m kappa"] | None]
"""The best coarse keys of each cell; and their sums of the softmax, if these were asked for."""


@dataclass(frozen=True)
class Phase1Steps:
    """What a backend does of Phase 1.

    Attributes:
        pool: x (B, H, n, c) and a partition → (B, H, n', c), :meth:`.Partition.mean`.
        rank: q, k, layout, κ, the bias of coarse keys, candidates (B, H, m, r) of each cell, and the spread of groups,
            or None; and whether sums are wanted → the κ best coarse keys of each cell.
        rank_by_members: q, k, layout, κ, what is added to the affinities of each key (B, H_k, n_k), or None, candidates
            (B, H, m, r), and whether sums are wanted → the κ best candidates, by the sum of the softmax over all keys
            under candidates; of equal ones, the first.
    """

    pool: Pool
    rank: Callable[[Tensor, Tensor, Layout, int, CoarseBias | None, Tensor | None, Spread | None, bool], Ranked]
    rank_by_members: Callable[[Tensor, Tensor, Layout, int, Tensor | None, Tensor, bool], Ranked]


@dataclass(frozen=True)
class Keys:
    """Keys, and how they are pooled.

    Attributes:
        k: (B, H_k, n_k, c) keys, zero where they are masked.
        bias: (B, H_k, n_k) what is added to the affinities of each key, −∞ where it is masked.
        backend: what pools.
    """

    k: Tensor
    bias: Tensor | None
    backend: Phase1Steps

    def pooled(self, groups: Partition) -> KeyGroups:
        """Means over the visible keys of each group."""
        coarse = None if self.bias is None else coarse_bias(self.bias, groups)
        return KeyGroups(self, groups, coarse)


@dataclass(frozen=True)
class KeyGroups:
    """Groups of keys.

    Attributes:
        keys: what is in the groups.
        groups: which keys are in each group.
        coarse: what is added to the affinities of each group.
    """

    keys: Keys
    groups: Partition
    coarse: CoarseBias | None

    def means(self) -> Float[Tensor, "b h_k n_k_low c"]:
        """Of visible keys; zero where there is none."""
        return self._mean(self.keys.k)

    def squares(self) -> Float[Tensor, "b h_k n_k_low"]:
        """Means of the squared lengths of visible keys."""
        k = self.keys.k.to(wide(self.keys.k.dtype))
        return self._mean(k.square().sum(-1, keepdim=True))[..., 0]

    def spread(self, means: Float[Tensor, "b h_k n_k_low c"]) -> Spread:
        """How much visible keys differ from their means; not at all where they are no numbers."""
        k = self.keys.k.to(wide(self.keys.k.dtype))
        group = self.groups.traced_labels()
        exact = means if means.dtype == k.dtype else self._mean(k)  # rounded ones would count as a difference
        away = (k - exact.index_select(2, group)).square().sum(-1, keepdim=True)
        if self.keys.bias is not None:
            away = away.masked_fill(self.keys.bias.isneginf()[..., None], 0)
        deviation = (self._mean(away)[..., 0] / k.shape[-1]).sqrt().nan_to_num(0, 0)
        return Spread(deviation, self.sizes().clamp_min(1).log().expand(deviation.shape))

    def sizes(self) -> Float[Tensor, "*b_h_k n_k_low"]:
        """How many visible keys there are in each group; where there is none, how many it has."""
        sizes = self.groups.offsets.diff().to(wide(self.keys.k.dtype))
        return sizes if self.coarse is None else sizes * self.coarse.share

    def added(self) -> CoarseBias | None:
        """What is added to affinities of keys that are pooled already."""
        return None if self.coarse is None else CoarseBias(self.coarse.added, torch.ones_like(self.coarse.share))

    @property
    def single(self) -> bool:
        """Whether every group is one key."""
        return len(self.groups) == self.groups.num_elements

    def _mean(self, x: Tensor) -> Tensor:
        low = pool(self.keys.backend, x, self.groups)
        if self.coarse is None:
            return low
        return (low / self.coarse.share[..., None]).to(x.dtype)


class Queries:
    """Queries pooled over what the rankings compare, each when it is first asked for."""

    def __init__(self, q: Tensor, layout: Layout, backend: Phase1Steps) -> None:
        self.q, self.layout, self.backend = q, layout, backend
        self._groups: Tensor | None = None  # not a cached property, whose lock a compiler cannot trace
        self._parts: Tensor | None = None

    @property
    def groups(self) -> Float[Tensor, "b h n_q_low c"]:
        """Means of groups."""
        if self._groups is None:
            self._groups = pool(self.backend, self.q, self.layout.query_groups)
        return self._groups

    @property
    def parts(self) -> Float[Tensor, "b h parts c"]:
        """Means of parts of groups."""
        if self._parts is None:
            assert self.layout.query_parts is not None
            self._parts = pool(self.backend, self.q, self.layout.query_parts)
        return self._parts


def select(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    backend: Phase1Steps,
) -> Int[Tensor, "b h m chosen"]:
    """The relevant coarse keys of every cell: those that are ranked best, then those that are always on.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom, and the levels above.
        rules: how each level selects, finest first.
        bias: (B, H_k, n_k) what is added to the affinities of each key, −∞ where it is masked.
        backend: what pools and ranks.
    """
    q, k, bias = q.detach(), k.detach(), None if bias is None else bias.detach()
    keys, rule = Keys(hide(k, bias), bias, backend), rules[0]
    groups = keys.pooled(layout.key_groups)
    if rule.ranking == "mean" and layout.coarser is None:
        wanted = rule.kappa + layout.contested
        ranked = backend.rank(q, keys.k, layout, wanted, groups.coarse, None, None, rule.mass is not None)
        chosen = kept_keys(*ranked, layout.rankers, layout, rule)
    else:
        queries = Queries(q, layout, backend)
        candidates, spoilt = None, None
        k_low = groups.means()
        if layout.coarser is not None and layout.parents is not None and layout.children is not None:
            added = None if groups.coarse is None else groups.coarse.added
            above = select(queries.groups, k_low, layout.coarser, rules[1:], added, backend)
            above = above.index_select(2, layout.parents)
            spoilt = (above == -2).any(-1, keepdim=True)
            candidates = torch.where(above[..., None] >= 0, layout.children[above.clamp_min(0)], -1).flatten(-2)
        if rule.ranking == "rerank" and (rule.kappa < layout.most_visible or rule.mass is not None):
            chosen = _twice_ranked(queries, k_low, groups, layout, candidates, rule)
        else:
            chosen = _ranked(queries, k_low, groups, layout, candidates, rule)
        if spoilt is not None:
            chosen = chosen.masked_fill(spoilt, -2)
    return chosen if layout.always is None else torch.cat([chosen, always_on(chosen, layout.always)], dim=-1)


def _ranked(
    queries: Queries, k_low: Tensor, groups: KeyGroups, layout: Layout, candidates: Tensor | None, rule: Rule
) -> Int[Tensor, "b h m kappa"]:
    """The best of pooled keys that are not always on."""
    spread, over, wanted = None, layout.pooled or layout, rule.kappa + layout.contested
    if rule.ranking == "moments":
        spread = groups.spread(k_low)
    elif rule.ranking == "rms":
        k_low = as_long_as_keys(k_low, groups.squares())
    ranked = groups.keys.backend.rank(
        *(queries.groups, k_low, over, wanted, groups.added(), candidates, spread, rule.mass is not None)
    )
    return kept_keys(*ranked, over.rankers, layout, rule)


def _twice_ranked(
    queries: Queries, k_low: Tensor, groups: KeyGroups, layout: Layout, candidates: Tensor | None, rule: Rule
) -> Int[Tensor, "b h m kappa"]:
    """The best that are not always on, of candidates: parts of queries against parts of keys.

    A part counts as often as it has visible keys.
    """
    first, second, keys = layout.first_look, layout.second_look, groups.keys
    assert first is not None
    assert second is not None
    assert layout.key_parts is not None
    parts, longer = keys.pooled(layout.key_parts), rule.affinity == "dot"
    k_low = as_long_as_keys(k_low, groups.squares()) if longer else k_low
    k_parts = as_long_as_keys(parts.means(), parts.squares()) if longer and not parts.single else parts.means()
    q_first = queries.parts if layout.by_parts else queries.groups
    many = Rule(CANDIDATES * rule.kappa, rule.ranking, None, rule.affinity)
    ranked = keys.backend.rank(
        *(q_first, k_low, first, many.kappa + layout.contested, groups.added(), candidates, None, False)
    )
    candidates = kept_keys(*ranked, first.rankers, layout, many)
    added = None
    if parts.coarse is not None:
        added = parts.coarse.added + parts.sizes().log()
    elif not parts.groups.uniform:
        added = parts.sizes().log().expand(k_parts.shape[:3])
    ranked = keys.backend.rank_by_members(
        *(queries.parts, k_parts, second, rule.kappa, added, candidates, rule.mass is not None)
    )
    chosen = kept_keys(*ranked, second.rankers, None, rule)
    return chosen.masked_fill((candidates == -2).any(-1, keepdim=True), -2)


def kept_keys(
    chosen: Tensor, sums: Tensor | None, rankers: Partition, layout: Layout | None, rule: Rule
) -> Int[Tensor, "b h m kappa"]:
    """The first κ that are not always on, in their order, and −1 after them; a row of −2 stays.

    Where a mass is asked for, none after those that hold it, with what is always on where it is among the best.
    """
    if rule.mass is not None:
        assert sums is not None
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


def pool(backend: Phase1Steps, x: Float[Tensor, "b h n c"], groups: Partition) -> Float[Tensor, "b h n_low c"]:
    """Means; of single elements, these themselves."""
    return x.index_select(2, groups.order) if len(groups) == groups.num_elements else backend.pool(x, groups)


def always_on(chosen: Tensor, always: Tensor) -> Tensor:
    """The coarse keys that are always on, for every batch entry and head; −2 in cells that could not be ranked."""
    shape = (*chosen.shape[:-1], always.shape[1])
    return always.expand(shape).masked_fill((chosen == -2).any(-1, keepdim=True), -2)
