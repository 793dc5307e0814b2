"""Perturbed top-κ: the chance of being chosen when scores are disturbed."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.checks import check_int, check_positive
from gpa_nd.selection.base import Selection, checked_scores

ROOM = 2**24
"""Disturbed scores that are held at once."""


class PerturbedTopK(Selection):
    """Weights by :func:`perturbed_top_k`: how often each candidate is among the κ best of disturbed scores.

    Whatever lies within a few sigma of the κ-th score has a gradient. It is estimated from samples, so it is noisy and
    differs from call to call, unless ``generator`` begins anew each time. After training, ``gpa.selection = None``
    selects hard.

    Args:
        sigma: the standard deviation of the noise on scores, the logarithms of attention.
        samples: how often scores are disturbed.
        candidates: how many coarse keys each cell weighs, at least κ; 4 κ by default.
        generator: where noise comes from, on the device of the scores; PyTorch's own by default. It is neither copied
            nor pickled with a module.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a sigma that is not above 0, ``samples`` or ``candidates`` below 1.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.selection import PerturbedTopK
        >>> gpa = gpa_nd.audio(downsample=4, cells=4, kappa=2, selection=PerturbedTopK(sigma=0.5))
        >>> q, k, v = torch.randn(3, 1, 1, 64, 8)
        >>> gpa(q, k, v).shape
        torch.Size([1, 1, 64, 8])
    """

    def __init__(
        self,
        sigma: float = 0.5,
        samples: int = 100,
        candidates: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(candidates)
        check_positive("sigma", sigma)
        check_int("samples", samples, at_least=1)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")
        self.sigma, self.samples, self.generator = sigma, samples, generator

    def weights(self, scores: Float[Tensor, "*rows r"], kappa: int) -> Float[Tensor, "*rows r"]:
        """As :func:`perturbed_top_k`."""
        return perturbed_top_k(scores, kappa, self.sigma, self.samples, self.generator)

    def __getstate__(self) -> dict[str, object]:
        """Without the generator, which cannot be copied."""
        return {**vars(self), "generator": None}


def perturbed_top_k(
    scores: Float[Tensor, "*rows r"],
    kappa: int,
    sigma: float = 0.5,
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*rows r"]:
    """E[y(scores + σ ε)], y being 1 for the κ largest and 0 for others, ε normal (Berthet et al. 2020).

    The Jacobian is E[(y(scores + σ ε) − y(scores)) εᵀ] / σ, from the same samples (Cordonnier et al. 2021 take it
    without y(scores), which adds nothing to the expectation but to the noise). Its r² numbers of each row are kept for
    the backward pass.

    Args:
        scores: (…, r) of any floating point dtype; −∞ gets weight 0.
        kappa: what the weights of a row add up to, or the number of finite scores where that is less.
        sigma: above 0.
        samples: how many of ε; the error of weights and gradients falls with their square root.
        generator: where ε comes from, on the device of the scores; PyTorch's own by default.

    Returns:
        (…, r) in float32, or in float64 if the scores are.

    Raises:
        TypeError: arguments of the wrong type.
        ValueError: ``kappa`` or ``samples`` below 1, a sigma that is not above 0.
        NotImplementedError: within ``torch.export`` or ``torch.onnx.export``.

    Example:
        >>> import torch
        >>> from gpa_nd.selection import perturbed_top_k
        >>> rng = torch.Generator().manual_seed(0)
        >>> scores = torch.tensor([9.0, 1.0, 1.0, -9.0])
        >>> perturbed_top_k(scores, kappa=2, samples=10000, generator=rng).round(decimals=1)
        tensor([1.0000, 0.5000, 0.5000, 0.0000])
    """
    scores = checked_scores(scores, kappa)
    check_positive("sigma", sigma)
    check_int("samples", samples, at_least=1)
    if torch.compiler.is_exporting():
        raise NotImplementedError("PerturbedTopK: its noise is for training and not exported; gpa.selection = None is")
    there = ~scores.isneginf()
    if kappa >= scores.shape[-1]:
        return there.to(scores.dtype)
    rows = scores.masked_fill(~there, 0).flatten(0, -2) if scores.ndim > 1 else scores.masked_fill(~there, 0)[None]
    weights: Tensor = _Perturbed.apply(rows, there.view(rows.shape), kappa, sigma, samples, generator)  # type: ignore[no-untyped-call]
    return weights.view(scores.shape)


class _Perturbed(torch.autograd.Function):
    """The mean over samples, and its Jacobian."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        there: Tensor,
        kappa: int,
        sigma: float,
        samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        r = scores.shape[-1]
        weights = torch.empty_like(scores)
        wanted = ctx.needs_input_grad[0]
        jacobian = scores.new_empty(*scores.shape, r if wanted else 0)
        step = max(1, ROOM // (samples * r))
        for start in range(0, len(scores), step):
            here = slice(start, start + step)
            x, among = scores[here, None], there[here, None]
            noise = torch.randn(len(x), samples, r, dtype=x.dtype, device=x.device, generator=generator)
            chosen = _top(torch.add(x, noise, alpha=sigma), among, kappa)
            weights[here] = chosen.mean(1)
            if wanted:
                chosen -= _top(x, among, kappa)
                torch.bmm(chosen.mT, noise.masked_fill_(~among, 0), out=jacobian[here])
        ctx.save_for_backward(jacobian.div_(samples * sigma))
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (jacobian,) = ctx.saved_tensors
        return (grad[:, None] @ jacobian)[:, 0], None, None, None, None, None


def _top(scores: Tensor, there: Tensor, kappa: int) -> Tensor:
    """1 for the κ largest of those that are there, 0 for others."""
    best = scores.masked_fill(~there, -torch.inf).topk(kappa, dim=-1, sorted=False).indices
    return torch.zeros_like(scores).scatter_(-1, best, 1).masked_fill_(~there, 0)
