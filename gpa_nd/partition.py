"""Partition: disjoint, non-empty cells of n elements (Definition 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from gpa_nd.checks import check_integers, check_tensor


@contextmanager
def lasting() -> Iterator[None]:
    """What is made here outlives the call that needs it first, be that in inference mode or traced for an export."""
    with torch.inference_mode(False), _disable_current_modes():
        yield


@dataclass(eq=False, repr=False)
class Partition:
    """Elements 0 … n−1 divided into m disjoint, non-empty cells (Definition 3).

    Everything that GPA knows about geometry is said with this one type. Make one with :meth:`from_labels`.

    Attributes:
        order: (n,) int64, element numbers, cell after cell, ascending inside a cell.
        offsets: (m + 1,) int64, where each cell starts in ``order``.
        host_offsets: ``offsets`` on the CPU, so that no call has to wait for a GPU.
        covers: False if the cells leave elements out, as the members of :class:`~gpa_nd.Layout` may. Such a partition
            has no :attr:`labels` and no :meth:`join`.
        largest: the number of elements in the largest cell; 0 where there is no cell.

    Its values never change. It is not a frozen dataclass, because compilers cannot trace one's properties.

    Example:
        >>> import torch
        >>> p = Partition.from_labels(torch.tensor([1, 0, 1, 0, 0]))
        >>> len(p), p.order.tolist(), p.offsets.tolist(), p.largest
        (2, [1, 3, 4, 0, 2], [0, 3, 5], 3)
        >>> p.mean(torch.tensor([[1.0], [2.0], [3.0], [4.0], [6.0]])).tolist()
        [[4.0], [2.0]]
    """

    order: Int[Tensor, " n"]
    offsets: Int[Tensor, " m_plus_1"]
    host_offsets: Int[Tensor, " m_plus_1"]
    covers: bool = True
    largest: int = field(init=False)

    def __post_init__(self) -> None:
        self.largest = int(self.host_offsets.diff().max()) if len(self) else 0

    @classmethod
    @lasting()
    def from_labels(cls, labels: Int[Tensor, " n"], elements: Int[Tensor, " n"] | None = None) -> Partition:
        """Divide n elements by the number of the cell that each belongs to.

        Args:
            labels: (n,) integers 0 … m−1, none missing.
            elements: (n,) distinct, ascending numbers of the elements that ``labels`` speaks of, where they are not
                0 … n−1: a partition of some of the elements, for the members that Phase 2 gathers.

        Raises:
            TypeError: ``labels`` or ``elements`` is not an integer tensor.
            ValueError: wrong rank or length, a negative label, a label between 0 and the largest one missing, or
                ``elements`` not ascending from 0 or more.
        """
        _check_list("labels", labels)
        labels = labels.long()
        sizes = torch.bincount(_check_labels(labels)) if labels.numel() else labels.new_zeros(0)
        if (missing := (sizes == 0).nonzero()).numel():
            raise ValueError(
                f"labels: expected every cell 0 … {len(sizes) - 1} to hold an element (Definition 3), but cell "
                f"{int(missing[0])} has none"
            )
        order = labels.argsort(stable=True)
        if elements is not None:
            _check_list("elements", elements)
            if elements.shape != labels.shape:
                raise ValueError(f"elements: expected {len(labels)} of them, one per label, got {len(elements)}")
            if len(elements) and (int(elements[0]) < 0 or bool((elements.diff() <= 0).any())):
                raise ValueError("elements: expected distinct, ascending numbers from 0 on")
            order = elements.long()[order]
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        return cls(order, offsets, offsets.cpu(), covers=elements is None)

    def __repr__(self) -> str:
        sizes = self.host_offsets.diff()
        of = f" of {int(sizes.min())} … {self.largest}" if len(self) else ""
        return f"Partition({self.num_elements} elements, {len(self)} cells{of})"

    def __len__(self) -> int:
        """m, the number of cells."""
        return len(self.offsets) - 1

    @property
    def num_elements(self) -> int:
        """n, the number of elements in all cells together."""
        return len(self.order)

    @property
    def uniform(self) -> bool:
        """Whether all cells have the same number of elements, known on the host."""
        return self.largest * len(self) == self.num_elements

    @cached_property
    @lasting()
    def sizes(self) -> Int[Tensor, " m"]:
        """(m,) the number of elements in each cell."""
        return self.offsets.diff()

    @cached_property
    @lasting()
    def labels(self) -> Int[Tensor, " n"]:
        """(n,) the cell of each element."""
        self._check_covers("labels")
        cells = torch.arange(len(self), device=self.order.device)
        cell_of_place = cells.repeat_interleave(self.sizes, output_size=self.num_elements)
        return cell_of_place.index_select(0, self.inverse)

    def cell_of_place(self) -> Int[Tensor, " n"]:
        """(n,) the cell of each element, in the order of cells; by what compilers and exporters know."""
        return torch.zeros_like(self.order).scatter_(0, self.offsets[1:-1], 1).cumsum(0)

    def traced_labels(self) -> Int[Tensor, " n"]:
        """As :attr:`labels`, which a compiler cannot look up, computed anew by each call."""
        cells = self.cell_of_place()
        return torch.empty_like(cells).scatter_(0, self.order, cells)

    @cached_property
    @lasting()
    def inverse(self) -> Int[Tensor, " n"]:
        """(n,) the permutation that undoes ``order``: ``x[order][inverse] = x``."""
        self._check_covers("inverse")
        inverse = torch.empty_like(self.order)
        inverse[self.order] = torch.arange(self.num_elements, device=self.order.device)
        return inverse

    @cached_property
    @lasting()
    def table(self) -> Int[Tensor, "m largest"]:
        """(m, largest) the elements of each cell; short rows end in −1."""
        if self.uniform:
            return self.order.view(len(self), self.largest)
        place = self.offsets[:-1, None] + torch.arange(self.largest, device=self.order.device)
        inside = place < self.offsets[1:, None]
        return torch.where(inside, self.order[place.clamp_max(self.num_elements - 1)], -1)

    @lasting()
    def to(self, device: torch.device | str) -> Partition:
        """The same partition with its tensors on ``device``; this one, if they are there already."""
        if self.order.device == torch.empty(0, device=device).device:
            return self
        return Partition(self.order.to(device), self.offsets.to(device), self.host_offsets, self.covers)

    def tensors(self) -> list[Tensor]:
        """What PyTorch's operators take instead of a partition; :meth:`from_tensors` makes one of them again.

        Example:
            >>> p = Partition.from_labels(torch.tensor([1, 0, 1]))
            >>> Partition.from_tensors(p.tensors()).order.tolist()
            [1, 0, 2]
        """
        return [self.order, self.offsets, self.host_offsets]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> Partition:
        """The partition whose :meth:`tensors` these are, or its cells if it leaves elements out."""
        order, offsets, host_offsets = tensors
        return cls(order, offsets, host_offsets)

    @classmethod
    @lasting()
    def concat(cls, parts: Sequence[Partition], num_elements: Sequence[int] | None = None) -> Partition:
        """Several structures side by side as one: the elements and cells of each follow those of the one before it.

        Args:
            parts: at least one, all on one device.
            num_elements: how many elements each structure has, where its cells leave some out.

        Raises:
            ValueError: no partition, partitions on different devices, or one that leaves elements out, and nothing
                says how many there are, or too few.

        Example:
            >>> pair = Partition.from_labels(torch.tensor([0, 0]))
            >>> Partition.concat([pair, pair]).labels.tolist()
            [0, 0, 1, 1]
        """
        if not parts:
            raise ValueError("parts: expected at least one partition, got none")
        if len(devices := {str(part.order.device) for part in parts}) > 1:
            raise ValueError(f"parts: expected all of them on one device, got {' and '.join(sorted(devices))}")
        counts, covers = [part.num_elements for part in parts], all(part.covers for part in parts)
        if num_elements is None and not covers:
            raise ValueError("num_elements: expected the size of each structure, whose cells leave elements out")
        num_elements = counts if num_elements is None else num_elements
        _check_room(parts, num_elements)
        if len(parts) == 1:
            return parts[0]
        device = parts[0].order.device
        before = torch.tensor([0, *num_elements]).cumsum(0)[:-1].to(device)
        shift = before.repeat_interleave(torch.tensor(counts, device=device), output_size=sum(counts))
        order = torch.cat([part.order for part in parts]) + shift
        host = torch.cat([part.host_offsets.diff() for part in parts]).cumsum(0)
        host_offsets = torch.cat([host.new_zeros(1), host])
        return cls(order, host_offsets.to(device), host_offsets, covers)

    @lasting()
    def lists(self, cells: Int[Tensor, " l"]) -> Partition:
        """The elements of some cells, in the order that they are named, each as often; the lists need not be disjoint.

        Example:
            >>> p = Partition.from_labels(torch.tensor([0, 1, 1]))
            >>> p.lists(torch.tensor([1, 0, 1])).table.tolist()
            [[1, 2], [0, -1], [1, 2]]
        """
        host = self.host_offsets.diff()[cells.cpu()].cumsum(0)
        host_offsets = torch.cat([host.new_zeros(1), host])
        offsets = host_offsets.to(self.order.device)
        total = int(host_offsets[-1])
        shift = (self.offsets[cells] - offsets[:-1]).repeat_interleave(offsets.diff(), output_size=total)
        order = self.order[torch.arange(total, device=shift.device) + shift]
        return Partition(order, offsets, host_offsets, covers=False)

    def runs(self) -> Partition:
        """Each cell of s elements cut into runs of ⌊√s⌋, in the order of its elements; the last run may be shorter.

        Example:
            >>> p = Partition.from_labels(torch.tensor([0, 1, 0, 0, 0, 0]))
            >>> p.runs().labels.tolist()
            [0, 3, 0, 1, 1, 2]
        """
        sizes = self.sizes.repeat_interleave(self.sizes, output_size=self.num_elements)
        place = torch.arange(self.num_elements, device=self.order.device)
        place = place - self.offsets[:-1].repeat_interleave(self.sizes, output_size=self.num_elements)
        length = (sizes + 0.5).sqrt().floor().long()  # of whole numbers this is exact
        starts = place % length == 0
        return Partition.from_labels((starts.cumsum(0) - 1).index_select(0, self.inverse))

    def then(self, cells: Partition) -> Partition:
        """Fine cells: each cell of ``cells``, a partition of this one's m cells, with all its elements (Definition 5).

        Raises:
            ValueError: ``cells`` is not a partition of ``len(self)`` elements.
        """
        if cells.num_elements != len(self):
            raise ValueError(f"cells: expected a partition of {len(self)} elements, got one of {cells.num_elements}")
        return Partition.from_labels(cells.labels.index_select(0, self.labels))

    def mean(self, x: Shaped[Tensor, "*batch n c"]) -> Shaped[Tensor, "*batch m c"]:
        """Mean of each cell (Definition 1); float16 and bfloat16 are added up in float32.

        Raises:
            TypeError: ``x`` is not a floating point tensor.
            ValueError: ``x`` has another number of elements.
        """
        self._check_elements(x)
        if not x.is_floating_point():
            raise TypeError(f"x: expected a floating point tensor, got {x.dtype}")
        wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        if self.uniform:
            ordered = x.index_select(-2, self.order)
            return torch.unflatten(ordered, -2, (len(self), self.largest)).mean(-2, dtype=wide).to(x.dtype)
        entries = math.prod(x.shape[:-2])
        first = torch.arange(entries, device=x.device)[:, None] * len(self)
        sums = x.new_zeros(entries * len(self), x.shape[-1], dtype=wide)
        sums = add_rows(sums, (first + self.labels).flatten(), x.reshape(-1, x.shape[-1]).to(wide))
        return (sums.view(*x.shape[:-2], len(self), -1) / self.sizes[:, None]).to(x.dtype)

    def split(self, x: Shaped[Tensor, "*batch n c"]) -> tuple[Shaped[Tensor, "*batch _size c"], ...]:
        """The m cells of ``x``, each (..., size, c) (Definition 3).

        Raises:
            ValueError: ``x`` has another number of elements.
        """
        self._check_elements(x)
        sizes: list[int] = self.host_offsets.diff().tolist()
        return torch.split(x.index_select(-2, self.order), sizes, dim=-2)

    def join(self, cells: Sequence[Shaped[Tensor, "*batch _size c"]]) -> Shaped[Tensor, "*batch n c"]:
        """The tensor whose cells these are (Definition 4): ``p.join(p.split(x)) = x``.

        Raises:
            ValueError: wrong number of cells, or a cell with a wrong number of elements.
        """
        self._check_covers("join")
        sizes = self.host_offsets.diff().tolist()
        if (got := [cell.shape[-2] for cell in cells]) != sizes:
            if len(got) != len(sizes):
                raise ValueError(f"cells: expected {len(sizes)} of them, got {len(got)}")
            first = next(i for i, (a, b) in enumerate(zip(got, sizes, strict=True)) if a != b)
            raise ValueError(f"cells: expected cell {first} to hold {sizes[first]} elements, got {got[first]}")
        if not cells:
            raise ValueError("cells: expected at least one; the channels of an empty tensor are not known")
        if len(others := {(*cell.shape[:-2], cell.shape[-1]) for cell in cells}) > 1:
            raise ValueError(f"cells: expected the same leading axes and channels, got {sorted(others)}")
        return torch.cat(tuple(cells), dim=-2).index_select(-2, self.inverse)

    def _check_elements(self, x: Tensor) -> None:
        self._check_covers("mean and split")
        check_tensor("x", x)
        if x.ndim < 2 or x.shape[-2] != self.num_elements:
            raise ValueError(f"x: expected shape (..., {self.num_elements}, channels), got {tuple(x.shape)}")

    def _check_covers(self, what: str) -> None:
        if not self.covers:
            raise ValueError(f"{what}: this partition leaves elements out, so there is none")


def add_rows(
    into: Shaped[Tensor, "n c"], row: Int[Tensor, " r"], values: Shaped[Tensor, "r c"]
) -> Shaped[Tensor, "n c"]:
    """``into[row] += values`` in place, rows that occur several times in their order: it repeats bit for bit."""
    if into.device.type == "cpu":
        return into.index_add_(0, row, values)
    return into.index_put_((row,), values, accumulate=True)  # sorts; index_add_ would add with atomic operations


def _check_list(name: str, value: Tensor) -> None:
    check_integers(name, value)
    if value.ndim != 1:
        raise ValueError(f"{name}: expected shape (n,), got {tuple(value.shape)}")


def _check_room(parts: Sequence[Partition], num_elements: Sequence[int]) -> None:
    """Each structure has as many elements as its cells hold, or more where they leave some out."""
    if len(num_elements) != len(parts):
        raise ValueError(
            f"num_elements: expected {len(parts)} numbers, one for each partition, got {len(num_elements)}"
        )
    for place, (part, count) in enumerate(zip(parts, num_elements, strict=True)):
        if part.covers and count != part.num_elements:
            raise ValueError(f"num_elements: expected {part.num_elements} for partition {place}, got {count}")
        if not part.covers and len(part) and count <= (last := int(part.order.max())):
            raise ValueError(f"num_elements: expected more than {last} for partition {place}, got {count}")


def _check_labels(labels: Tensor) -> Tensor:
    low, high = labels.aminmax()
    if low < 0:
        raise ValueError(f"labels: expected cell numbers from 0 on, got {int(low)}")
    if high >= len(labels):
        raise ValueError(f"labels: {len(labels)} elements cannot fill {int(high) + 1} cells (Definition 3)")
    return labels
