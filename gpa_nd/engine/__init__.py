"""Algorithm 1 as three functions on flat tokens: check the arguments, then choose a backend."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine.arguments import (
    check_choices,
    check_kappa,
    check_key_bias,
    check_ranking,
    check_relevant,
    check_tokens,
    check_unselected,
)
from gpa_nd.engine.backends import attended, is_empty, ranked_keys
from gpa_nd.engine.bias import key_bias_of
from gpa_nd.engine.both_phases import attend_hard, attend_softly
from gpa_nd.engine.choice import Affinity, Backend, Unselected
from gpa_nd.engine.learned import Straight, check_selection
from gpa_nd.engine.rankings import Ranking
from gpa_nd.engine.rules import rules_of
from gpa_nd.layout import Layout
from gpa_nd.selection.base import Selection

__all__ = ["Affinity", "Backend", "Ranking", "Unselected", "attend", "gpa_attention", "select_keys"]


def select_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    *,
    kappa: int | tuple[int, ...],
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> Int[Tensor, "b h m chosen"]:
    """Phase 1 (Algorithm 1, lines 4–11): the relevant coarse keys of every cell.

    Coarse keys are ranked for a cell by the sum of the softmax over the cell's coarse queries; ties go to the lower
    index. The selection has no gradient.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        layout: who belongs to whom.
        kappa: coarse keys to keep for each cell; where the layout has coarser ones, a number for each level, finest
            first, or one for all.
        key_mask: (B, n_k) bool, False for keys that nobody sees; they do not enter the means of Phase 1 either. Padded
            queries still have a say in what their cell selects. Not broadcast, nor is ``key_bias``.
        key_bias: (B, H_k, n_k) of any floating point dtype, added to the affinities of each key; Phase 1 adds the mean
            over a group. −∞ masks the key; NaN and +∞ keep every cell that may see it from being ranked.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        ranking: by what coarse keys are ranked: ``"mean"``, ``"rms"``, ``"moments"`` or ``"rerank"``; see
            :class:`~gpa_nd.GPA`. ``"rerank"`` needs a layout with parts of groups.
        mass: how much of a cell's attention in Phase 1, in (0, 1], its coarse keys shall hold together: the fewest that
            do are kept, at most ``kappa``. Those that are always on are kept, whatever they hold.
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Returns:
        (B, H, m, min(kappa, n_k')) int64: distinct coarse keys, best first; −1 where a cell may see fewer, or fewer
        hold the mass; a row of −2 where NaN or infinity keeps a cell from being ranked. After them come the columns of
        :attr:`Layout.always`.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, ``kappa`` below 1, a mass outside (0, 1], a ranking that
            the affinity, the backend or a layout without parts does not have, or an unknown choice.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 9     # four groups of two equal elements
        >>> gpa_nd.select_keys(x, x, layout, kappa=2)[0, 0].tolist()
        [[0, 1], [2, 3]]
    """
    check_tokens({"q": q, "k": k}, layout, enable_gqa)
    kappas = check_kappa(kappa, layout)
    check_choices(scale, affinity, backend)
    check_ranking(ranking, affinity, mass, layout)
    check_key_bias(key_mask, key_bias, k)
    rules = rules_of(kappas, ranking, mass, affinity)
    bias = key_bias_of(key_mask, key_bias, k)
    return ranked_keys(q, k, layout, rules, bias=bias, scale=scale, backend=backend)


def attend(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m chosen"],
    *,
    logits: Float[Tensor, "b h m chosen"] | None = None,
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2 (Algorithm 1, lines 12–19): every query attends to the elements under its cell's coarse keys.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        v: (B, H, n_k, c_v) values.
        layout: who belongs to whom.
        relevant: (B, H, m, r) int64 coarse keys of each cell, as from :func:`select_keys`; −1 names none, −2 makes the
            cell NaN.
        logits: (B, H, m, r) of any floating point dtype, added to the scores of all elements under each selected coarse
            key; differentiable. The way in for a selection that learns, a coarse prior or a position bias. −∞ removes
            the key. Not broadcast.
        key_mask: (B, n_k) bool, False for keys that nobody sees.
        key_bias: (B, H_k, n_k) of any floating point dtype, added to the affinities of each key; differentiable. −∞
            masks the key; NaN and +∞ make NaN of every query that sees it.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Returns:
        (B, H, n_q, c_v), in the dtype of q; zeros for a query without keys.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, an unknown affinity or backend.
        NotImplementedError: forward-mode or second derivatives, which only the reference has.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((4,), (4,))
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1)
        >>> gpa_nd.attend(q, k, v, layout, torch.tensor([[[[1], [0]]]])).flatten().tolist()
        [3.5, 3.5, 1.5, 1.5]
    """
    check_tokens({"q": q, "k": k, "v": v}, layout, enable_gqa)
    check_choices(scale, affinity, backend)
    check_relevant(relevant, logits, q, layout)
    check_key_bias(key_mask, key_bias, k)
    if logits is not None:  # a logit of −∞ removes the key, also where it is the only one
        removed = logits.isneginf()
        relevant, logits = relevant.masked_fill(removed & (relevant >= 0), -1), logits.masked_fill(removed, 0)
    bias = key_bias_of(key_mask, key_bias, k)
    return attended(
        q, k, v, layout, relevant, logits=logits, bias=bias, scale=scale, affinity=affinity, backend=backend
    )


def gpa_attention(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    *,
    kappa: int | tuple[int, ...],
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    selection: Selection | None = None,
    unselected: Unselected = "ignored",
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> Float[Tensor, "b h n_q c_v"]:
    """Algorithm 1: ``attend(…, select_keys(…))``.

    With ``backend="auto"``, ``affinity="dot"`` and ``kappa`` at or above the number of coarse keys, dense attention
    computes the same answer without gathering, unless a mask, a bias, a mass or the layout hides keys.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        v: (B, H, n_k, c_v) values.
        layout: who belongs to whom.
        kappa: coarse keys to keep for each cell; at or above n_k' the result is dense attention exactly. Where the
            layout has coarser ones, a number for each level, finest first, or one for all.
        key_mask: (B, n_k) bool, False for keys that nobody sees; they do not enter the means of Phase 1 either. Padded
            queries still have a say in what their cell selects. Not broadcast, nor is ``key_bias``.
        key_bias: (B, H_k, n_k) of any floating point dtype, added to the affinities of each key; Phase 1 adds the mean
            over a group. Differentiable. −∞ masks the key; NaN and +∞ make NaN of every output that may see it, as one
            in k does, selected or not.
        selection: how coarse keys are weighed, with a gradient: one of :mod:`gpa_nd.selection`. By default the κ best
            ones are selected, as in the paper, and the choice has no gradient.
        unselected: ``"ignored"``, or ``"pooled"``: coarse keys that a cell may select and does not stand in the same
            softmax, each as the mean of its keys and values that counts for as many. It costs n_q · n_k' affinities.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        ranking: by what coarse keys are ranked: ``"mean"``, ``"rms"``, ``"moments"`` or ``"rerank"``; see
            :class:`~gpa_nd.GPA`. ``"rerank"`` needs a layout with parts of groups.
        mass: how much of a cell's attention in Phase 1, in (0, 1], its coarse keys shall hold together: the fewest that
            do are kept, at most ``kappa``. Those that are always on are kept, whatever they hold.
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Returns:
        (B, H, n_q, c_v), in the dtype of q; zeros for a query without a visible key, as where there are no keys.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, ``kappa`` below 1, a mass outside (0, 1], a ranking that
            the affinity, the backend or a layout without parts does not have, or an unknown choice.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.image(downsample=4, cells=(4, 4), kappa=3).layout((32, 48), (32, 48))
        >>> q, k, v = torch.randn(3, 1, 2, 32 * 48, 16)
        >>> gpa_nd.gpa_attention(q, k, v, layout, kappa=3).shape
        torch.Size([1, 2, 1536, 16])
    """
    check_tokens({"q": q, "k": k, "v": v}, layout, enable_gqa)
    kappas = check_kappa(kappa, layout)
    check_choices(scale, affinity, backend)
    check_ranking(ranking, affinity, mass, layout)
    check_key_bias(key_mask, key_bias, k)
    check_selection(selection, kappas[0])
    check_unselected(unselected)
    bias = key_bias_of(key_mask, key_bias, k)
    inputs = q, k, v, layout, rules_of(kappas, ranking, mass, affinity)
    if selection is not None and not is_empty(q, k):
        soft = attend_softly(
            *inputs, bias=bias, selection=selection, unselected=unselected, scale=scale, backend=backend
        )
        if not selection.hard:
            return soft
        with torch.no_grad():
            result = attend_hard(*inputs, bias=bias, unselected=unselected, scale=scale, backend=backend)
        return Straight.apply(result, soft)  # type: ignore[no-any-return, no-untyped-call]
    return attend_hard(*inputs, bias=bias, unselected=unselected, scale=scale, backend=backend)
