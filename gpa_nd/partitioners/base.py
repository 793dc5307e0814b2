"""Partitioner: Definitions 3 and 4, for any geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from gpa_nd.ops.asked import partition_of
from gpa_nd.ops.base import Shape, element_shape, flatten_elements, packed
from gpa_nd.ops.printed import printed
from gpa_nd.partition import Partition


class Partitioner(ABC):
    """Definition 3: the division of a structure into m cells of neighbouring elements.

    In GPA it divides the coarse queries; all queries of one cell share one relevant key set. The cells at full
    resolution are the groups under a cell's coarse queries, so that consistency (Definition 5) holds by construction.

    Law: ``cells(shape)`` is a partition of the ``prod(shape)`` elements, numbered row-major, and depends on nothing but
    ``shape``; hence ``compose(partition(x), shape) = x`` (Definition 4). ``testing.assert_partition`` checks it.

    Example:
        >>> class Halves(Partitioner):
        ...     def cells(self, shape):
        ...         return Partition.from_labels(2 * torch.arange(shape[0]) // shape[0])
        >>> [cell.flatten().tolist() for cell in Halves().partition(torch.arange(5)[:, None])]
        [[0, 1, 2], [3, 4]]
    """

    def __repr__(self) -> str:
        return printed(self)

    @abstractmethod
    def cells(self, shape: Shape) -> Partition:
        """The m cells of a structure of this shape.

        Args:
            shape: sizes of the axes between heads and channels: a grid, or ``(n,)`` where elements are only numbered.
        """

    def packed_cells(self, shapes: Sequence[Shape]) -> Partition:
        """The cells of several structures side by side, elements and cells numbered on from each to the next.

        Law: ``Partition.concat`` of the cells of each; a geometry may override this with something faster.
        """
        return packed(self.cells, shapes)

    @property
    def num_axes(self) -> int:
        """How many axes of a tensor are elements; 1 where elements are only numbered (a graph, a mesh, a sphere).

        Where the coarse shape has more axes this is overridden, so that ``partition`` works; GPA does not need it.
        """
        return 1

    def partition(self, x: Shaped[Tensor, "*batch_and_shape c"]) -> tuple[Shaped[Tensor, "*batch _size c"], ...]:
        """F_m(x) (Definition 3).

        Args:
            x: ``(..., *shape, c)``.

        Returns:
            m tensors (..., size, c); their elements are in row-major order of the structure.

        Raises:
            ValueError: too few axes, or a shape that the geometry does not have.
        """
        cells = partition_of(self.cells, element_shape(x, self.num_axes)).to(x.device)
        return cells.split(flatten_elements(x, self.num_axes))

    def compose(
        self, cells: Sequence[Shaped[Tensor, "*batch _size c"]], shape: Shape
    ) -> Shaped[Tensor, "*batch_and_shape c"]:
        """F_m^−1 (Definition 4): the one tensor of this shape whose cells these are.

        Args:
            cells: m tensors (..., size, c).
            shape: the sizes of the element axes.

        Returns:
            ``(..., *shape, c)``.

        Raises:
            ValueError: wrong number of cells, or a cell of the wrong size.
        """
        if not cells:
            raise ValueError("cells: expected at least one")
        return torch.unflatten(partition_of(self.cells, shape).to(cells[0].device).join(cells), -2, tuple(shape))
