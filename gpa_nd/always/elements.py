"""Elements that every query attends to: sinks, class tokens, landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn, table_of
from gpa_nd.checks import check_integers
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.partition import Partition


class GlobalElements(AlwaysOn):
    """The groups of some key elements, for every cell: the first few of a stream (attention sinks), or landmarks.

    Args:
        elements: (n,) numbers of key elements, row-major; the whole group of each is always on. What a shorter
            structure does not have is left out there.

    Raises:
        TypeError: ``elements`` is not an integer tensor.
        ValueError: wrong rank, no element, or a negative number.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> sinks = GlobalElements(torch.arange(4))
        >>> gpa_nd.audio(downsample=2, cells=4, kappa=1, always=[sinks]).layout((16,), (16,)).always[0].tolist()
        [0, 1]
    """

    def __init__(self, elements: Int[Tensor, " n"]) -> None:
        check_integers("elements", elements)
        if elements.ndim != 1 or not len(elements):
            raise ValueError(f"elements: expected shape (n,), at least one element, got {tuple(elements.shape)}")
        if int(elements.min()) < 0:
            raise ValueError(f"elements: expected numbers from 0 on, got {int(elements.min())}")
        self.elements = elements.long().cpu()

    def __repr__(self) -> str:
        return f"GlobalElements({self.elements.tolist()})"

    def keys(
        self, cells: Partition, query_shape: Shape, key_downsampler: Downsampler, key_shape: Shape
    ) -> Int[Tensor, "m a"]:
        """The groups that hold the elements, for every cell.

        Raises:
            ValueError: keys that have none of the elements.
        """
        return self.packed_keys(cells, (query_shape,), key_downsampler, (key_shape,))

    def packed_keys(
        self, cells: Partition, query_shapes: Sequence[Shape], key_downsampler: Downsampler, key_shapes: Sequence[Shape]
    ) -> Int[Tensor, "m a"]:
        """The groups that hold the elements of each structure, for every cell of it.

        Raises:
            ValueError: no structure has any of the elements.
        """
        counts = torch.tensor([prod(shape) for shape in key_shapes])
        there = self.elements < counts[:, None]
        if int(counts.max()) and not bool(there.any()):
            raise ValueError(
                f"elements: expected numbers below {int(counts.max())}, the keys of shape "
                f"{tuple(key_shapes[int(counts.argmax())])}, got {int(self.elements.min())} and more"
            )
        groups = key_downsampler.packed_groups(key_shapes).to(cells.order.device)
        elements = (counts.cumsum(0) - counts)[:, None] + self.elements  # of each structure
        of_structure = torch.arange(len(counts)).repeat_interleave(torch.tensor([prod(s) for s in query_shapes]))
        of_cell = of_structure.to(cells.order.device)[cells.order[cells.offsets[:-1]]]
        there, elements = (x.to(cells.order.device)[of_cell] for x in (there, elements))
        cell = torch.arange(len(cells), device=of_cell.device)[:, None].expand_as(elements)
        return table_of(cell[there], groups.labels[elements[there]], len(cells))
