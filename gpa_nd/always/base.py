"""AlwaysOn: which coarse keys a cell attends to whatever it selects, for any geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.ops.printed import printed
from gpa_nd.partition import Partition


class AlwaysOn(ABC):
    """Coarse keys that every cell attends to, in the same softmax as the selected ones and beside the κ of them.

    Law: the rows of ``keys(…)`` name distinct coarse keys, −1 after the last, and depend on nothing but the arguments.
    :func:`gpa_nd.testing.assert_always_on` tells whether a rule of one's own keeps to it.

    Example:
        >>> import gpa_nd
        >>> class Last(AlwaysOn):
        ...     def keys(self, cells, query_shape, key_downsampler, key_shape):
        ...         return torch.full((len(cells), 1), prod(key_downsampler.coarse_shape(key_shape)) - 1)
        >>> gpa_nd.audio(downsample=2, cells=3, kappa=1, always=[Last()]).layout((12,), (8,)).always.tolist()
        [[3], [3], [3]]
    """

    def __repr__(self) -> str:
        return printed(self)

    @abstractmethod
    def keys(
        self, cells: Partition, query_shape: Shape, key_downsampler: Downsampler, key_shape: Shape
    ) -> Int[Tensor, "m a"]:
        """The coarse keys that are always on for each cell.

        Args:
            cells: the cells of queries at full resolution.
            query_shape: sizes of the axes of the queries.
            key_downsampler: the groups of keys.
            key_shape: sizes of the axes of the keys.
        """

    def packed_keys(
        self, cells: Partition, query_shapes: Sequence[Shape], key_downsampler: Downsampler, key_shapes: Sequence[Shape]
    ) -> Int[Tensor, "m a"]:
        """Those of several structures side by side, coarse keys numbered on from each to the next.

        Law: the rows that ``keys`` gives for each; a geometry may override this with something faster.
        """
        tables, first_query, first_cell, first_key = [], 0, 0, 0
        for query_shape, key_shape in zip(query_shapes, key_shapes, strict=True):
            labels = cells.labels[first_query : first_query + prod(query_shape)] - first_cell
            own = Partition.from_labels(labels)
            table = self.keys(own, query_shape, key_downsampler, key_shape)
            num_keys = prod(key_downsampler.coarse_shape(key_shape))
            check_table(self, table, len(own), num_keys)
            tables.append(torch.where(table >= 0, table + first_key, -1))
            first_query, first_cell = first_query + len(labels), first_cell + len(own)
            first_key += num_keys
        widest = max(table.shape[1] for table in tables)
        return torch.cat([F.pad(table, (0, widest - table.shape[1]), value=-1) for table in tables])


def check_table(rule: AlwaysOn, table: object, num_cells: int, num_keys: int) -> None:
    """What a rule's ``keys`` returns.

    Raises:
        TypeError: not an integer tensor.
        ValueError: another number of rows than cells, or numbers that name no coarse key.
    """
    check_integers(f"always, keys of {type(rule).__name__}", table)
    assert isinstance(table, Tensor)
    if table.ndim != 2 or len(table) != num_cells:
        raise ValueError(
            f"always: {type(rule).__name__}.keys should return shape ({num_cells}, any), a row for each cell, got "
            f"{tuple(table.shape)}"
        )
    if table.numel() and not (-1 <= int(table.min()) and int(table.max()) < num_keys):
        raise ValueError(
            f"always: {type(rule).__name__}.keys should return coarse keys −1 … {num_keys - 1}, got {int(table.min())} "
            f"… {int(table.max())}"
        )


def table_of(cell: Int[Tensor, " entries"], key: Int[Tensor, " entries"], num_cells: int) -> Int[Tensor, "m a"]:
    """The keys of each cell, ascending, once each, −1 after the last, from pairs of a cell and a key.

    Example:
        >>> table_of(torch.tensor([1, 0, 1, 1]), torch.tensor([5, 2, 3, 5]), 3).tolist()
        [[2, -1], [3, 5], [-1, -1]]
    """
    pairs = torch.stack([cell, key]).unique(dim=1)
    sizes = torch.bincount(pairs[0], minlength=num_cells)
    place = torch.arange(pairs.shape[1], device=pairs.device) - (sizes.cumsum(0) - sizes)[pairs[0]]
    table = torch.full((num_cells, int(sizes.max()) if num_cells else 0), -1, device=pairs.device)
    table[pairs[0], place] = pairs[1]
    return table
