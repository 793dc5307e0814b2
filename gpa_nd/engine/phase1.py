"""Phase 1 around what a backend ranks: levels above, always-on keys beside, which keys are masked, and how it ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias, coarse_bias, hide
from gpa_nd.engine.compared import Compared, kept_keys, ranked_again
from gpa_nd.engine.precision import wide
from gpa_nd.engine.rankings import Spread, as_long_as_keys
from gpa_nd.engine.rules import Rule
from gpa_nd.engine.steps import Phase1Steps
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition


@dataclass(frozen=True)
class Keys:
    """Keys, and how they are pooled.

    Attributes:
        k: (B, H_k, n_k, c) keys, zero where they are masked.
        bias: (B, H_k, n_k) what is added to the affinities of each key, −∞ where it is masked.
        backend: what pools.
    """

    k: Float[Tensor, "b h_k n_k c"]
    bias: Float[Tensor, "b h_k n_k"] | None
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

    def counted(self, uneven: bool) -> Float[Tensor, "b h_k n_k_low"] | None:
        """What is added to affinities so that a group counts as often as it has visible keys; None if all alike do.

        Args:
            uneven: whether there are groups of several sizes.
        """
        if self.coarse is not None:
            return self.coarse.added + self.sizes().log()
        return self.sizes().log().expand(*self.keys.k.shape[:2], -1) if uneven else None

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

    def __init__(self, q: Float[Tensor, "b h n_q c"], layout: Layout, backend: Phase1Steps) -> None:
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
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Float[Tensor, "b h_k n_k"] | None,
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
        ranked = backend.rank(
            q,
            keys.k,
            layout,
            kappa=rule.kappa + layout.contested,
            bias=groups.coarse,
            candidates=None,
            spread=None,
            wants_sums=rule.mass is not None,
        )
        return with_always(kept_keys(*ranked, layout.rankers, layout, rule), layout)
    queries, candidates, spoilt = Queries(q, layout, backend), None, None
    means, added = groups.means(), None if groups.coarse is None else groups.coarse.added
    if layout.coarser is not None and layout.parents is not None and layout.children is not None:
        above = select(queries.groups, means, layout.coarser, rules[1:], added, backend)
        candidates, spoilt = children_of(above.index_select(2, layout.parents), layout.children)
    twice = rule.looks_twice(layout.most_visible)
    longer = as_long_as_keys(means, groups.squares()) if rule.lengthens(twice) else means
    compared = Compared(longer, added, groups.spread(means) if rule.ranking == "moments" else None)
    if twice:
        chosen = _twice_ranked(queries, keys, compared, candidates, rule)
    else:
        chosen = compared.best(queries.groups, layout.pooled or layout, layout, candidates, rule, backend)
    if spoilt is not None:
        chosen = chosen.masked_fill(spoilt, -2)
    return with_always(chosen, layout)


def _twice_ranked(
    queries: Queries, keys: Keys, compared: Compared, candidates: Int[Tensor, "b h m r"] | None, rule: Rule
) -> Int[Tensor, "b h m kappa"]:
    """The best that are not always on, of candidates: parts of queries against parts of keys."""
    layout, backend = queries.layout, queries.backend
    assert layout.first_look is not None
    assert layout.second_look is not None
    assert layout.key_parts is not None
    q_first = queries.parts if layout.by_parts else queries.groups
    first = compared.best(q_first, layout.first_look, layout, candidates, rule.first_look(), backend)
    parts = keys.pooled(layout.key_parts)
    k_parts = parts.means()
    if rule.affinity == "dot" and not parts.single:
        k_parts = as_long_as_keys(k_parts, parts.squares())
    added = parts.counted(not parts.groups.uniform)
    return ranked_again(queries.parts, k_parts, added, layout.second_look, first, rule, backend)


def children_of(
    above: Int[Tensor, "b h m chosen"], children: Int[Tensor, "n_k_above most"]
) -> tuple[Int[Tensor, "b h m r"], Bool[Tensor, "b h m 1"]]:
    """The coarse keys under what the level above chose, and which cells it could not rank.

    Example:
        >>> children_of(torch.tensor([[[[2, -1]]]]), torch.tensor([[0, 1], [2, 3], [4, -1]]))[0].tolist()
        [[[[4, -1, -1, -1]]]]
    """
    named = torch.where(above[..., None] >= 0, children[above.clamp_min(0)], -1).flatten(-2)
    return named, (above == -2).any(-1, keepdim=True)


def pool(backend: Phase1Steps, x: Float[Tensor, "b h n c"], groups: Partition) -> Float[Tensor, "b h n_low c"]:
    """Means; of single elements, these themselves."""
    return x.index_select(2, groups.order) if len(groups) == groups.num_elements else backend.pool(x, groups)


def with_always(chosen: Int[Tensor, "b h m kappa"], layout: Layout) -> Int[Tensor, "b h m chosen"]:
    """After what was chosen, the coarse keys that are always on; −2 in cells that could not be ranked."""
    if layout.always is None:
        return chosen
    always = layout.always.expand(*chosen.shape[:-1], -1)
    return torch.cat([chosen, always.masked_fill((chosen == -2).any(-1, keepdim=True), -2)], dim=-1)
