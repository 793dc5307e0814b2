"""Straight-through: the result of hard selection with the gradient of a soft one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gpa_nd.selection.base import Selection
from gpa_nd.selection.soft import SoftTopK


class StraightThrough(Selection):
    """The result of hard selection, bit for bit, with all gradients of a soft selection (after Bengio et al. 2013).

    What is trained is what is used afterwards without it: ``gpa.selection = None`` changes no result. The gradient is
    that of another function, the soft one, and the two agree only as that becomes hard. Training costs both.

    Args:
        soft: the selection whose gradient it is, with its candidates; :class:`SoftTopK` of temperature 1 by default.

    Raises:
        TypeError: ``soft`` is no selection.
        ValueError: ``soft`` is itself hard.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.selection import SoftTopK, StraightThrough
        >>> gpa = gpa_nd.audio(downsample=4, cells=4, kappa=1, selection=StraightThrough(SoftTopK(temperature=2.0)))
        >>> q, k, v = torch.randn(3, 1, 1, 64, 8)
        >>> gpa(q, k, v).equal(gpa_nd.audio(downsample=4, cells=4, kappa=1)(q, k, v))
        True
    """

    hard = True

    def __init__(self, soft: Selection | None = None) -> None:
        soft = SoftTopK() if soft is None else soft
        if not isinstance(soft, Selection):
            raise TypeError(f"soft: expected a Selection, got {type(soft).__name__}")
        if soft.hard:
            raise ValueError(f"soft: expected a selection that is not hard, got {soft!r}")
        super().__init__(soft.candidates)
        self.soft = soft

    def weights(self, scores: Float[Tensor, "*rows r"], kappa: int) -> Float[Tensor, "*rows r"]:
        """Those of the soft selection."""
        return self.soft.weights(scores, kappa)

    def __repr__(self) -> str:
        return f"StraightThrough({self.soft!r})"
