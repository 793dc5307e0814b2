"""What a backend does of Phase 1: it takes means, and ranks coarse keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.rankings import Spread
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

Pool = Callable[[Tensor, Partition], Tensor]
"""A backend's :meth:`~gpa_nd.Partition.mean`."""

Ranked = tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h _m _kappa"]]
"""The best coarse keys of each cell; and their sums of the softmax, if these were asked for."""


@runtime_checkable
class Rank(Protocol):
    """Lines 5–11: the best coarse keys of each cell, of keys that are pooled first."""

    def __call__(
        self,
        q: Float[Tensor, "b h n_q c"],
        k: Float[Tensor, "b h_k n_k c"],
        layout: Layout,
        *,
        kappa: int,
        bias: CoarseBias | None,
        candidates: Int[Tensor, "b h m r"] | None,
        spread: Spread | None,
        wants_sums: bool,
    ) -> Ranked:
        """Pool, and rank.

        Args:
            q: (B, H, n_q, c) queries.
            k: (B, H_k, n_k, c) keys, zero where they are masked.
            layout: who belongs to whom.
            kappa: how many coarse keys a cell keeps.
            bias: what is added to the affinities of coarse keys.
            candidates: (B, H, m, r) the coarse keys that each cell chooses from, −1 for none; all by default.
            spread: how much the keys of each group differ, for ``ranking="moments"``.
            wants_sums: whether the sums are used.
        """
        ...


@runtime_checkable
class RankByMembers(Protocol):
    """The best candidates of each cell, by the sum of the softmax over all keys under its candidates."""

    def __call__(
        self,
        q: Float[Tensor, "b h n_q c"],
        k: Float[Tensor, "b h_k n_k c"],
        layout: Layout,
        *,
        kappa: int,
        added: Float[Tensor, "b h_k n_k"] | None,
        candidates: Int[Tensor, "b h m r"],
        wants_sums: bool,
    ) -> Ranked:
        """Rank; of equal candidates, the first is the better.

        Args:
            q: (B, H, n_q, c) queries, or means of them.
            k: (B, H_k, n_k, c) keys, or means of them.
            layout: who belongs to whom.
            kappa: how many coarse keys a cell keeps.
            added: (B, H_k, n_k) what is added to the affinities of each key.
            candidates: (B, H, m, r) the coarse keys that each cell chooses from, −1 for none.
            wants_sums: whether the sums are used.
        """
        ...


@dataclass(frozen=True)
class Phase1Steps:
    """What a backend does of Phase 1.

    Attributes:
        pool: x (B, H, n, c) and a partition → (B, H, n', c), :meth:`.Partition.mean`.
        rank: the best coarse keys by their means.
        rank_by_members: the best candidates by their keys themselves.
    """

    pool: Pool
    rank: Rank
    rank_by_members: RankByMembers
