"""Is it right? The fused backend against the float64 reference, unwritten memory full of NaN, again and again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks.gpu.rows import Row, Tokens, tokens
from benchmarks.measure import attended_pairs
from gpa_nd import testing

KEPT_AT_MOST = 2**34  # bytes
NAMES = ("out", "dq", "dk", "dv", "dlogits")


def check(row: Row, dtype: torch.dtype, device: torch.device, repeats: int) -> dict[str, Any]:
    """Errors over what is allowed, for the result and every gradient; what is wrong, in words, under ``faults``."""
    data, faults = tokens(row, dtype, device), []
    with nan_in_new_memory():
        relevant = select(data, row.kappa)
        fast = run(data, relevant, "triton")
    gap = ranking_gap(data, relevant)
    if gap > (1e-5 if dtype == torch.float32 else 1e-3):
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


def select(data: Tokens, kappa: int) -> Tensor:
    """Phase 1 by the fused backend."""
    return gpa_nd.select_keys(data.q, data.k, data.layout, kappa=kappa, enable_gqa=data.shares_heads, backend="triton")


def run(data: Tokens, relevant: Tensor, backend: str, wide: torch.dtype | None = None) -> list[Tensor]:
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


def _run(data: Tokens, relevant: Tensor, backend: str, wide: torch.dtype | None) -> list[Tensor]:
    inputs = [x.detach().to(wide or x.dtype).requires_grad_() for x in data.inputs]
    out = gpa_nd.attend(
        *inputs[:3],
        data.layout,
        relevant,
        logits=inputs[3] if data.logits is not None else None,
        positions=data.positions,
        enable_gqa=data.shares_heads,
        backend=backend,
    )
    return [out.detach(), *torch.autograd.grad(out, inputs, data.gradient.to(out.dtype))]


def over_budget(fast: Tensor, plain: Tensor, exact: Tensor, factor: float) -> float:
    """The error over what is allowed; at most 1 where all is well, NaN where the result has NaN."""
    error, usual = (float((x.double() - exact).abs().max()) for x in (fast, plain))
    return error / max(factor * usual + torch.finfo(fast.dtype).eps * float(exact.abs().max()), 1e-300)


def ranking_gap(data: Tokens, relevant: Tensor) -> float:
    """By how much, relatively, a coarse key left out is better than one chosen: at most rounding (law 7)."""
    layout, worst = data.layout, 0.0
    heads = data.q.shape[1] // data.k.shape[1]
    labels = layout.query_cells.labels
    for head in range(data.q.shape[1]):  # one at a time: all sums at once would not fit
        q_low = layout.query_groups.mean(data.q.detach()[:, head]).double()
        k_low = layout.key_groups.mean(data.k.detach()[:, head // heads]).double()
        weights = (q_low @ k_low.mT * data.q.shape[-1] ** -0.5).softmax(-1)
        sums = weights.new_zeros(len(weights), len(layout.query_cells), weights.shape[-1])
        sums.index_add_(1, labels, weights)
        chosen = relevant[:, head]
        if chosen.shape[-1] == sums.shape[-1]:
            continue
        if bool((chosen < 0).any()):
            return torch.inf  # all coarse keys may be seen and all is finite
        least = sums.gather(-1, chosen).amin(-1)
        best = sums.scatter(-1, chosen, -1.0).amax(-1)
        worst = max(worst, float(((best - least) / least.clamp_min(1e-30)).max()))
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
