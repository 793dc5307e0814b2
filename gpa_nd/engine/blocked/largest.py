"""The κ largest sums, of equal ones the first: what PyTorch's ``topk`` does not promise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

STRIDE = 8  # numbers of which only the largest is looked at first: fewest comparisons by measurement
FEW = 24  # that topk finds as fast


def largest(sums: Tensor, kappa: int) -> tuple[Tensor, Tensor]:
    """The largest sums and where they are, of equal ones the first."""
    if sums.device.type != "cpu":  # where looking for ties would wait for the device
        value, index = sums.sort(dim=-1, descending=True, stable=True)
    else:
        value, index = _topk(sums, min(kappa + 1, sums.shape[-1]))
        tied = (value[..., 1:] == value[..., :-1]).any(-1)  # topk orders equal sums as it likes
        if bool(tied.any()):
            value[tied], index[tied] = _in_order(value[tied], index[tied])
            if value.shape[-1] > kappa:
                tied = value[..., kappa - 1] == value[..., kappa]  # and keeps any of them
                value[tied], index[tied] = (
                    x[..., : kappa + 1] for x in sums[tied].sort(dim=-1, descending=True, stable=True)
                )
    return value[..., :kappa], index[..., :kappa]


def _in_order(value: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted numbers and their places, of equal ones the first before the others."""
    index, by_place = index.sort(dim=-1)
    value, order = value.gather(-1, by_place).sort(dim=-1, descending=True, stable=True)
    return value, index.gather(-1, order)


def _topk(x: Float[Tensor, "*rows n"], k: int) -> tuple[Tensor, Tensor]:
    """The k largest in any order of equal ones; of many numbers, those of the k stretches with the largest maxima."""
    n = x.shape[-1] // STRIDE
    if k * 2 > n or k < FEW:
        return x.topk(k, dim=-1)
    maxima = x[..., : n * STRIDE].unflatten(-1, (STRIDE, n)).amax(-2)
    stretch = maxima.topk(k, dim=-1, sorted=False).indices
    index = (stretch[..., None, :] + torch.arange(0, n * STRIDE, n, device=x.device)[:, None]).flatten(-2)
    if rest := x.shape[-1] - n * STRIDE:
        last = torch.arange(n * STRIDE, x.shape[-1], device=x.device).expand(*index.shape[:-1], rest)
        index = torch.cat([index, last], dim=-1)
    value, place = x.gather(-1, index).topk(k, dim=-1)
    return value, index.gather(-1, place)
