"""One's own groups, of which means are computed as one process computes those of all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.partition import Partition


@dataclass(frozen=True, eq=False)
class Pooled:
    """One's own elements in groups.

    In which order a backend adds up a group depends on the sizes of others: groups of one size are pooled otherwise
    than groups of several. Yet groups that are alike in two processes shall tie. So where sizes differ in the whole,
    zeros stand behind one's own elements, in one group of each size that there is.

    Attributes:
        groups: one's own, and after them those of zeros.
        own: how many are one's own.
        zeros: how many elements are zeros.
    """

    groups: Partition
    own: int
    zeros: int

    @classmethod
    def of(cls, whole: Partition, elements: Int[Tensor, " n_own"]) -> Pooled:
        """The groups of the whole that lie in these elements, by their places among them.

        Example:
            >>> Pooled.of(Partition.from_labels(torch.tensor([0, 0, 1])), torch.tensor([2])).groups
            Partition(4 elements, 3 cells of 1 … 2)
        """
        groups, zeros = part_of(whole, elements), 0
        own = len(groups)
        if not whole.uniform:
            sizes = whole.host_offsets.diff().unique()
            of_zeros = Partition.from_labels(torch.arange(len(sizes)).repeat_interleave(sizes))
            groups, zeros = Partition.concat([groups, of_zeros]), of_zeros.num_elements
        return cls(groups, own, zeros)

    def with_zeros(self, x: Float[Tensor, "b h n_own *c"]) -> Float[Tensor, "b h n *c"]:
        """One's own elements, and zeros behind them."""
        return torch.cat([x, x.new_zeros(*x.shape[:2], self.zeros, *x.shape[3:])], dim=2) if self.zeros else x


def part_of(part: Partition, elements: Int[Tensor, " n_own"]) -> Partition:
    """Those of its cells that lie in these elements, by their places among them.

    Example:
        >>> part_of(Partition.from_labels(torch.tensor([0, 1, 0, 2])), torch.tensor([1, 3])).labels.tolist()
        [0, 1]
    """
    return Partition.from_labels(part.labels[elements].unique(return_inverse=True)[1])
