"""Is it right? The fused backend against the float64 reference, unwritten memory full of NaN, again and again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks.floor import attended_pairs
from benchmarks.gpu.phases import attend, select
from benchmarks.gpu.rows import Row, Tokens, tokens
from gpa_nd import Layout, testing
from gpa_nd.engine import Backend
from gpa_nd.engine.bias import coarse_bias, hide
from gpa_nd.engine.reference import pooled_keys, softmax, visible

KEPT_AT_MOST = 2**34  # bytes
GAP_AT_MOST = 1e-5  # in every dtype: what is ranked are means rounded to it, in every backend


def check(row: Row, dtype: torch.dtype, device: torch.device, repeats: int) -> dict[str, Any]:
    """Errors over what is allowed, for the result and every gradient; what is wrong, in words, under ``faults``."""
    data, faults = tokens(row, dtype, device), []
    names = ["out", *(f"d{name}" for name in data.names)]
    with nan_in_new_memory():
        relevant = select(data, row.kappa)
        fast = run(data, relevant, "triton")
    chosen = selected(data.layout, relevant)
    kappas = row.kappa if isinstance(row.kappa, tuple) else (row.kappa,)
    q, k, bias = (None if x is None else x.detach() for x in (data.q, data.k, data.bias))
    gap = ranking_gap(q, k, data.layout, kappas, bias, relevant)
    if gap > GAP_AT_MOST:
        faults.append(f"selection: a coarse key that was left out is {gap:.1e} better than one that was chosen")
    if not is_distinct(chosen):
        faults.append("selection: a coarse key was chosen twice, or −1 is not last")
    plain, exact = run(data, relevant, "reference"), run(data, relevant, "reference", torch.float64)
    ratios = {}
    for number, (name, got, usual, right) in enumerate(zip(names, fast, plain, exact, strict=True)):
        factor = 3.0 if number else 2.0
        ratios[name] = over_budget(got, usual, right, factor)
        try:
            testing.assert_within_budget(got, usual, right, factor)
        except AssertionError as error:
            faults.append(f"{name}: {error}")
    del plain, exact
    for repeat in range(repeats):
        again = select(data, row.kappa)
        if not relevant.equal(again):
            faults.append(f"repeat {repeat + 1}: another selection")
        results = zip(names, fast, run(data, relevant, "triton"), strict=True)
        if changed := [name for name, first, other in results if not first.equal(other)]:
            faults.append(f"repeat {repeat + 1}: {', '.join(changed)} not bit for bit as before")
        if faults:
            break
    return {"gap": gap, "over_budget": ratios, "repeats": repeats, "faults": faults}


def run(data: Tokens, relevant: Tensor, backend: Backend, wide: torch.dtype | None = None) -> list[Tensor]:
    """The result of Phase 2 and its gradients."""
    parts = heads_apart(data, relevant) if backend == "reference" else [(data, relevant)]
    results = [_run(part, chosen, backend, wide) for part, chosen in parts]
    return [torch.cat(tensors, dim=1) for tensors in zip(*results, strict=True)]


def heads_apart(data: Tokens, relevant: Tensor) -> list[tuple[Tokens, Tensor]]:
    """The heads one by one, where plain autograd would keep more scores than a GPU holds."""
    groups, each = data.k.shape[1], data.q.shape[1] // data.k.shape[1]
    if groups == 1 or attended_pairs(data.layout, relevant) * 20 < KEPT_AT_MOST:
        return [(data, relevant)]
    parts = []
    for group in range(groups):
        of_q, of_k = slice(group * each, (group + 1) * each), slice(group, group + 1)
        logits = None if data.logits is None else data.logits[:, of_q]
        bias = None if data.bias is None else data.bias[:, of_k]
        tensors = data.q[:, of_q], data.k[:, of_k], data.v[:, of_k], logits, bias, data.gradient[:, of_q]
        parts.append((Tokens(data.layout, *tensors), relevant[:, of_q]))
    return parts


def _run(data: Tokens, relevant: Tensor, backend: Backend, wide: torch.dtype | None) -> list[Tensor]:
    leaves = data.leaves(wide)
    out = attend(leaves, relevant, backend)
    return [out.detach(), *torch.autograd.grad(out, leaves.inputs, data.gradient.to(out.dtype))]


def over_budget(fast: Tensor, plain: Tensor, exact: Tensor, factor: float) -> float:
    """The error over what is allowed; at most 1 where all is well, NaN where the result has NaN."""
    error, usual = (float((x.double() - exact).abs().max()) for x in (fast, plain))
    return error / max(factor * usual + torch.finfo(fast.dtype).eps * float(exact.abs().max()), 1e-300)


def selected(layout: Layout, relevant: Tensor) -> Tensor:
    """What was selected, without what is always on, which stands behind it."""
    return relevant if layout.always is None else relevant[..., : relevant.shape[-1] - layout.always.shape[1]]


def ranking_gap(
    q: Tensor, k: Tensor, layout: Layout, kappas: tuple[int, ...], bias: Tensor | None, relevant: Tensor
) -> float:
    """By how much, relatively, a coarse key left out is better than one chosen: at most rounding (law 7).

    Infinite where a cell chose fewer than it could, or one that it may not see. At every level, given what those above
    it chose.
    """
    worst, heads, keys = 0.0, q.shape[1] // k.shape[1], len(layout.key_groups)
    k, coarse = hide(k, bias), None if bias is None else coarse_bias(bias, layout.key_groups)
    k_low, candidates = pooled_keys(k, layout, coarse), None
    if layout.coarser is not None:
        q_low, added = layout.query_groups.mean(q), None if coarse is None else coarse.added
        above = gpa_nd.select_keys(
            q_low, k_low, layout.coarser, kappa=kappas[1:], key_bias=added, enable_gqa=heads > 1, backend="triton"
        )
        worst = ranking_gap(q_low, k_low, layout.coarser, kappas[1:], added, above)
        above = above[:, :, layout.parents]
        candidates = torch.where(above[..., None] >= 0, layout.coarser.members.table[above.clamp_min(0)], -1)
    cells = len(layout.query_cells)
    on = torch.zeros(cells, keys + 1, dtype=torch.bool, device=q.device)
    if layout.always is not None:
        on.scatter_(1, layout.always.masked_fill(layout.always < 0, keys), True)
        if not bool((relevant[..., -layout.always.shape[1] :] == layout.always).all()):
            return torch.inf
    rows = layout.rankers.order
    labels = torch.arange(cells, device=q.device).repeat_interleave(layout.rankers.sizes)
    for head in range(q.shape[1]):  # one at a time: all sums at once would not fit
        seen = visible(layout, None if candidates is None else candidates[:, head].flatten(-2))
        scores = layout.query_groups.mean(q[:, head])[:, rows].double() @ k_low[:, head // heads].double().mT
        scores *= q.shape[-1] ** -0.5
        if coarse is not None:
            added = coarse.added[:, head // heads, None].double()
            scores, seen = scores + added, seen & ~added.isneginf()
        seen = seen.expand(len(scores), -1, -1)
        weights = softmax(scores, seen[:, labels])
        sums = weights.new_zeros(len(weights), cells, keys).index_add_(1, labels, weights)
        chosen = selected(layout, relevant)[:, head]
        taken = sums.new_zeros(*sums.shape[:-1], keys + 1, dtype=torch.bool)
        taken = taken.scatter_(-1, chosen.masked_fill(chosen < 0, keys), True)[..., :keys]
        left = seen & ~on[:, :keys]
        enough = left.sum(-1).clamp(max=chosen.shape[-1])
        if bool(((chosen >= 0).sum(-1) != enough).any()) or bool((taken & ~left).any()):
            return torch.inf
        least = sums.masked_fill(~taken, torch.inf).amin(-1).clamp_min(1e-30)
        best = sums.masked_fill(taken | ~left, 0.0).amax(-1)
        worst = max(worst, float((best / least - 1).max()))
    return worst


def is_distinct(relevant: Tensor) -> bool:
    """Whether no coarse key is chosen twice and −1 comes last."""
    ordered = relevant.sort(-1).values
    twice = (ordered.diff(dim=-1) == 0) & (ordered[..., 1:] >= 0)
    late = (relevant[..., :-1] < 0) & (relevant[..., 1:] >= 0)
    return not bool(twice.any() | late.any())


@contextmanager
def nan_in_new_memory() -> Iterator[None]:
    """Fill whatever ``torch.empty`` and its kin return with NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = filled
