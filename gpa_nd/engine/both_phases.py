"""Both phases in one: the κ best coarse keys, candidates that a selection weighs, or all keys by dense attention."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine import blocked
from gpa_nd.engine.backends import attended, is_empty, ranked_keys, scale_of
from gpa_nd.engine.choice import Backend, Unselected, choose
from gpa_nd.engine.learned import weigh
from gpa_nd.engine.pooling import pooling
from gpa_nd.engine.precision import own_precision
from gpa_nd.engine.rules import Rule, enough, sees_all
from gpa_nd.layout import Layout
from gpa_nd.selection.base import Selection


def attend_hard(
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
    if backend == "auto" and affinity == "dot" and bias is None and sees_all(layout, rules) and not is_empty(q, k):
        with own_precision(q):
            return blocked.dense(q, k, v, scale_of(scale, q))
    relevant = ranked_keys(q, k, layout, enough(rules, layout), bias, scale, backend)
    return attended(q, k, v, layout, relevant, None, bias, scale, affinity, backend, unselected)


def attend_softly(
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
    relevant, logits = weighed_keys(q, k, layout, rules, bias, selection, scale, backend)
    return attended(q, k, v, layout, relevant, logits, bias, scale, rules[0].affinity, backend, unselected)


def weighed_keys(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    selection: Selection,
    scale: float | None,
    backend: Backend,
) -> tuple[Int[Tensor, "b h m chosen"], Float[Tensor, "b h m chosen"]]:
    """The candidates that a selection gives a weight, and the logarithms of the weights."""
    kappa, affinity = rules[0].kappa, rules[0].affinity
    among = enough((replace(rules[0], kappa=selection.among(kappa)), *rules[1:]), layout)
    relevant = ranked_keys(q, k, layout, among, bias, scale, backend)
    pool = pooling(choose(backend, (q, k), affinity))
    return weigh(selection, q, k, layout, kappa, relevant, bias, scale_of(scale, q), affinity, pool)
