"""Algorithm 1 as three functions on flat tokens: check the arguments, then choose a backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.engine import blocked  # registers operators, which a program that was exported looks for
from gpa_nd.engine.arguments import (
    check_choices,
    check_kappa,
    check_key_bias,
    check_no_tangents,
    check_ranking,
    check_relevant,
    check_tokens,
    check_unselected,
)
from gpa_nd.engine.bias import hide, key_bias_of
from gpa_nd.engine.choice import Affinity, Backend, Unselected, choose
from gpa_nd.engine.fill import Rest
from gpa_nd.engine.infinity import infinity_to_nan
from gpa_nd.engine.learned import Straight, check_selection, weigh
from gpa_nd.engine.phase1 import Phase1, Rule, select
from gpa_nd.engine.precision import own_precision
from gpa_nd.engine.rankings import Ranking
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition
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
    rules = _rules(kappas, ranking, mass, affinity)
    return _select_keys(q, k, layout, rules, key_bias_of(key_mask, key_bias, k), scale, backend)


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
    return _attend(q, k, v, layout, relevant, logits, key_bias_of(key_mask, key_bias, k), scale, affinity, backend)


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
    computes the same answer without gathering.

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
    rules = _rules(kappas, ranking, mass, affinity)
    if selection is not None and not _is_empty(q, k):
        soft = _attend_softly(q, k, v, layout, rules, bias, selection, unselected, scale, backend)
        if not selection.hard:
            return soft
        with torch.no_grad():
            result = _attend_hard(q, k, v, layout, rules, bias, unselected, scale, backend)
        return Straight.apply(result, soft)  # type: ignore[no-any-return, no-untyped-call]
    return _attend_hard(q, k, v, layout, rules, bias, unselected, scale, backend)


def _attend_hard(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    unselected: Unselected,
    scale: float | None,
    backend: Backend,
) -> Tensor:
    """The κ coarse keys that are ranked best, or all by dense attention."""
    affinity = rules[0].affinity
    if backend == "auto" and affinity == "dot" and bias is None and _sees_all(layout, rules) and not _is_empty(q, k):
        with own_precision(q):
            return blocked.dense(q, k, v, _scale(scale, q))
    relevant = _select_keys(q, k, layout, _enough(rules, layout), bias, scale, backend)
    return _attend(q, k, v, layout, relevant, None, bias, scale, affinity, backend, unselected)


def _attend_softly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    selection: Selection,
    unselected: Unselected,
    scale: float | None,
    backend: Backend,
) -> Tensor:
    """More than κ candidates, as a selection weighs them."""
    kappa, affinity = rules[0].kappa, rules[0].affinity
    among = _enough((replace(rules[0], kappa=selection.among(kappa)), *rules[1:]), layout)
    relevant = _select_keys(q, k, layout, among, bias, scale, backend)
    pool = _mean if choose(backend, (q, k, v), affinity) == "reference" else blocked.pool
    relevant, logits = weigh(selection, q, k, layout, kappa, relevant, bias, _scale(scale, q), affinity, pool)
    return _attend(q, k, v, layout, relevant, logits, bias, scale, affinity, backend, unselected)


def _rules(kappas: tuple[int, ...], ranking: Ranking, mass: float | None, affinity: Affinity) -> tuple[Rule, ...]:
    """How each level selects; a mass is for the finest one."""
    return tuple(Rule(kappa, ranking, None if level else mass, affinity) for level, kappa in enumerate(kappas))


def _enough(rules: tuple[Rule, ...], layout: Layout) -> tuple[Rule, ...]:
    """κ of every level, but no more than any cell may select: structures side by side have many more together."""
    here = replace(rules[0], kappa=max(1, min(rules[0].kappa, layout.most_visible)))
    return (here,) if layout.coarser is None else (here, *_enough(rules[1:], layout.coarser))


def _sees_all(layout: Layout, rules: tuple[Rule, ...]) -> bool:
    """Whether every query attends to every key."""
    if layout.coarser is not None and not _sees_all(layout.coarser, rules[1:]):
        return False
    everywhere = layout.members.covers and layout.key_ranges is None and layout.positions is None
    selects_all = rules[0].kappa >= len(layout.key_groups) and rules[0].mass is None
    return everywhere and layout.coarse_positions is None and selects_all


def _select_keys(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    scale: float | None,
    backend: Backend,
) -> Tensor:
    if _is_empty(q, k):
        always = 0 if layout.always is None else layout.always.shape[1]
        shape = (*q.shape[:2], len(layout.query_cells), min(rules[0].kappa, len(layout.key_groups)) + always)
        return torch.full(shape, -1, dtype=torch.int64, device=q.device)
    chosen = choose(backend, (q, k), rules[0].affinity, rules[0].ranking)
    return select(q, k, layout, rules, bias, _phase1(chosen, _scale(scale, q), rules[0].affinity))


def _mean(x: Tensor, groups: Partition) -> Tensor:
    return groups.mean(x)


def _phase1(chosen: Literal["reference", "torch", "triton"], scale: float, affinity: Affinity) -> Phase1:
    """What this backend does of Phase 1."""
    match chosen:
        case "reference":
            from gpa_nd.engine import reference

            def rank(q: Tensor, k: Tensor, layout: Layout, kappa: int, *rest: Any) -> tuple[Tensor, Tensor]:
                with own_precision(q):
                    return reference.select_keys(q, k, layout, kappa, scale, affinity, *rest[:-1])

            def rank_by_members(q: Tensor, k: Tensor, layout: Layout, kappa: int, *rest: Any) -> tuple[Tensor, Tensor]:
                with own_precision(q):
                    return reference.select_by_members(q, k, layout, kappa, scale, affinity, *rest[:-1])

            return Phase1(_mean, rank, rank_by_members)
        case "torch":
            return Phase1(
                blocked.pool,
                lambda q, k, layout, kappa, *rest: blocked.select_keys(q, k, layout, kappa, scale, affinity, *rest),
                lambda q, k, layout, kappa, *rest: blocked.select_by_members(
                    q, k, layout, kappa, scale, affinity, *rest
                ),
            )
        case "triton":
            from gpa_nd.engine import fused

            return Phase1(
                _mean,
                lambda q, k, layout, kappa, bias, candidates, _, wants_sums: fused.select_keys(
                    q, k, layout, kappa, scale, bias, candidates, wants_sums
                ),
                lambda q, k, layout, kappa, *rest: fused.select_by_members(q, k, layout, kappa, scale, *rest),
            )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    relevant: Tensor,
    logits: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
    affinity: Affinity,
    backend: Backend,
    unselected: Unselected = "ignored",
) -> Tensor:
    inputs = tuple(x for x in (q, k, v, logits, bias) if x is not None)
    chosen, scale = choose(backend, (q, k, v), affinity), _scale(scale, q)
    if _is_empty(q, k):  # but a part of the graph that gradients go through
        return q.new_zeros(*q.shape[:3], v.shape[-1]) + sum(x[..., :0].sum().to(q.dtype) for x in inputs)
    if chosen != "reference":
        check_no_tangents(chosen, inputs)
    k, v, rest = hide(k, bias), hide(v, bias), None
    if layout.always is not None:  # Phase 1 has not seen what is always on
        k = infinity_to_nan(k)
    if unselected == "pooled":
        with own_precision(q):
            rest = Rest.of(k, v, layout, relevant, bias, _mean if chosen == "reference" else blocked.pool)
    match chosen:
        case "reference":
            from gpa_nd.engine import reference

            with own_precision(q):
                return reference.attend(q, k, v, layout, relevant, logits, bias, scale, affinity, rest)
        case "torch":
            if rest is None:
                return blocked.attend(q, k, v, layout, relevant, logits, bias, scale, affinity)
            results = blocked.attend_with_sums(q, k, v, layout, relevant, logits, bias, scale, affinity)
        case "triton":
            from gpa_nd.engine import fused

            if rest is None:
                return fused.attend(q, k, v, layout, relevant, logits, bias, scale)
            results = fused.attend_with_sums(q, k, v, layout, relevant, logits, bias, scale)
    with own_precision(q):
        return rest.beside(*results, q, scale, affinity)


def _is_empty(q: Tensor, k: Tensor) -> bool:
    """Whether there is no query, or no key for them."""
    return 0 in q.shape[:-1] or k.shape[2] == 0


def _scale(scale: float | None, q: Tensor) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale
