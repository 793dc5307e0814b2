"""The two phases by the backend that is asked for: arguments are checked already."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine import blocked  # registers operators, which a program that was exported looks for
from gpa_nd.engine.arguments import check_no_tangents
from gpa_nd.engine.bias import CoarseBias, hide
from gpa_nd.engine.choice import Affinity, Backend, Chosen, Unselected, choose
from gpa_nd.engine.fill import Rest
from gpa_nd.engine.infinity import infinity_to_nan
from gpa_nd.engine.phase1 import select
from gpa_nd.engine.pooling import mean, pooling
from gpa_nd.engine.precision import own_precision
from gpa_nd.engine.rankings import Spread
from gpa_nd.engine.rules import Rule
from gpa_nd.engine.steps import Phase1Steps, Ranked
from gpa_nd.layout import Layout


def ranked_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    rules: tuple[Rule, ...],
    *,
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float | None,
    backend: Backend,
) -> Int[Tensor, "b h m chosen"]:
    """Phase 1: the relevant coarse keys of every cell.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom.
        rules: how each level selects, finest first.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        scale: factor of the affinity; 1/√c by default.
        backend: what ranks.

    Returns:
        (B, H, m, κ + always on) coarse keys, as :func:`gpa_nd.select_keys` has them.
    """
    if is_empty(q, k):
        always = 0 if layout.always is None else layout.always.shape[1]
        shape = (*q.shape[:2], len(layout.query_cells), min(rules[0].kappa, len(layout.key_groups)) + always)
        return torch.full(shape, -1, dtype=torch.int64, device=q.device)
    chosen = choose(backend, (q, k), rules[0].affinity, rules[0].ranking)
    return select(q, k, layout, rules, bias, phase1_of(chosen, scale_of(scale, q), rules[0].affinity))


def attended(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m chosen"],
    *,
    logits: Float[Tensor, "b h m chosen"] | None,
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float | None,
    affinity: Affinity,
    backend: Backend,
    unselected: Unselected = "ignored",
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2: every query attends to the elements under its cell's coarse keys.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        v: (B, H_k, n_k, c_v) values.
        layout: who belongs to whom.
        relevant: (B, H, m, r) coarse keys of each cell; −1 names none, −2 makes the cell NaN.
        logits: (B, H, m, r) what is added to the scores of all elements under each selected coarse key, finite.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        scale: factor of the affinity; 1/√c by default.
        affinity: its kind.
        backend: what attends.
        unselected: whether coarse keys that a cell does not name stand in the same softmax.

    Returns:
        (B, H, n_q, c_v) in the dtype of q; zeros for a query without keys.
    """
    inputs = tuple(x for x in (q, k, v, logits, bias) if x is not None)
    chosen, scale = choose(backend, (q, k, v), affinity), scale_of(scale, q)
    if is_empty(q, k):  # but a part of the graph that gradients go through
        return q.new_zeros(*q.shape[:3], v.shape[-1]) + sum(x[..., :0].sum().to(q.dtype) for x in inputs)
    if chosen in ("torch", "triton"):
        check_no_tangents(chosen, inputs)
    k, v, rest = hide(k, bias), hide(v, bias), None
    if layout.always is not None:  # Phase 1 has not seen what is always on
        k = infinity_to_nan(k)
    if unselected == "pooled":
        with own_precision(q):
            rest = Rest.of(k, v, layout, relevant, bias, pooling(chosen))
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
        case "portable":
            from gpa_nd.engine import portable

            results = portable.attend_with_sums(q, k, v, layout, relevant, logits, bias, scale, affinity)
            if rest is None:
                return results[0]
    with own_precision(q):
        return rest.beside(*results, q, scale, affinity)


def phase1_of(chosen: Chosen, scale: float, affinity: Affinity) -> Phase1Steps:
    """What a backend does of Phase 1.

    Args:
        chosen: the backend.
        scale: factor of the affinity.
        affinity: its kind.

    Returns:
        The steps. The reference and what stands for a backend in ONNX return sums whether they are wanted or not;
        Triton's kernels have neither another affinity than ``"dot"`` nor a spread.
    """
    match chosen:
        case "reference":
            from gpa_nd.engine import reference

            def rank(
                q: Tensor,
                k: Tensor,
                layout: Layout,
                *,
                kappa: int,
                bias: CoarseBias | None,
                candidates: Tensor | None,
                spread: Spread | None,
                wants_sums: bool,
            ) -> Ranked:
                with own_precision(q):
                    return reference.select_keys(q, k, layout, kappa, scale, affinity, bias, candidates, spread)

            def rank_by_members(
                q: Tensor,
                k: Tensor,
                layout: Layout,
                *,
                kappa: int,
                added: Tensor | None,
                candidates: Tensor,
                wants_sums: bool,
            ) -> Ranked:
                with own_precision(q):
                    return reference.select_by_members(q, k, layout, kappa, scale, affinity, added, candidates)

            return Phase1Steps(pooling(chosen), rank, rank_by_members)
        case "torch":
            return Phase1Steps(
                pooling(chosen),
                lambda q, k, layout, *, kappa, bias, candidates, spread, wants_sums: blocked.select_keys(
                    q, k, layout, kappa, scale, affinity, bias, candidates, spread, wants_sums
                ),
                lambda q, k, layout, *, kappa, added, candidates, wants_sums: blocked.select_by_members(
                    q, k, layout, kappa, scale, affinity, added, candidates, wants_sums
                ),
            )
        case "triton":
            from gpa_nd.engine import fused

            return Phase1Steps(
                mean,
                lambda q, k, layout, *, kappa, bias, candidates, spread, wants_sums: fused.select_keys(
                    q, k, layout, kappa, scale, bias, candidates, wants_sums
                ),
                lambda q, k, layout, *, kappa, added, candidates, wants_sums: fused.select_by_members(
                    q, k, layout, kappa, scale, added, candidates, wants_sums
                ),
            )
        case "portable":
            from gpa_nd.engine import portable

            return Phase1Steps(
                pooling(chosen),
                lambda q, k, layout, *, kappa, bias, candidates, spread, wants_sums: portable.select_keys(
                    q, k, layout, kappa, scale, affinity, bias, candidates, spread
                ),
                lambda q, k, layout, *, kappa, added, candidates, wants_sums: portable.select_by_members(
                    q, k, layout, kappa, scale, affinity, added, candidates
                ),
            )


def is_empty(q: Float[Tensor, "b h n_q c"], k: Float[Tensor, "b h_k n_k c"]) -> bool:
    """Whether there is no query, or no key for them."""
    return 0 in q.shape[:-1] or k.shape[2] == 0


def scale_of(scale: float | None, q: Float[Tensor, "b h n_q c"]) -> float:
    """1/√c where none is given."""
    return q.shape[-1] ** -0.5 if scale is None else scale
