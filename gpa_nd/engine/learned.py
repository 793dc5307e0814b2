"""Between the two phases where selection learns: from candidates to weights, and from weights to logits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import kind_of
from gpa_nd.engine.mass import log_mass
from gpa_nd.engine.steps import Pool
from gpa_nd.layout import Layout
from gpa_nd.selection.base import Selection


def check_selection(selection: Selection | None, kappa: int) -> None:
    """A selection with enough candidates, or none.

    Raises:
        TypeError: anything else.
        ValueError: fewer candidates than ``kappa``.
    """
    if selection is None:
        return
    if not isinstance(selection, Selection):
        raise TypeError(f"selection: expected a Selection or None, got {kind_of(selection)}")
    selection.among(kappa)


def weigh(
    selection: Selection,
    q: Tensor,
    k: Tensor,
    layout: Layout,
    kappa: int,
    relevant: Tensor,
    bias: Tensor | None,
    scale: float,
    affinity: str,
    pool: Pool,
) -> tuple[Int[Tensor, "b h m r"], Float[Tensor, "b h m r"]]:
    """The candidates without those of weight 0, and the logarithms of the weights: what Phase 2 adds to the scores.

    Args:
        selection: the rule.
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom.
        kappa: coarse keys that the weights of a cell add up to.
        relevant: (B, H, m, r) the candidates, and after them the columns of ``layout.always``, whose weight is 1.
        bias: what is added to the affinities of each key.
        scale: factor of the affinity.
        affinity: its kind.
        pool: the backend's, with a gradient.
    """
    always = 0 if layout.always is None else layout.always.shape[1]
    count = relevant.shape[-1] - always
    asked = _ranked_with(relevant, layout) if layout.contested else relevant[..., :count]
    scores = log_mass(q, k, layout, asked, bias, scale, affinity, pool)[..., :count]
    weights = selection.weights(scores, kappa)
    _check_weights(selection, weights, scores)
    weights = torch.cat([weights, weights.new_ones(*weights.shape[:3], always)], dim=-1)
    removed = weights <= 0
    logits = weights.masked_fill(removed, 1).log()  # the logarithm of 0 has no gradient
    return relevant.masked_fill(removed & (relevant >= 0), -1), logits


def _check_weights(selection: Selection, weights: object, scores: Tensor) -> None:
    """What the law of a selection asks of its weights; their values are looked at on a CPU, where nothing waits."""
    name = f"{type(selection).__name__}.weights"
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        got = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise TypeError(f"{name}: expected a floating point tensor, got {got}")
    if weights.shape != scores.shape:
        raise ValueError(f"{name}: expected shape {tuple(scores.shape)} as scores have, got {tuple(weights.shape)}")
    if torch.compiler.is_compiling() or weights.device.type != "cpu" or not weights.numel():
        return
    least, most = torch.stack(weights.detach().nan_to_num(0).aminmax()).tolist()
    if least < 0 or most > 1 + 1e-3:
        raise ValueError(f"{name}: expected weights in [0, 1], got {least:.4g} … {most:.4g}")


def _ranked_with(relevant: Tensor, layout: Layout) -> Int[Tensor, "b h m r"]:
    """Candidates, and those of the coarse keys that are always on which Phase 1 ranks beside them; −1 for others."""
    assert layout.always is not None
    named, ranked = layout.always.clamp_min(0), layout.always >= 0
    if layout.key_ranges is not None:
        ranked = ranked & (layout.key_ranges[:, :1] <= named) & (named < layout.key_ranges[:, 1:])
    if layout.coarse_positions is not None:
        of_cells, of_keys = layout.coarse_positions
        ranked = ranked & (of_keys[named] <= of_cells[:, None]).all(-1)
    selectable = ranked.new_ones(len(ranked), relevant.shape[-1] - ranked.shape[1])
    return relevant.masked_fill(~torch.cat([selectable, ranked], dim=1), -1)


class Straight(torch.autograd.Function):
    """The first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, soft: Tensor) -> Tensor:
        """The first argument."""
        return result.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """All of the gradient to the second one."""
        return None, grad
