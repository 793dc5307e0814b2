"""Coarse elements of all processes, brought together in the order that they have in the layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.distributed.peers import Peers


@dataclass(frozen=True, eq=False)
class Together:
    """Who holds which of n coarse elements.

    Attributes:
        owner: (n,) the process that holds each element.
        slot: (n,) its number there.
        most: the most that any process holds; the others fill up to it, since all send alike.
    """

    owner: Int[Tensor, " n"]
    slot: Int[Tensor, " n"]
    most: int

    @classmethod
    def of(cls, owner: Int[Tensor, " n"], processes: int) -> Together:
        """From the owner of each element; every process numbers its own on from the first.

        Example:
            >>> Together.of(torch.tensor([1, 0, 1]), 2).slot.tolist()
            [0, 0, 1]
        """
        slot = torch.empty_like(owner)
        counts = owner.bincount(minlength=processes)
        order = owner.argsort(stable=True)
        slot[order] = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner[order]]
        return cls(owner, slot, int(counts.max()))

    def gather(self, x: Float[Tensor, "b h own c"], peers: Peers) -> Float[Tensor, "b h n c"]:
        """All of them, from one's own."""
        rows = x.movedim(2, 0)
        padded = rows.new_zeros(self.most, *rows.shape[1:])
        padded[: len(rows)] = rows
        everything = peers.gather(padded).flatten(0, 1)
        return everything.index_select(0, self.owner * self.most + self.slot).movedim(0, 2)
