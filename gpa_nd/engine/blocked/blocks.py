"""Blocks of cells: a partition taken a few cells at a time, in memory that is used again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.partition import Partition


@dataclass(frozen=True)
class Block:
    """Some cells of a partition, each for some head, padded to the largest of them.

    Attributes:
        heads: (p,) whose cell it is.
        cells: (p,) the number of the cell.
        elements: (p, size) its elements; a shorter cell repeats its last one, so that what is computed there stays
            within the cell.
        real: (p, size) whether an element is there for the first time; None if all of the cells have this size.
    """

    heads: Int[Tensor, " p"]
    cells: Int[Tensor, " p"]
    elements: Int[Tensor, "p size"]
    real: Bool[Tensor, "p size"] | None


class CellBlocks:
    """The cells of a partition, largest first, as many at a time as a limit allows, none less than half the largest.

    Args:
        partition: whose cells are meant.
        limit: how many numbers a block may hold; one of a single cell may hold more.
        per_element: how many there are for each element of a cell.
        per_cell: how many there are for each cell besides.
        heads: how many heads have these cells; a cell is taken for one head after another.
        only: numbers of the cells that are wanted, on the CPU; all by default.
    """

    def __init__(
        self,
        partition: Partition,
        limit: int,
        per_element: int,
        per_cell: int = 0,
        heads: int = 1,
        only: Int[Tensor, " some"] | None = None,
    ) -> None:
        self.partition, self.heads = partition, heads
        sizes, device = partition.host_offsets.diff(), partition.order.device
        if only is not None:
            sizes, by_size = sizes[only].sort(descending=True, stable=True)
            self.by_size = only[by_size].to(device)
        elif partition.uniform:
            self.by_size = torch.arange(len(partition), device=device)
        else:
            sizes = sizes.sort(descending=True).values
            self.by_size = partition.sizes.sort(descending=True, stable=True).indices
        self.spans: list[tuple[int, int, int, bool]] = []
        start, ascending = 0, -sizes
        while start < len(sizes) * heads:
            size = int(sizes[start // heads])
            half_as_large = int(torch.searchsorted(ascending, -((size + 1) // 2), right=True)) * heads
            stop = min(half_as_large, start + max(1, limit // (size * per_element + per_cell)))
            self.spans.append((start, stop, size, int(sizes[(stop - 1) // heads]) == size))
            start = stop

    def __iter__(self) -> Iterator[Block]:
        """The blocks, on the device of the partition."""
        part = self.partition
        device = part.order.device
        all_cells = self.by_size.repeat_interleave(self.heads)
        all_heads = torch.arange(self.heads, device=device).repeat(len(self.by_size))
        for start, stop, size, alike in self.spans:
            heads, cells = all_heads[start:stop], all_cells[start:stop]
            if part.uniform:
                yield Block(heads, cells, part.table.index_select(0, cells), None)
                continue
            place, first = torch.arange(size, device=device), part.offsets[cells, None]
            if alike:
                yield Block(heads, cells, part.order[first + place], None)
                continue
            last = part.sizes[cells, None] - 1
            yield Block(heads, cells, part.order[first + place.minimum(last)], place <= last)


class Scratch:
    """Memory by name that one block takes over from another: fresh memory costs more than what is computed in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.memory: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor whose contents are whatever was there."""
        numel = torch.Size(shape).numel()
        if name not in self.memory or len(self.memory[name]) < numel:
            self.memory[name] = torch.empty(numel, dtype=dtype, device=self.device)
        return self.memory[name][:numel].view(*shape)


def softmax(scores: Tensor, scratch: Scratch) -> Tensor:
    """Softmax over the last axis, in place on a CPU, where a row is read before it is written."""
    in_place = scores.device.type == "cpu"
    return torch.softmax(scores, -1, out=scores if in_place else scratch("weights", scores.shape, scores.dtype))


def column_sums(x: Float[Tensor, "a p s r"]) -> Float[Tensor, "a p r"]:
    """Sums of the columns, which on a CPU overwrite x.

    Identical columns have identical sums. Of more than four rows ``torch.sum`` adds the last columns up in another
    order than those before them, since they do not fill a vector.
    """
    size = x.shape[2]
    if size <= 4 or x.device.type != "cpu":
        return x.sum(2)
    while size > 1:
        half = size // 2
        x[:, :, :half] += x[:, :, size - half : size]
        size -= half
    return x[:, :, 0]


def hide(scores: Tensor, hidden: Tensor) -> None:
    """Make scores −∞ in place, whatever they are."""
    if all_finite(scores):  # adding takes a tenth of the time
        scores += torch.zeros(hidden.shape, dtype=scores.dtype).masked_fill_(hidden, -torch.inf)
    else:
        scores.masked_fill_(hidden, -torch.inf)


def all_finite(x: Tensor) -> bool:
    """Whether it is known on the host that all are finite: True only if so, and never on a GPU."""
    return x.device.type == "cpu" and bool(x.sum().isfinite())


def limit(x: Tensor) -> int:
    """Numbers in a block: what stays in the cache of a CPU, what keeps a GPU busy; no more than x has."""
    return limit_on(x.device.type, x.numel())


def limit_on(device: str, numbers: int) -> int:
    """:func:`limit` of a tensor of so many numbers on such a device."""
    return min(2**21 if device == "cpu" else 2**27, max(2**18, numbers))


def possible(mask: Tensor) -> bool:
    """Whether something may be True: looked up on a CPU, not waited for on a GPU."""
    return mask.device.type != "cpu" or bool(mask.any())
