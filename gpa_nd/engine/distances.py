"""Squared distances, for ``affinity="euclidean"``, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FEWEST, MOST = 8, 16  # channels at once: cdist adds many up one after another, and takes a root that has to be squared


def squared_distances(q: Float[Tensor, "*p n_q c"], k: Float[Tensor, "*p n_k c"]) -> Float[Tensor, "*p n_q n_k"]:
    """|q − k|² from differences, as the expanded square is wrong far away from the origin; differentiable.

    Over some channels at a time, as exact as plain PyTorch: one ``cdist`` over 256 of them errs five times as much.

    Args:
        q: (…, n_q, c) rows of at least one channel.
        k: (…, n_k, c) other rows.

    Returns:
        (…, n_q, n_k), in the dtype of both.

    Example:
        >>> import torch
        >>> squared_distances(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[3.0, 5.0], [0.0, 1.0]]])).tolist()
        [[[25.0, 0.0]]]
    """
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return _SquaredDistances.apply(q, k)  # type: ignore[no-any-return, no-untyped-call]
    return _added_up(q, k)


def distance_gradients(
    grad: Float[Tensor, "*p n_q n_k"], q: Float[Tensor, "*p n_q c"], k: Float[Tensor, "*p n_k c"]
) -> tuple[Float[Tensor, "*p n_q c"], Float[Tensor, "*p n_k c"]]:
    """Those of q and k, from that of their squared distances.

    From differences to a point nearby: far from the origin, those of the sums would be wrong.

    Args:
        grad: (…, n_q, n_k) the gradient of squared distances.
        q: (…, n_q, c) rows.
        k: (…, n_k, c) other rows.

    Returns:
        (…, n_q, c) and (…, n_k, c).

    Example:
        >>> import torch
        >>> q, k = torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0]])
        >>> [x.flatten().tolist() for x in distance_gradients(torch.ones(2, 1), q, k)]  # 2 (q − k), 2 Σ (k − q)
        [[-4.0, 2.0], [2.0]]
    """
    nearby = q.mean(-2, keepdim=True)
    q, k = q - nearby, k - nearby
    return 2 * (q * grad.sum(-1, keepdim=True) - grad @ k), 2 * (k * grad.sum(-2)[..., None] - grad.mT @ q)


class _SquaredDistances(torch.autograd.Function):
    """Keeps q and k alone for the gradient, where autograd would keep distances of every few channels."""

    @staticmethod
    def forward(q: Tensor, k: Tensor) -> Tensor:
        return _added_up(q, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return distance_gradients(grad, *ctx.saved_tensors)


def _added_up(q: Tensor, k: Tensor) -> Float[Tensor, "*p n_q n_k"]:
    stretch = min(MOST, max(FEWEST, q.shape[-1] // 4))
    total: Tensor | None = None
    for some_q, some_k in zip(q.split(stretch, dim=-1), k.split(stretch, dim=-1), strict=True):
        distances = torch.cdist(some_q, some_k, compute_mode="donot_use_mm_for_euclid_dist")
        total = distances.square_() if total is None else total.addcmul_(distances, distances)
    assert total is not None  # there is at least one channel
    return total
