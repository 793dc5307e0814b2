"""Downsampling of grids with any number of axes: 1 audio, 2 image, 3 video, 4 and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.partition import Partition

PerAxis = int | tuple[int, ...]


class GridDownsampler(Downsampler):
    """Definition 1 on a grid: the mean over blocks of ``factor`` elements along each axis.

    Sizes need not divide: a block at the border has fewer members, and its mean is over those alone.

    Args:
        factor: elements of a block along each axis; an int means the same on every axis, however many there are.

    Raises:
        TypeError: ``factor`` is neither an int nor a tuple of ints.
        ValueError: a factor below 1.

    Example:
        >>> import torch
        >>> down = GridDownsampler((2, 2))
        >>> down(torch.arange(9.0).view(3, 3, 1))[..., 0].tolist()
        [[2.0, 3.5], [6.5, 8.0]]
        >>> down.coarse_shape((256, 176)), len(down.groups((256, 176)))
        ((128, 88), 11264)
    """

    def __init__(self, factor: PerAxis) -> None:
        self.factor = check_per_axis("factor", factor)

    @property
    def num_axes(self) -> int:
        """The number of grid axes.

        Raises:
            ValueError: an int factor does not tell it.
        """
        return count_axes("factor", self.factor)

    def __repr__(self) -> str:
        return f"GridDownsampler({self.factor})"

    def groups(self, shape: Shape) -> Partition:
        """The blocks, row-major: a partition of prod(shape) elements."""
        return _blocks(shape, self.factor)

    def packed_groups(self, shapes: Sequence[Shape]) -> Partition:
        """The blocks of several grids side by side, all made at once."""
        return _packed_blocks(shapes, self.factor)

    def parts(self, shape: Shape) -> Partition:
        """The blocks cut into smaller ones, of ⌊√factor⌋ elements along each axis."""
        return _packed_parts([shape], self.factor)

    def packed_parts(self, shapes: Sequence[Shape]) -> Partition:
        """The smaller blocks of several grids side by side, all made at once."""
        return _packed_parts(shapes, self.factor)

    def coarse_shape(self, shape: Shape) -> tuple[int, ...]:
        """⌈size / factor⌉ along each axis."""
        factor = for_axes("factor", self.factor, shape)
        return tuple(-(-size // f) for size, f in zip(shape, factor, strict=True))

    def upsampler(self) -> GridIndexUpsampler:
        """Dense filling of the chosen blocks."""
        return GridIndexUpsampler(self.factor)


class GridIndexUpsampler(IndexUpsampler):
    """Definition 2 on a grid: from a coarse index to the elements of its block, row-major.

    Args:
        factor: as in :class:`GridDownsampler`.

    Raises:
        TypeError: ``factor`` is neither an int nor a tuple of ints.
        ValueError: a factor below 1.

    Example:
        >>> import torch
        >>> GridIndexUpsampler((2, 2))(torch.tensor([0, 3]), (3, 3)).tolist()
        [0, 1, 3, 4, 8, -1, -1, -1]
    """

    def __init__(self, factor: PerAxis) -> None:
        self.factor = check_per_axis("factor", factor)

    def members(self, shape: Shape) -> Partition:
        """The blocks of :class:`GridDownsampler`."""
        return _blocks(shape, self.factor)

    def packed_members(self, shapes: Sequence[Shape]) -> Partition:
        """The blocks of :meth:`GridDownsampler.packed_groups`."""
        return _packed_blocks(shapes, self.factor)


def _blocks(shape: Shape, factor: PerAxis) -> Partition:
    factors = for_axes("factor", factor, shape)
    labels = product_labels(shape, lambda axis: torch.arange(shape[axis]) // factors[axis])
    return Partition.from_labels(labels)


def _packed_blocks(shapes: Sequence[Shape], factor: PerAxis) -> Partition:
    if len(shapes) == 1:
        return _blocks(shapes[0], factor)
    factors = [for_axes("factor", factor, shape) for shape in shapes]
    counts = [[-(-n // f) for n, f in zip(*of, strict=True)] for of in zip(shapes, factors, strict=True)]
    places = PackedPlaces(shapes)
    along = [place // on_axis for place, on_axis in zip(places.along, factors[0], strict=True)]
    return Partition.from_labels(places.product_labels(along, counts))


def _packed_parts(shapes: Sequence[Shape], factor: PerAxis) -> Partition:
    factors = [for_axes("factor", factor, shape) for shape in shapes]
    widths = [isqrt(f) for f in factors[0]]

    def number(place: Any, axis: int) -> Any:  # of a tensor, or of one place
        f, width = factors[0][axis], widths[axis]
        return place // f * -(-f // width) + place % f // width

    counts = [[number(n - 1, axis) + 1 if n else 0 for axis, n in enumerate(shape)] for shape in shapes]
    places = PackedPlaces(shapes)
    along = [number(place, axis) for axis, place in enumerate(places.along)]
    return Partition.from_labels(places.product_labels(along, counts))


class PackedPlaces:
    """Where each element of several grids side by side stands.

    Args:
        shapes: the sizes of each grid, all with as many axes.

    Attributes:
        grid: (n,) the grid of each element.
        along: its place along each axis, (n,) each.

    Example:
        >>> places = PackedPlaces([(1, 2), (2, 2)])
        >>> places.grid.tolist(), [place.tolist() for place in places.along]
        ([0, 0, 1, 1, 1, 1], [[0, 0, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1]])
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.sizes = torch.tensor(shapes)
        counts = self.sizes.prod(1)
        self.grid = torch.arange(len(shapes)).repeat_interleave(counts)
        rest = torch.arange(len(self.grid)) - (counts.cumsum(0) - counts)[self.grid]
        along = []
        for axis in range(self.sizes.shape[1] - 1, 0, -1):
            size = self.sizes[:, axis][self.grid]
            along.append(rest % size)
            rest = rest // size
        self.along = [rest, *reversed(along)]

    def product_labels(self, along: Sequence[Int[Tensor, " n"]], counts: Sequence[Sequence[int]]) -> Int[Tensor, " n"]:
        """As :func:`product_labels`, from labels 0 … counts − 1 along each axis, numbered on from grid to grid."""
        per_axis = torch.tensor(counts)
        before = per_axis.prod(1).cumsum(0) - per_axis.prod(1)
        labels = torch.zeros_like(self.grid)
        for axis, on_axis in enumerate(along):
            labels = labels * per_axis[:, axis][self.grid] + on_axis
        return labels + before[self.grid]


def product_labels(shape: Shape, along: Callable[[int], Int[Tensor, " size"]]) -> Int[Tensor, " n"]:
    """Labels of all grid elements, row-major, from the labels 0 … along each axis, which ``along(axis)`` gives."""
    labels = torch.zeros((), dtype=torch.int64)
    for axis in range(len(shape)):
        on_axis = along(axis)
        count = int(on_axis[-1]) + 1 if len(on_axis) else 0
        labels = labels[..., None] * count + on_axis
    return labels.flatten()


def check_per_axis(name: str, value: PerAxis) -> PerAxis:
    """An int or a tuple of ints, each at least 1.

    Raises:
        TypeError: anything else.
        ValueError: a number below 1, or no number at all.
    """
    numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"{name}: expected an int or a tuple of ints, got {value!r}")
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{name}: expected numbers of at least 1, got {value!r}")
    return numbers if isinstance(value, tuple | list) else value


def count_axes(name: str, value: PerAxis) -> int:
    """The length of a tuple, which is the number of grid axes.

    Raises:
        ValueError: an int means the same on every axis, and does not tell how many there are.
    """
    if isinstance(value, int):
        raise ValueError(f"{name}: expected a tuple, one number per axis, got the int {value}, which fits any grid")
    return len(value)


def for_axes(name: str, value: PerAxis, shape: Shape) -> tuple[int, ...]:
    """One number for each axis of the grid.

    Raises:
        ValueError: a tuple of another length than ``shape``, or a grid without axes.
    """
    if not shape or min(shape) < 0:
        raise ValueError(f"shape: expected the sizes of at least one axis, none negative, got {tuple(shape)}")
    numbers = (value,) * len(shape) if isinstance(value, int) else value
    if len(numbers) != len(shape):
        raise ValueError(f"{name}: expected one number per axis of a grid of shape {tuple(shape)}, got {value}")
    return numbers
