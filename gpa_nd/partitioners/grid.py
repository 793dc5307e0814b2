"""Cells of a grid with any number of axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.ops.base import Shape
from gpa_nd.ops.grid import PackedPlaces, PerAxis, check_per_axis, count_axes, for_axes, product_labels
from gpa_nd.partition import Partition
from gpa_nd.partitioners.base import Partitioner


class GridPartitioner(Partitioner):
    """Definition 3 on a grid: ``cells`` rectangular cells along each axis, in row-major order.

    Element i of an axis of h elements lies in cell ⌊i · c / h⌋, so that cells differ in length by at most one element.
    An axis with fewer elements than cells gets one cell each.

    Args:
        cells: cells along each axis, whose product is the paper's m; an int means the same on every axis.

    Raises:
        TypeError: ``cells`` is neither an int nor a tuple of ints.
        ValueError: a number below 1.

    Example:
        >>> import torch
        >>> cut = GridPartitioner((1, 2))
        >>> [cell.flatten().tolist() for cell in cut.partition(torch.arange(6).view(2, 3, 1))]
        [[0, 1, 3, 4], [2, 5]]
        >>> len(GridPartitioner((32, 32)).cells((64, 64)))
        1024
    """

    def __init__(self, cells: PerAxis) -> None:
        self.cells_per_axis = check_per_axis("cells", cells)

    @property
    def num_axes(self) -> int:
        """The number of grid axes.

        Raises:
            ValueError: an int number of cells does not tell it.
        """
        return count_axes("cells", self.cells_per_axis)

    def __repr__(self) -> str:
        return f"GridPartitioner({self.cells_per_axis})"

    def cells_shape(self, shape: Shape) -> tuple[int, ...]:
        """How many cells there are along each axis of a grid of this shape."""
        counts = for_axes("cells", self.cells_per_axis, shape)
        return tuple(min(count, size) for count, size in zip(counts, shape, strict=True))

    def cells(self, shape: Shape) -> Partition:
        """The cells of a grid of this shape, row-major."""
        counts = self.cells_shape(shape)

        def along(axis: int) -> torch.Tensor:
            return torch.arange(shape[axis]) * counts[axis] // max(shape[axis], 1)

        return Partition.from_labels(product_labels(shape, along))

    def packed_cells(self, shapes: Sequence[Shape]) -> Partition:
        """The cells of several grids side by side, all made at once."""
        if len(shapes) == 1:
            return self.cells(shapes[0])
        places, counts = PackedPlaces(shapes), [self.cells_shape(shape) for shape in shapes]
        per_axis = torch.tensor(counts)
        along = [
            place * per_axis[:, axis][places.grid] // places.sizes[:, axis][places.grid]
            for axis, place in enumerate(places.along)
        ]
        return Partition.from_labels(places.product_labels(along, counts))

    def cells_before(self, shapes: Sequence[Shape], axes: Sequence[int]) -> Int[Tensor, " m"]:
        """For each cell of several grids side by side the one before it along all of these axes, −1 for the first."""
        cells = PackedPlaces([self.cells_shape(shape) for shape in shapes])
        steps = torch.stack([cells.sizes[:, axis + 1 :].prod(1) for axis in axes]).sum(0)
        there = torch.stack([cells.along[axis] > 0 for axis in axes]).all(0)
        return torch.where(there, torch.arange(len(cells.grid)) - steps[cells.grid], -1)
