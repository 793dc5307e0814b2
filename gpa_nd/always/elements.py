"""Elements that every query attends to: sinks, class tokens, landmarks."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn
from gpa_nd.checks import check_integers
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.partition import Partition


class GlobalElements(AlwaysOn):
    """The groups of some key elements, for every cell: the first few of a stream (attention sinks), or landmarks.

    Args:
        elements: (n,) numbers of key elements, row-major; the whole group of each is always on.

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
            ValueError: an element that the keys do not have.
        """
        groups = key_downsampler.groups(key_shape)
        if int(self.elements.max()) >= groups.num_elements:
            raise ValueError(
                f"elements: expected numbers below {groups.num_elements}, the keys of shape {tuple(key_shape)}, got "
                f"{int(self.elements.max())}"
            )
        named = groups.labels[self.elements.to(groups.labels.device)]
        table: Tensor = torch.unique(named).expand(len(cells), -1)
        return table
