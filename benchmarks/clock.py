"""How long a run takes, on any device; only what was timed in one run on one machine is ever compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

Run = Callable[[], object]


def median_seconds(run: Run, device: torch.device, *, rounds: int = 20, warmup: int = 3, at_most: float = 2.0) -> float:
    """How long one run takes: the median over rounds, a GPU's cache cold; after 3 of them, ``at_most`` seconds."""
    for _ in range(warmup):
        run()
    found: list[float] = []
    while len(found) < 3 or (len(found) < rounds and sum(found) < at_most):
        found.append(once(run, device))
    return statistics.median(found)


def in_turn(
    runs: Mapping[str, Run], device: torch.device, *, rounds: int = 20, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds of every round of every run; the runs take turns, so that they see the same machine."""
    for run in runs.values():
        for _ in range(warmup):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(once(run, device))
    return times


def medians(
    runs: Mapping[str, Run], device: torch.device, *, rounds: int = 20, at_most: float = 2.0
) -> dict[str, float]:
    """Median seconds of every run; they take turns, each until its turns add up to ``at_most`` seconds.

    The first call of each warms up, unless it alone takes longer than that: then it is all that there is.
    """
    times: dict[str, list[float]] = {}
    for name, run in runs.items():
        first = once(run, device)
        times[name] = [first] if first > at_most else [once(run, device)]
    for _ in range(rounds - 1):
        for name, run in runs.items():
            if sum(times[name]) < at_most:
                times[name].append(once(run, device))
    return {name: statistics.median(found) for name, found in times.items()}


def once(run: Run, device: torch.device) -> float:
    """Seconds of one run; on a GPU between two events, after its second-level cache was flushed."""
    flush(device)
    watch = Stopwatch(device)
    run()
    return watch.stop().seconds


class Stopwatch:
    """Runs from where it is made; on a GPU it costs two events, and ``seconds`` waits for the second."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._events = device, []
        self._mark()

    def stop(self) -> Stopwatch:
        """Itself, stopped."""
        self._mark()
        return self

    def _mark(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._events.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Between the two marks."""
        before, after = self._events
        if self._device.type != "cuda":
            return after - before
        after.synchronize()
        return before.elapsed_time(after) / 1e3


def flush(device: torch.device) -> None:
    """Push whatever a GPU's second-level cache holds out of it, and wait; elsewhere nothing."""
    if device.type == "cuda":
        _larger_than_cache(device).zero_()
        torch.cuda.synchronize(device)


@lru_cache
def _larger_than_cache(device: torch.device) -> Tensor:
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return torch.empty(max(4 * size, 2**27), dtype=torch.int8, device=device)


def captured(run: Run, device: torch.device, *, warmup: int = 3) -> Run:
    """The same work as one CUDA graph: without the time that Python needs to launch it.

    Raises:
        ValueError: the device has no such graphs.
    """
    if device.type != "cuda":
        raise ValueError(f"device: only CUDA and ROCm have graphs, got {device}")
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay() -> object:
        graph.replay()
        return kept

    return replay
