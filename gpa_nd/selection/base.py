"""Selection: how a cell weighs the coarse keys that come into question, for any rule."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.checks import check_int, check_tensor


class Selection(ABC):
    """Weights of the coarse keys that come into question for a cell, with a derivative.

    Each cell takes more than κ *candidates*, ranked as ever and without a gradient. ``weights`` turns their scores, the
    logarithms of the attention that the cell's coarse queries pay them, into weights: one of weight w counts w times
    in the softmax of Phase 2, and one of weight 0 is not attended to. What is always on has weight 1.

    Law: weights are in [0, 1]; they are 0 where a score is −∞; they follow the candidates where these change places;
    and those of a row depend on that row alone. The rules of this library add up to κ, or are all 1 where no more than
    κ scores are finite, and adding a number to all scores of a row changes nothing.

    Args:
        candidates: how many coarse keys each cell weighs, at least κ; 4 κ by default.

    Attributes:
        hard: whether the result is that of hard selection, to which the weights lend only their gradient.

    Raises:
        TypeError: ``candidates`` is not an int.
        ValueError: ``candidates`` below 1.

    Example:
        >>> class Sigmoid(Selection):
        ...     def weights(self, scores, kappa):
        ...         return scores.sigmoid()  # 0 where a score is −∞
        >>> Sigmoid(candidates=6).among(2)
        6
    """

    hard = False

    def __init__(self, candidates: int | None = None) -> None:
        if candidates is not None:
            check_int("candidates", candidates, at_least=1)
        self.candidates = candidates

    @abstractmethod
    def weights(self, scores: Float[Tensor, "*rows r"], kappa: int) -> Float[Tensor, "*rows r"]:
        """The weight of each candidate.

        Args:
            scores: (…, r) their scores, −∞ where there is none.
            kappa: how many coarse keys hard selection would keep.
        """

    def among(self, kappa: int) -> int:
        """How many candidates each cell has.

        Raises:
            ValueError: fewer than ``kappa``.
        """
        if self.candidates is None:
            return 4 * kappa
        if self.candidates < kappa:
            raise ValueError(f"selection: expected at least kappa = {kappa} candidates, got {self.candidates}")
        return self.candidates

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({given})"


def checked_scores(scores: Tensor, kappa: int) -> Float[Tensor, "*rows r"]:
    """Scores (…, r) in the dtype that is computed in.

    Raises:
        TypeError: ``scores`` is not a floating point tensor, or ``kappa`` not an int.
        ValueError: ``scores`` without axes, or ``kappa`` below 1.
    """
    check_tensor("scores", scores)
    if not scores.is_floating_point():
        raise TypeError(f"scores: expected a floating point tensor, got {scores.dtype}")
    if not scores.ndim:
        raise ValueError("scores: expected shape (…, candidates), got ()")
    check_int("kappa", kappa, at_least=1)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
