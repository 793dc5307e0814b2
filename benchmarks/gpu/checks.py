"""Is it right? The fused backend against the float64 reference, unwritten memory full of NaN, again and again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.floor import attended_pairs
from benchmarks.gpu.phases import attend, select
from benchmarks.gpu.rows import Row, Tokens, tokens
from gpa_nd import testing
from gpa_nd.engine import Backend
from gpa_nd.engine.reference import softmax, visible

KEPT_AT_MOST = 2**34  # bytes
GAP_AT_MOST = 1e-5  # in every dtype: what is ranked are means rounded to it, in every backend
NAMES = ("out", "dq", "dk", "dv", "dlogits")


def check(row: Row, dtype: torch.dtype, device: torch.device, repeats: int) -> dict[str, Any]:
    """Errors over what is allowed, for the result and every gradient; what is wrong, in words, under ``faults``."""
    data, faults = tokens(row, dtype, device), []
    with nan_in_new_memory():
        relevant = select(data, row.kappa)
        fast = run(data, relevant, "triton")
    gap = ranking_gap(data, relevant)
    if gap > GAP_AT_MOST:
        faults.append(f"selection: a coarse key that was left out is {gap:.1e} better than one that was chosen")
    if not is_distinct(relevant):
        faults.append("selection: a coarse key was chosen twice, or −1 is not last")
    plain, exact = run(data, relevant, "reference"), run(data, relevant, "reference", torch.float64)
    ratios = {}
    for number, (name, got, usual, right) in enumerate(zip(NAMES, fast, plain, exact, strict=False)):
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
        results = zip(NAMES, fast, run(data, relevant, "triton"), strict=False)
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
        tensors = data.q[:, of_q], data.k[:, of_k], data.v[:, of_k], logits, data.positions, data.gradient[:, of_q]
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


def ranking_gap(data: Tokens, relevant: Tensor) -> float:
    """By how much, relatively, a coarse key left out is better than one chosen: at most rounding (law 7).

    Infinite where a cell chose fewer than it could, or one that it may not see.
    """
    layout, worst = data.layout, 0.0
    heads, keys = data.q.shape[1] // data.k.shape[1], len(layout.key_groups)
    seen, labels = visible(layout), layout.query_cells.labels
    enough = seen.sum(-1).clamp(max=relevant.shape[-1])
    if bool(((relevant >= 0).sum(-1) != enough).any()):
        return torch.inf
    for head in range(data.q.shape[1]):  # one at a time: all sums at once would not fit
        q_low = layout.query_groups.mean(data.q.detach()[:, head]).double()
        k_low = layout.key_groups.mean(data.k.detach()[:, head // heads]).double()
        weights = softmax(q_low @ k_low.mT * data.q.shape[-1] ** -0.5, seen[labels])
        sums = weights.new_zeros(len(weights), len(layout.query_cells), keys)
        sums.index_add_(1, labels, weights)
        chosen = relevant[:, head]
        taken = sums.new_zeros(*sums.shape[:-1], keys + 1, dtype=torch.bool)
        taken = taken.scatter_(-1, chosen.masked_fill(chosen < 0, keys), True)[..., :keys]
        if bool((taken & ~seen).any()):
            return torch.inf
        least = sums.masked_fill(~taken, torch.inf).amin(-1).clamp_min(1e-30)
        best = sums.masked_fill(taken, 0.0).amax(-1)
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
