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
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    rules: tuple[Rule, ...],
    *,
    bias: Float[Tensor, "b h_k n_k"] | None,
    unselected: Unselected,
    scale: float | None,
    backend: Backend,
) -> Float[Tensor, "b h n_q c_v"]:
    """The κ coarse keys that are ranked best, or all by dense attention.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        v: (B, H_k, n_k, c_v) values.
        layout: who belongs to whom.
        rules: how each level selects, finest first.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        unselected: whether coarse keys that a cell does not select stand in the same softmax.
        scale: factor of the affinity; 1/√c by default.
        backend: what ranks and attends.

    Returns:
        (B, H, n_q, c_v) in the dtype of q.
    """
    affinity = rules[0].affinity
    if backend == "auto" and affinity == "dot" and bias is None and sees_all(layout, rules) and not is_empty(q, k):
        with own_precision(q):
            return blocked.dense(q, k, v, scale_of(scale, q))
    relevant = ranked_keys(q, k, layout, enough(rules, layout), bias=bias, scale=scale, backend=backend)
    return attended(
        *(q, k, v, layout, relevant),
        logits=None,
        bias=bias,
        scale=scale,
        affinity=affinity,
        backend=backend,
        unselected=unselected,
    )


def attend_softly(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    rules: tuple[Rule, ...],
    *,
    bias: Float[Tensor, "b h_k n_k"] | None,
    selection: Selection,
    unselected: Unselected,
    scale: float | None,
    backend: Backend,
) -> Float[Tensor, "b h n_q c_v"]:
    """More than κ candidates, as a selection weighs them.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        v: (B, H_k, n_k, c_v) values.
        layout: who belongs to whom.
        rules: how each level selects, finest first.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        selection: how candidates are weighed.
        unselected: whether coarse keys that are no candidates stand in the same softmax.
        scale: factor of the affinity; 1/√c by default.
        backend: what ranks and attends.

    Returns:
        (B, H, n_q, c_v) in the dtype of q.
    """
    relevant, logits = weighed_keys(q, k, layout, rules, bias=bias, selection=selection, scale=scale, backend=backend)
    return attended(
        *(q, k, v, layout, relevant),
        logits=logits,
        bias=bias,
        scale=scale,
        affinity=rules[0].affinity,
        backend=backend,
        unselected=unselected,
    )


def weighed_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    rules: tuple[Rule, ...],
    *,
    bias: Float[Tensor, "b h_k n_k"] | None,
    selection: Selection,
    scale: float | None,
    backend: Backend,
) -> tuple[Int[Tensor, "b h m chosen"], Float[Tensor, "b h m chosen"]]:
    """The candidates that a selection gives a weight, and the logarithms of the weights.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom.
        rules: how each level selects, finest first.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        selection: how candidates are weighed.
        scale: factor of the affinity; 1/√c by default.
        backend: what ranks.

    Returns:
        (B, H, m, candidates + always on) coarse keys, −1 where one has no weight, and as many logarithms.
    """
    kappa, affinity = rules[0].kappa, rules[0].affinity
    among = enough((replace(rules[0], kappa=selection.among(kappa)), *rules[1:]), layout)
    relevant = ranked_keys(q, k, layout, among, bias=bias, scale=scale, backend=backend)
    pool = pooling(choose(backend, (q, k), affinity))
    return weigh(selection, q, k, layout, kappa, relevant, bias, scale_of(scale, q), affinity, pool)
