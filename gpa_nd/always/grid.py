"""The neighbourhood of a cell on a grid with any number of axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn, table_of
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.ops.grid import GridDownsampler, PackedPlaces, for_axes
from gpa_nd.partition import Partition


class GridNeighbourhood(AlwaysOn):
    """The blocks of keys that reach within ``radius`` elements of a cell: what a sliding window sees, and some more.

    Where keys lie on a grid of another size, it counts as stretched over that of the queries.

    Args:
        radius: elements of the keys' grid on either side of the cell, along each axis; an int means the same on every
            axis, 0 the blocks that the cell itself overlaps.

    Raises:
        TypeError: ``radius`` is neither an int nor a tuple of ints.
        ValueError: a negative number.

    Example:
        >>> import gpa_nd
        >>> gpa = gpa_nd.audio(downsample=2, cells=4, kappa=1, always=[GridNeighbourhood(1)])
        >>> gpa.layout((16,), (16,)).always.tolist()
        [[0, 1, 2, -1], [1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, -1]]
    """

    def __init__(self, radius: int | tuple[int, ...]) -> None:
        numbers = radius if isinstance(radius, tuple) else (radius,)
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise TypeError(f"radius: expected an int or a tuple of ints, got {radius!r}")
        if not numbers or min(numbers) < 0:
            raise ValueError(f"radius: expected numbers of at least 0, got {radius!r}")
        self.radius = radius

    def __repr__(self) -> str:
        return f"GridNeighbourhood({self.radius})"

    def keys(
        self, cells: Partition, query_shape: Shape, key_downsampler: Downsampler, key_shape: Shape
    ) -> Int[Tensor, "m a"]:
        """The blocks around each cell.

        Raises:
            ValueError: keys or queries that do not lie on grids with the same number of axes.
        """
        return self.packed_keys(cells, (query_shape,), key_downsampler, (key_shape,))

    def packed_keys(
        self, cells: Partition, query_shapes: Sequence[Shape], key_downsampler: Downsampler, key_shapes: Sequence[Shape]
    ) -> Int[Tensor, "m a"]:
        """The blocks around each cell of several grids side by side, all made at once.

        Raises:
            ValueError: keys or queries that do not lie on grids with the same number of axes.
        """
        query_shape, key_shape = query_shapes[0], key_shapes[0]
        if not isinstance(key_downsampler, GridDownsampler) or len(query_shape) != len(key_shape):
            raise ValueError(
                f"always: a grid neighbourhood expects queries and keys on grids with as many axes, got shapes "
                f"{tuple(query_shape)} and {tuple(key_shape)} with {key_downsampler}"
            )
        factor = for_axes("factor", key_downsampler.factor, key_shape)
        radius = for_axes("radius", self.radius, key_shape)
        device, places = cells.order.device, PackedPlaces(query_shapes)
        of_cell = places.grid[cells.order[cells.offsets[:-1]].cpu()]
        of_keys, coarse = torch.tensor(key_shapes), torch.tensor([key_downsampler.coarse_shape(s) for s in key_shapes])
        blocks = [sizes[of_cell].to(device) for sizes in coarse.unbind(1)]
        before = (coarse.prod(1).cumsum(0) - coarse.prod(1))[of_cell].to(device)
        starts, widths = [], []
        for axis, place in enumerate(places.along):
            queries, keys = (sizes[:, axis][of_cell].to(device) for sizes in (places.sizes, of_keys))
            place = place.to(device)
            first, last = (
                place.new_zeros(len(cells)).scatter_reduce_(0, cells.labels, place, how, include_self=False)
                for how in ("amin", "amax")
            )
            first, last = first * keys // queries, ((last + 1) * keys + queries - 1) // queries - 1
            first = (first - radius[axis]).clamp_min(0) // factor[axis]
            last = torch.minimum(last + radius[axis], keys - 1) // factor[axis]
            starts.append(first)
            widths.append(last - first + 1)
        number = torch.arange(len(cells), device=device)
        if not len(cells):
            return table_of(number, number, 0)
        cell, key = [number[:0]], [number[:0]]  # there may be no keys
        for steps in itertools.product(*(range(int(width.max())) for width in widths)):
            inside, block = torch.ones_like(number, dtype=torch.bool), torch.zeros_like(number)
            for start, width, step, size in zip(starts, widths, steps, blocks, strict=True):
                inside &= step < width
                block = block * size + start + step
            cell.append(number[inside])
            key.append((block + before)[inside])
        return table_of(torch.cat(cell), torch.cat(key), len(cells))
