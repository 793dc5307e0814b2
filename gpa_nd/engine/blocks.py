"""Blocks of cells: a partition taken a few cells at a time, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from gpa_nd.partition import Partition


@dataclass(frozen=True)
class Block:
    """Some cells of a partition, padded to the largest of them.

    Attributes:
        cells: (c,) their numbers.
        elements: (c, size) their elements; a shorter cell repeats its last one, so that what is computed there stays
            within the cell.
        real: (c, size) whether an element is there for the first time; None if all cells have this size.
    """

    cells: Int[Tensor, " c"]
    elements: Int[Tensor, "c size"]
    real: Bool[Tensor, "c size"] | None


class CellBlocks:
    """The cells of a partition, largest first, as many at a time as a limit allows, none less than half the largest.

    Args:
        partition: whose cells are meant.
        limit: how many numbers a block may hold; one of a single cell may hold more.
        per_element: how many there are for each element of a cell.
        per_cell: how many there are for each cell besides.
    """

    def __init__(self, partition: Partition, limit: int, per_element: int, per_cell: int = 0) -> None:
        self.partition = partition
        sizes, self.by_size = partition.host_offsets.diff().sort(descending=True, stable=True)
        self.spans: list[tuple[int, int, int]] = []
        start, ascending = 0, -sizes
        while start < len(partition):
            size = int(sizes[start])
            half_as_large = int(torch.searchsorted(ascending, -((size + 1) // 2), right=True))
            stop = min(half_as_large, start + max(1, limit // (size * per_element + per_cell)))
            self.spans.append((start, stop, size))
            start = stop

    def __iter__(self) -> Iterator[Block]:
        """The blocks, on the device of the partition."""
        part = self.partition
        by_size = self.by_size.to(part.order.device)
        for start, stop, size in self.spans:
            cells = by_size[start:stop]
            if part.uniform:
                yield Block(cells, part.order[start * size : stop * size].view(-1, size), None)
                continue
            place = torch.arange(size, device=cells.device)
            last = part.sizes[cells, None] - 1
            yield Block(cells, part.order[part.offsets[cells, None] + place.minimum(last)], place <= last)

    def join_cells(self, blocks: Sequence[Shaped[Tensor, "h _c r"]]) -> Shaped[Tensor, "h m r"]:
        """One row per cell, computed block by block, in the order of the cells."""
        rows = torch.cat(tuple(blocks), dim=1)
        return rows if self.partition.uniform else rows.index_select(1, self.by_size.argsort().to(rows.device))

    def join_elements(self, blocks: Sequence[Shaped[Tensor, "h _c _size d"]]) -> Shaped[Tensor, "h n d"]:
        """One row per element, computed block by block with the padding, in the order of the elements."""
        part = self.partition
        rows = torch.cat([block.flatten(1, 2) for block in blocks], dim=1)
        if part.uniform:
            return rows.index_select(1, part.inverse)
        starts, base = torch.empty(len(part), dtype=torch.int64), 0
        for start, stop, size in self.spans:
            starts[self.by_size[start:stop]] = base + torch.arange(stop - start) * size
            base += (stop - start) * size
        shift = starts.to(rows.device) - part.offsets[:-1]
        return rows.index_select(1, part.inverse + shift[part.labels])
