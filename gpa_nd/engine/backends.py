"""The two phases by the backend that is asked for: arguments are checked already."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine import blocked  # registers operators, which a program that was exported looks for
from gpa_nd.engine.arguments import check_no_tangents
from gpa_nd.engine.bias import hide
from gpa_nd.engine.choice import Affinity, Backend, Chosen, Unselected, choose
from gpa_nd.engine.fill import Rest
from gpa_nd.engine.infinity import infinity_to_nan
from gpa_nd.engine.phase1 import Phase1Steps, select
from gpa_nd.engine.pooling import mean, pooling
from gpa_nd.engine.precision import own_precision
from gpa_nd.engine.rules import Rule
from gpa_nd.layout import Layout


def ranked_keys(
    q: Tensor,
    k: Tensor,
    layout: Layout,
    rules: tuple[Rule, ...],
    bias: Tensor | None,
    scale: float | None,
    backend: Backend,
) -> Int[Tensor, "b h m chosen"]:
    """Phase 1: the relevant coarse keys of every cell."""
    if is_empty(q, k):
        always = 0 if layout.always is None else layout.always.shape[1]
        shape = (*q.shape[:2], len(layout.query_cells), min(rules[0].kappa, len(layout.key_groups)) + always)
        return torch.full(shape, -1, dtype=torch.int64, device=q.device)
    chosen = choose(backend, (q, k), rules[0].affinity, rules[0].ranking)
    return select(q, k, layout, rules, bias, phase1_of(chosen, scale_of(scale, q), rules[0].affinity))


def attended(
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
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2: every query attends to the elements under its cell's coarse keys."""
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

            return Phase1Steps(pooling(chosen), rank, rank_by_members)
        case "torch":
            return Phase1Steps(
                pooling(chosen),
                lambda q, k, layout, kappa, *rest: blocked.select_keys(q, k, layout, kappa, scale, affinity, *rest),
                lambda q, k, layout, kappa, *rest: blocked.select_by_members(
                    q, k, layout, kappa, scale, affinity, *rest
                ),
            )
        case "triton":
            from gpa_nd.engine import fused

            return Phase1Steps(
                mean,
                lambda q, k, layout, kappa, bias, candidates, _, wants_sums: fused.select_keys(
                    q, k, layout, kappa, scale, bias, candidates, wants_sums
                ),
                lambda q, k, layout, kappa, *rest: fused.select_by_members(q, k, layout, kappa, scale, *rest),
            )
        case "portable":
            from gpa_nd.engine import portable

            return Phase1Steps(
                pooling(chosen),
                lambda q, k, layout, kappa, *rest: portable.select_keys(
                    q, k, layout, kappa, scale, affinity, *rest[:-1]
                ),
                lambda q, k, layout, kappa, *rest: portable.select_by_members(
                    q, k, layout, kappa, scale, affinity, *rest[:-1]
                ),
            )


def is_empty(q: Tensor, k: Tensor) -> bool:
    """Whether there is no query, or no key for them."""
    return 0 in q.shape[:-1] or k.shape[2] == 0


def scale_of(scale: float | None, q: Tensor) -> float:
    """1/√c where none is given."""
    return q.shape[-1] ** -0.5 if scale is None else scale
