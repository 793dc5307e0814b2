"""Downsampler and IndexUpsampler: Definitions 1 and 2, for any geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_integers, check_tensor
from gpa_nd.ops.asked import partition_of
from gpa_nd.ops.printed import printed
from gpa_nd.partition import Partition

Shape = Sequence[int]


class Downsampler(ABC):
    """Definition 1: the mean over each group of neighbouring elements.

    A geometry says which elements form a group; all the rest follows.

    Law: ``groups(shape)`` is a partition of the ``prod(shape)`` elements, numbered row-major, and depends on nothing
    but ``shape``. ``testing.assert_partition`` checks it, and ``testing.assert_consistent`` the laws of other methods.

    Example:
        >>> class Pairs(Downsampler):
        ...     def groups(self, shape):
        ...         return Partition.from_labels(torch.arange(shape[0]) // 2)
        >>> Pairs()(torch.tensor([[1.0], [3.0], [5.0], [7.0], [9.0]])).tolist()
        [[2.0], [6.0], [9.0]]
    """

    def __repr__(self) -> str:
        return printed(self)

    @abstractmethod
    def groups(self, shape: Shape) -> Partition:
        """The groups of a structure of this shape; one group is one coarse element.

        Args:
            shape: sizes of the axes between heads and channels: a grid, or ``(n,)`` where elements are only numbered.
        """

    @property
    def num_axes(self) -> int:
        """How many axes of a tensor are elements; 1 where elements are only numbered (a graph, a mesh, a sphere).

        A structure with more axes overrides this, so that the operator can be called on a tensor; GPA does not need it.
        """
        return 1

    def coarse_shape(self, shape: Shape) -> tuple[int, ...]:
        """Shape of the coarse structure: here the number of groups."""
        return (len(self.groups(shape)),)

    def packed_groups(self, shapes: Sequence[Shape]) -> Partition:
        """The groups of several structures side by side, elements and groups numbered on from each to the next.

        Law: ``Partition.concat`` of the groups of each; a geometry may override this with something faster.
        """
        return packed(self.groups, shapes)

    def parts(self, shape: Shape) -> Partition:
        """The groups cut into parts of about the root of their size, which ``ranking="rerank"`` compares.

        Law: every part lies within one group. Here runs of the group's elements in their order; a geometry may override
        this with parts whose elements are nearer to one another.
        """
        return self.groups(shape).runs()

    def packed_parts(self, shapes: Sequence[Shape]) -> Partition:
        """The parts of several structures side by side.

        Law: ``Partition.concat`` of the parts of each; a geometry may override this with something faster.
        """
        return packed(self.parts, shapes)

    def upsampler(self) -> IndexUpsampler:
        """The operator of Definition 2 that belongs to this one: every element of a chosen group."""
        return GroupUpsampler(self)

    def __call__(self, x: Float[Tensor, "*batch_and_shape c"]) -> Float[Tensor, "*batch_and_coarse c"]:
        """Mean over each group's members.

        Args:
            x: ``(..., *shape, c)``.

        Returns:
            ``(..., *coarse_shape, c)``, in the dtype of x; float16 and bfloat16 are added up in float32.

        Raises:
            ValueError: too few axes, or a shape that the geometry does not have.
        """
        shape = element_shape(x, self.num_axes)
        coarse = partition_of(self.groups, shape).to(x.device).mean(flatten_elements(x, self.num_axes))
        return torch.unflatten(coarse, -2, self.coarse_shape(shape))


class IndexUpsampler(ABC):
    """Definition 2: from indices of coarse elements to indices of the elements under them.

    Law: the lists of ``members(shape)`` are disjoint, one for each group of the downsampler that it belongs to. Dense
    filling, the paper's choice, lists every element of the group; another sampling may leave elements out.

    Example:
        >>> class Firsts(IndexUpsampler):
        ...     def members(self, shape):
        ...         firsts = torch.arange(0, shape[0], 2)  # of each pair
        ...         return Partition.from_labels(torch.arange(len(firsts)), firsts)
        >>> Firsts()(torch.tensor([2, 0, -1]), (6,)).tolist()
        [4, 0, -1]
    """

    def __repr__(self) -> str:
        return printed(self)

    @abstractmethod
    def members(self, shape: Shape) -> Partition:
        """The elements that stand under each coarse element of a structure of this (fine) shape."""

    def packed_members(self, shapes: Sequence[Shape]) -> Partition:
        """The members of several structures side by side.

        Law: ``Partition.concat`` of the members of each; a geometry may override this with something faster.
        """
        return packed(self.members, shapes)

    def __call__(self, index: Int[Tensor, "*batch r"], shape: Shape) -> Int[Tensor, "*batch r_children"]:
        """U_d(index).

        Args:
            index: (..., r) flat coarse indices; −1 stands for none.
            shape: the fine shape.

        Returns:
            (..., r · children) flat, row-major fine indices, where children is the size of the largest list. Real
            members come first, then −1 up to that size; −1 gives −1s.

        Raises:
            TypeError: ``index`` is not an integer tensor.
            ValueError: an index outside −1 … coarse elements − 1.
        """
        check_integers("index", index)
        if index.ndim < 1:
            raise ValueError("index: expected shape (..., r), got a single number")
        members = partition_of(self.members, shape).to(index.device)
        if index.numel() and not (-1 <= int(index.min()) and int(index.max()) < len(members)):
            raise ValueError(
                f"index: expected coarse elements −1 … {len(members) - 1}, got {int(index.min())} … {int(index.max())}"
            )
        children = torch.where(index[..., None] >= 0, members.table[index.long()], -1)
        return children.flatten(-2)


class GroupUpsampler(IndexUpsampler):
    """Dense filling for any downsampler: the elements under a coarse element are its group."""

    def __init__(self, downsampler: Downsampler) -> None:
        self.downsampler = downsampler

    def members(self, shape: Shape) -> Partition:
        """The groups of the downsampler."""
        return self.downsampler.groups(shape)

    def packed_members(self, shapes: Sequence[Shape]) -> Partition:
        """The groups of the downsampler, structure by structure."""
        return self.downsampler.packed_groups(shapes)


def packed(make: Callable[[Shape], Partition], shapes: Sequence[Shape]) -> Partition:
    """Several structures side by side, of which those of one shape are made once."""
    made = {shape: partition_of(make, shape) for shape in set(map(tuple, shapes))}
    return Partition.concat([made[tuple(shape)] for shape in shapes], [prod(shape) for shape in shapes])


def element_shape(x: Tensor, num_axes: int) -> tuple[int, ...]:
    """The sizes of the element axes of x (..., *shape, c).

    Raises:
        TypeError: x is not a tensor.
        ValueError: x has too few axes.
    """
    check_tensor("x", x)
    if x.ndim < num_axes + 1:
        raise ValueError(f"x: expected {num_axes} axes of elements and one of channels, got shape {tuple(x.shape)}")
    return tuple(x.shape[-1 - num_axes : -1])


def flatten_elements(x: Tensor, num_axes: int) -> Tensor:
    """(..., *shape, c) to (..., n, c)."""
    return x.flatten(-1 - num_axes, -2) if num_axes > 1 else x
