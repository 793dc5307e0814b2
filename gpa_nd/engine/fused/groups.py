"""Groups of elements as the kernels read them: cells with their queries, coarse keys with their members."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gpa_nd.engine.fused.lists import Lists
from gpa_nd.engine.fused.tables import owners, slots_of

LEAST_ROWS = 16  # of a tile


@dataclass(frozen=True)
class Groups:
    """The tensors of a :class:`gpa_nd.Partition`, perhaps with several neighbouring groups packed into one.

    Attributes:
        order: (n,) elements, group after group.
        offsets: (m + 1,) where each group starts in ``order``.
        largest: the size of the largest group.
        packed: the size of each of the groups that were packed; 0 where none were.
    """

    order: Tensor
    offsets: Tensor
    largest: int
    packed: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """The size that all groups have; 0 if they differ."""
        return self.largest if self.largest * len(self) == len(self.order) else 0

    @property
    def offsets_if_ragged(self) -> Tensor | None:
        """The offsets, where sizes differ; where they do not, no kernel needs to read them."""
        return None if self.size else self.offsets

    @property
    def typical(self) -> int:
        """The size that a tile is made for: the largest, but not if most are far smaller."""
        return min(self.largest, -(-2 * len(self.order) // len(self)))

    @property
    def packable(self) -> int:
        """How many neighbours share a tile of 16 rows: as many as fit and divide their number; 1 if sizes differ.

        Example:
            >>> import torch
            >>> Groups(torch.arange(48), torch.arange(0, 49, 4), 4).packable
            4
            >>> Groups(torch.arange(20), torch.arange(0, 21, 4), 4).packable  # 5 groups
            1
        """
        if not self.size:
            return 1
        return max(pack for pack in range(1, max(1, LEAST_ROWS // self.size) + 1) if len(self) % pack == 0)

    def pack(self, pack: int) -> Groups:
        """Every ``pack`` neighbours as one group."""
        if pack == 1:
            return self
        return Groups(self.order, self.offsets[::pack].contiguous(), self.largest * pack, self.size)

    def tiles(self, rows: int) -> tuple[int, Tensor]:
        """How many tiles there are, and the group of each; that table is read only where groups differ in size."""
        count = slots_of(len(self), len(self.order), self.largest, rows)
        return count, self.offsets if self.size else owners(self.offsets, len(self.order), self.largest, rows)

    def shares(self, rows: int, lists: Lists, per_slot: int) -> tuple[int, Tensor]:
        """How many slots there are for tiles and for the shares of their lists, and the group of each slot."""
        sizes = len(self.order), self.largest, rows
        slots = slots_of(len(self), *sizes, lists.length, per_slot)
        return slots, owners(self.offsets, *sizes, lists.offsets, lists.length, per_slot)
