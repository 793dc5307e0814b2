"""A graph of a million nodes and six million directed edges: ``python -m benchmarks.graph``.

Coarsening, forward and backward, each with its time and the peak of resident memory while it ran, interpreter, edges
and tokens included; limit 3 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import gpa_nd
from benchmarks import geometries, report
from benchmarks.clock import Stopwatch, medians
from benchmarks.floor import backward_work, forward_work, measured_floor
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import resident_peak, start_peak
from benchmarks.report import Found, Section
from benchmarks.tables import Table, milliseconds, times
from gpa_nd import GPA, Layout
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner

LIMIT = 3e9  # bytes


def main() -> None:
    """The command line."""
    parser = report.parser("graph", __doc__)
    parser.add_argument("--nodes", type=report.positive, default=1_000_000, help="a square number (default: 1,000,000)")
    options = parser.parse_args()
    nodes = 2_500 if options.quick else options.nodes
    if math.isqrt(nodes) ** 2 != nodes:
        parser.error(f"--nodes: expected a square number, got {nodes}")
    sizes = {"factor": 64, "cells": min(1024, max(1, nodes // 512)), "kappa": 8, "channels": 32}
    says = f"{nodes:,} nodes, {6 * nodes:,} directed edges, " + ", ".join(f"{k} {v:,}" for k, v in sizes.items())
    section = Section(
        "graph", [says], lambda _: in_fresh_process(stages, nodes, options.device, options.rounds, **sizes), tables
    )
    report.run("graph", [section], options)


def stages(
    nodes: int, device: torch.device, rounds: int, *, factor: int, cells: int, kappa: int, channels: int
) -> dict[str, Any]:
    """Seconds and peak resident bytes of one stage after the other, in this process."""
    found: dict[str, Any] = {"stages": {}}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start_peak()
        watch = Stopwatch(device)
        yield
        seconds = watch.stop().seconds
        found["stages"][name] = {"seconds": seconds, "resident": resident_peak()}

    with stage("edges, as a user has them"):
        edges = geometries.triangles(math.isqrt(nodes))
        edges = torch.cat([edges, edges.flip(0)], dim=1)
    with stage("groups"):
        down = GraphDownsampler.from_edges(edges, nodes, factor)
    with stage("cells"):
        partitioner = GraphPartitioner.from_edges(edges, down, cells)
    gpa = GPA(partitioner, down, kappa=kappa)
    with stage("layout"):
        layout = gpa.layout((nodes,), (nodes,), device)
    with stage("tokens"):
        tokens = [torch.randn(1, 1, nodes, channels, device=device).requires_grad_() for _ in range(3)]
        gradient = torch.ones_like(tokens[0])
    with stage("forward, the first time"):
        out = gpa(*tokens)
    with stage("backward, the first time"):
        gradients = torch.autograd.grad(out, tokens, gradient)
    del out, gradients
    found["again"] = again(lambda: gpa(*tokens), tokens, gradient, device, rounds)
    found["groups"], found["largest group"] = len(layout.key_groups), layout.key_groups.largest
    found["floor"] = floor(gpa, layout, tokens, device)
    return found


def again(
    forward: Callable[[], Tensor], tokens: list[Tensor], gradient: Tensor, device: torch.device, rounds: int
) -> dict[str, float]:
    """Median seconds of forward, and of forward and backward, once everything has run."""

    def both() -> object:
        return torch.autograd.grad(forward(), tokens, gradient)

    return medians({"forward": forward, "both": both}, device, rounds=rounds, at_most=10.0)


def floor(gpa: GPA, layout: Layout, tokens: list[Tensor], device: torch.device) -> dict[str, float]:
    """The time that nothing on this machine could do the work in."""
    q, k, v = (x.detach() for x in tokens)
    relevant = gpa_nd.select_keys(q, k, layout, kappa=gpa.kappa)
    forward = forward_work(q, k, v, layout, relevant)
    rates = measured_floor(device, torch.float32, rounds=5)
    both = forward + backward_work(q, k, v, layout, relevant)
    return {"forward": rates.seconds(forward), "both": rates.seconds(both)}


def tables(found: Found) -> list[Table]:
    """Stage after stage."""
    made = []
    for entry in found:
        table = Table(
            f"How much time and memory does a large graph take? {entry['item']}",
            ("", "time", "÷ floor", "peak resident"),
            note=f"{entry['groups']:,} groups, the largest of {entry['largest group']}. Peak resident: of the whole "
            f"process while the stage ran, on the CPU; limit {LIMIT / 1e9:.0f} GB. "
            "Floor: operations ÷ measured matmul rate + bytes ÷ measured copy rate.",
        )
        for name, stage in entry["stages"].items():
            table.add(name, milliseconds(stage["seconds"]), None, gigabytes(stage["resident"]))
        for name, says in (("forward", "forward"), ("both", "forward + backward")):
            seconds = entry["again"][name]
            table.add(says, milliseconds(seconds), times(seconds / entry["floor"][name]), None)
        highest = max(stage["resident"] for stage in entry["stages"].values())
        table.add("in all", None, None, gigabytes(highest) + (" ≤ limit" if highest <= LIMIT else " > limit"))
        made.append(table)
    return made


def gigabytes(value: float) -> str:
    """Bytes as GB."""
    return f"{value / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
