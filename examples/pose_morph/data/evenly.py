"""A choice that is spread evenly."""

import torch
from jaxtyping import Int
from torch import Tensor


def evenly(count: int, wanted: int) -> Int[Tensor, "n"]:
    """Return at most ``wanted`` numbers under ``count``, both ends among them.

    >>> evenly(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return torch.linspace(0, count - 1, min(wanted, count)).round().long()
