"""Soft top-κ: the nearest weights that add up to κ."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_positive
from gpa_nd.selection.base import Selection, checked_scores


class SoftTopK(Selection):
    """Weights by :func:`soft_top_k`: a projection, exact and the same in every run.

    Candidates whose scores are within about one temperature of the κ-th have weights between 0 and 1 and a gradient;
    those far above have 1, those far below 0, and neither has one. A high temperature lets many take part, and a
    temperature towards 0 gives hard selection.

    Args:
        temperature: the difference in score, the logarithm of attention, that makes a whole weight.
        candidates: how many coarse keys each cell weighs, at least κ; 4 κ by default.

    Raises:
        TypeError: an argument that is no number.
        ValueError: a temperature that is not above 0, ``candidates`` below 1.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.selection import SoftTopK
        >>> gpa = gpa_nd.audio(downsample=4, cells=4, kappa=1, selection=SoftTopK(temperature=0.5, candidates=6))
        >>> q, k, v = torch.randn(3, 1, 1, 64, 8)
        >>> gpa(q, k, v).shape
        torch.Size([1, 1, 64, 8])
    """

    def __init__(self, temperature: float = 1.0, candidates: int | None = None) -> None:
        super().__init__(candidates)
        check_positive("temperature", temperature)
        self.temperature = temperature

    def weights(self, scores: Float[Tensor, "*rows r"], kappa: int) -> Float[Tensor, "*rows r"]:
        """As :func:`soft_top_k`."""
        return soft_top_k(scores, kappa, self.temperature)


def soft_top_k(scores: Float[Tensor, "*rows r"], kappa: int, temperature: float = 1.0) -> Float[Tensor, "*rows r"]:
    """The projection of scores / temperature onto {w ∈ [0, 1]^r, Σ w = κ} (after Blondel et al. 2020).

    The nearest such weights are clip(scores / temperature − τ, 0, 1) for one τ, which sorting finds exactly. Over
    the n entries whose weights are between 0 and 1, the Jacobian is (I − 1 1ᵀ / n) / temperature; elsewhere it is zero.
    With κ = 1 and scores not far apart this is sparsemax.

    Args:
        scores: (…, r) of any floating point dtype; −∞ gets weight 0.
        kappa: what the weights of a row add up to, or the number of finite scores where that is less.
        temperature: above 0; towards 0 the weights become those of the κ largest scores.

    Returns:
        (…, r) in float32, or in float64 if the scores are.

    Raises:
        TypeError: arguments of the wrong type.
        ValueError: ``kappa`` below 1, a temperature that is not above 0.

    Example:
        >>> import torch
        >>> from gpa_nd.selection import soft_top_k
        >>> soft_top_k(torch.tensor([3.0, 1.0, 0.5, -4.0]), kappa=2, temperature=1.0).tolist()
        [1.0, 0.75, 0.25, 0.0]
    """
    scores = checked_scores(scores, kappa)
    check_positive("temperature", temperature)
    there = ~scores.isneginf()
    if kappa >= scores.shape[-1]:
        return there.to(scores.dtype)
    # The κ-th largest score is moved to 0: τ is then in [−1, 0), and whatever is above 1 or below −1 is decided.
    kth = scores.detach().sort(dim=-1, descending=True).values[..., kappa - 1 : kappa]
    few = kth.isneginf()
    z = (scores.masked_fill(~there, 0) - kth.masked_fill(few, 0)) / temperature
    z = z.masked_fill(~there, -2)
    tau = _threshold(z.detach().clamp(-2, 2), kappa)
    above, below = z >= tau + 1, z <= tau
    between = ~(above | below)
    count = between.sum(-1, keepdim=True)
    # τ once more, from the entries in between: it has their gradient, and is not rounded by a sum over all others.
    tau = (z.masked_fill(~between, 0).sum(-1, keepdim=True) + above.sum(-1, keepdim=True) - kappa) / count.clamp_min(1)
    soft = (z - tau).masked_fill(~between, 0).clamp(0, 1)
    return torch.where(few, there.to(z.dtype), torch.where(above, 1, soft))


def _threshold(z: Float[Tensor, "*rows r"], kappa: int) -> Float[Tensor, "*rows 1"]:
    """A number on the same side of all z and z − 1 as τ, for which Σ clip(z − τ, 0, 1) = κ.

    The sum grows as τ falls, by as many as there are entries between τ and τ + 1: an entry joins them where τ passes z
    and leaves them where τ passes z − 1.
    """
    ends, order = torch.cat([z, z - 1], dim=-1).sort(dim=-1, descending=True)
    joins_or_leaves = torch.where(order < z.shape[-1], 1, -1)
    slope = joins_or_leaves.cumsum(-1)[..., :-1]
    lengths = ends[..., :-1] - ends[..., 1:]
    reached = (slope * lengths).cumsum(-1) >= kappa
    # Where rounding keeps a sum from κ, the last one that grows is meant.
    reached |= _is_last(slope * lengths > 0)
    piece: Int[Tensor, "*rows 1"] = reached.int().argmax(-1, keepdim=True)
    return (ends.gather(-1, piece) + ends.gather(-1, piece + 1)) / 2


def _is_last(x: Tensor) -> Tensor:
    """Where the last True of each row is."""
    return x & (x.flip(-1).cumsum(-1).flip(-1) == 1)
