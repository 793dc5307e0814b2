"""Which configurations are fastest here? Every chooser's numbers, one after another, doubled and halved.

A chooser is a function of the fused backend that returns a frozen dataclass of whole numbers (tile sizes, warps,
stages). What it returns for the row at hand is changed number by number; a change stays if the phase still gives the
same result and takes less time.
"""

from __future__ import annotations

import inspect
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import median_seconds
from benchmarks.gpu.phases import attend, select
from benchmarks.gpu.replacing import in_place_of
from benchmarks.gpu.rows import Row, tokens
from benchmarks.gpu.times import short
from gpa_nd.engine.fused import tuned
from gpa_nd.engine.fused.launch import Chip

GAIN = 0.98  # a change that takes more than this of the time before is noise


def tune(row: Row, dtype: torch.dtype, device: torch.device, rounds: int, each: float) -> list[dict[str, Any]]:
    """For each phase of a row: ``each`` seconds of looking; the time before and after, and what to choose."""
    data = tokens(row, dtype, device)
    relevant = select(data, row.kappa)

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (attend(data, relevant, "triton"),)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(data, relevant, "triton"), data.inputs[:3], data.gradient)

    phases: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "phase 1": lambda: (select(data, row.kappa),),
        "phase 2, forward": forward,
        "phase 2, with backward": both,
    }
    return [{"phase": phase, **_descend(run, device, rounds, time.monotonic() + each)} for phase, run in phases.items()]


def together(rows: list[dict[str, Any]]) -> tuned.Found:
    """What was found for all rows; where two phases of a row disagree, the first, which measures less besides."""
    found: tuned.Found = {}
    for row in rows:
        for phase in reversed(row.get("phases", [])):
            found |= phase.get("changed", {})
    return found


def choosers() -> list[Callable[..., Any]]:
    """All functions of the fused backend that return a configuration."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("gpa_nd.engine.fused"):
            for value in vars(module).values():
                if inspect.isfunction(value) and value.__module__ == name and _returns_a_configuration(value):
                    found[value] = None
    return list(found)


def _returns_a_configuration(function: Callable[..., Any]) -> bool:
    try:
        result = typing.get_type_hints(function).get("return")
    except Exception:  # a name that only a type checker sees
        return False
    if not (inspect.isclass(result) and is_dataclass(result)) or result is Chip:
        return False
    return all(kind is int for kind in typing.get_type_hints(result).values())


def _descend(run: Callable[[], tuple[Tensor, ...]], device: torch.device, rounds: int, until: float) -> dict[str, Any]:
    """Change one number at a time, and keep what is faster."""
    changes: dict[str, dict[str, int]] = {}
    seen: dict[str, Any] = {}

    def changed(chooser: Callable[..., Any]) -> Callable[..., Any]:
        def choose(*arguments: Any, **named: Any) -> Any:
            key = tuned.name_of(chooser, (*arguments, *named.values()))
            seen[key] = replace(chooser(*arguments, **named), **changes.get(key, {}))
            return seen[key]

        return choose

    with in_place_of({chooser: changed(chooser) for chooser in choosers()}):
        expected = [x.clone() for x in run()]
        best = before = median_seconds(run, device, rounds=rounds, at_most=0.2)
        tried = failed = 0
        improved = True
        while improved and time.monotonic() < until:
            improved = False
            for key, name in [(key, f.name) for key, chosen in list(seen.items()) for f in fields(chosen)]:
                for candidate in _candidates(name, getattr(seen[key], name)):
                    if time.monotonic() > until:
                        break
                    kept = changes.get(key, {})
                    changes[key] = {**kept, name: candidate}
                    tried += 1
                    try:
                        same = all(_close(a, b) for a, b in zip(run(), expected, strict=True))
                        seconds = median_seconds(run, device, rounds=rounds, at_most=0.2) if same else float("inf")
                    except Exception:  # too large, or a size that the kernel does not take
                        failed, seconds = failed + 1, float("inf")
                    if seconds < GAIN * best:
                        best, improved = seconds, True
                    else:
                        changes[key] = kept
        try:
            run()  # leaves in ``seen`` what the best changes choose
        except Exception as error:
            return {"before": before, "error": short(error)}
    chosen = {key: asdict(seen[key]) for key in seen if changes.get(key)}
    return {"before": before, "after": best, "tried": tried, "failed": failed, "changed": chosen}


def _candidates(name: str, value: int) -> list[int]:
    if name == "stages":
        return [n for n in (1, 2, 3, 4) if n != value]
    if name == "chunk":
        return [n for n in (0, 16, 32, 64) if n != value]
    if name == "warps":
        return [n for n in (1, 2, 4, 8, 16) if n != value and value // 4 <= n <= 4 * value]
    return [2 * value, value // 2] if value > 1 else [2]


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return bool((a != b).float().mean() <= 0.01)  # sums that are equal but for rounding may change places
    scale = b.float().abs().max()
    return bool((a.float() - b.float()).abs().max() <= 8 * torch.finfo(a.dtype).eps * scale)
