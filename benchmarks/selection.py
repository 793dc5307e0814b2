"""What does selection that learns cost? ``python -m benchmarks.selection``.

All ways of :mod:`gpa_nd.selection`, a gate and coarse fill take turns with hard selection of κ groups, and of as many
as the soft ones attend to.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks import report
from benchmarks.clock import Run, once
from benchmarks.contestants import passes
from benchmarks.report import Found, Section
from benchmarks.tables import Table, milliseconds, ratio, times
from gpa_nd.nn import GatedCoarse
from gpa_nd.selection import PerturbedTopK, SoftTopK, StraightThrough

CHANNELS, KAPPA, HARD = 64, 12, f"hard, κ = {12}"


def main() -> None:
    """The command line."""
    options = report.parser("selection", __doc__).parse_args()
    side = 16 if options.quick else 128
    section = Section("selection", ["forward", "with backward"], partial(measure, side=side, options=options), tables)
    report.run("selection", [section], options)


def ways(side: int) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Attention on pictures, by what selects."""

    def image(kappa: int = KAPPA, **settings: Any) -> gpa_nd.GPA:
        return gpa_nd.image(4, side // 8, kappa, **settings)

    return {
        HARD: image(),
        f"hard, κ = {4 * KAPPA}": image(4 * KAPPA),
        "SoftTopK()": image(selection=SoftTopK()),
        "PerturbedTopK(), 100 samples": image(selection=PerturbedTopK()),
        "StraightThrough()": image(selection=StraightThrough()),
        "GatedCoarse": GatedCoarse(image(), CHANNELS),
        'unselected="pooled"': image(unselected="pooled"),
    }


def measure(kind: str, side: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every way, the best of all rounds, in which they take turns."""
    shape, device = (1, 1, side, side, CHANNELS), options.device
    tokens = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    runs = {}
    for name, attend in ways(side).items():
        if isinstance(attend, torch.nn.Module):
            attend.to(device)
        runs[name] = passes(attend, tokens, backward=kind != "forward")
        runs[name]()  # what is imported and made once
    best = dict.fromkeys(runs, math.inf)
    for _ in range(options.rounds):
        for name, run in runs.items():
            best[name] = min(best[name], seconds(run, device))
    return {"side": side, "rounds": options.rounds, "seconds": best}


def seconds(run: Run, device: torch.device) -> float:
    """Of a processor, all threads together, so that it does not matter what else runs; of a GPU, as always."""
    if device.type != "cpu":
        return once(run, device)
    begin = time.process_time()
    run()
    return time.process_time() - begin


def tables(found: Found) -> list[Table]:
    """Every way, and how many times as long as hard selection it takes."""
    side, rounds, (forward, both) = found[0]["side"], found[0]["rounds"], (entry["seconds"] for entry in found)
    table = Table(
        "What does selection that learns cost?",
        ["", "forward", f"÷ {HARD}", "with backward", f"÷ {HARD}"],
        note=f"{side} × {side} pixels, {CHANNELS} channels, one head, groups of 4 × 4, cells of 2 × 2 groups. "
        f"Time of the processor, all threads together, the best of {rounds} rounds.",
    )
    for name in forward:
        table.add(
            name,
            milliseconds(forward[name]),
            times(ratio(forward[name], forward[HARD])),
            milliseconds(both[name]),
            times(ratio(both[name], both[HARD])),
        )
    return [table]


if __name__ == "__main__":
    main()
