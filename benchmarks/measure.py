"""How the benchmarks measure: time, memory, the machine's own floor, and the tables that come of it; on any device.

Machines are noisy and differ, so that only what was measured in one run on one machine is ever compared. The floor is
the time that the machine would need if it did nothing but the arithmetic, at the rate of its own matrix product, and
then nothing but the necessary traffic, at the rate of its own copy: operations ÷ rate + bytes ÷ rate.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gpa_nd

Run = Callable[[], object]


# Time -----------------------------------------------------------------------------------------------------------------


def seconds(run: Run, device: torch.device, *, rounds: int = 20, warmup: int = 3, at_most: float = 2.0) -> float:
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


# Memory ---------------------------------------------------------------------------------------------------------------


def peak_bytes(run: Run, device: torch.device) -> int:
    """How much more memory a run has at its peak than there was before it, its results included."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        kept = run()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    _give_back_freed_memory()
    with _ResidentPeak() as peak:
        kept = run()
    del kept
    return peak.bytes


class _ResidentPeak:
    """The largest resident size of this process while it is open, over the size at its start; Linux only."""

    bytes = 0

    def __enter__(self) -> _ResidentPeak:
        self._start = self._largest = resident_bytes()
        self._open = True
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._watch.join()
        self._largest = max(self._largest, resident_bytes())
        self.bytes = self._largest - self._start

    def _look(self) -> None:
        while self._open:
            self._largest = max(self._largest, resident_bytes())
            time.sleep(0.0002)


def resident_bytes() -> int:
    """Resident memory of this process; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start_peak() -> int:
    """Resident bytes now, after freed memory was given back; :func:`resident_peak` counts from here on. Linux only."""
    _give_back_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes()


def resident_peak() -> int:
    """The largest resident size of this process since :func:`start_peak`, in bytes; kept by the kernel; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _give_back_freed_memory() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


# The floor ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floor:
    """What the machine does at best.

    Attributes:
        operations: additions and multiplications per second of its matrix product.
        bytes: bytes per second of its copy, read and written.
    """

    operations: float
    bytes: float

    def seconds(self, work: Work) -> float:
        """The time that nothing on this machine can do such work in."""
        return work.operations / self.operations + work.bytes / self.bytes


@dataclass(frozen=True)
class Work:
    """Additions and multiplications, and bytes that have to be moved."""

    operations: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)


def floor(device: torch.device, dtype: torch.dtype, *, rounds: int = 10) -> Floor:
    """Measure it: the best of a few sizes; float32 without tf32."""
    on_gpu = device.type == "cuda"
    rates = []
    for size in (2048, 4096, 8192) if on_gpu else (512, 1024, 2048):
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        c = torch.empty_like(a)
        rates.append(2 * size**3 / min(in_turn({"": lambda: torch.mm(a, b, out=c)}, device, rounds=rounds)[""]))  # noqa: B023
    source = torch.empty(2**30 if on_gpu else 2**27, dtype=torch.int8, device=device).fill_(1)
    target = torch.empty_like(source)
    copy = min(in_turn({"": lambda: target.copy_(source)}, device, rounds=rounds)[""])
    return Floor(max(rates), 2 * source.numel() / copy)


def forward_work(q: Tensor, k: Tensor, v: Tensor, layout: gpa_nd.Layout, relevant: Tensor) -> Work:
    """Both phases: the coarse affinity, the gathered products; q, k, v read once, the result and coarse tokens written.

    Phase 2 needs q and k again, long after Phase 1; that they may come from a cache is granted to the floor.
    """
    coarse = len(layout.query_groups) * q.shape[1] + len(layout.key_groups) * k.shape[1]
    phase_1 = 2 * q.shape[0] * q.shape[1] * len(layout.query_groups) * len(layout.key_groups) * q.shape[-1]
    phase_2 = 2 * attended_pairs(layout, relevant) * (q.shape[-1] + v.shape[-1])
    out = q.shape[:-1].numel() * v.shape[-1]
    tokens = q.numel() + k.numel() + v.numel() + out + 2 * q.shape[0] * coarse * q.shape[-1]
    return Work(phase_1 + phase_2, tokens * q.element_size() + relevant.numel() * relevant.element_size())


def backward_work(q: Tensor, k: Tensor, v: Tensor, layout: gpa_nd.Layout, relevant: Tensor) -> Work:
    """Five products where forward had two; q, k, v, the result and its gradient read once, three gradients written."""
    products = 2 * attended_pairs(layout, relevant) * (3 * q.shape[-1] + 2 * v.shape[-1])
    out = q.shape[:-1].numel() * v.shape[-1]
    return Work(products, (2 * (q.numel() + k.numel() + v.numel()) + 2 * out) * q.element_size())


def attended_pairs(layout: gpa_nd.Layout, relevant: Tensor) -> int:
    """How many pairs of a query and a key there are in Phase 2, over batch and heads."""
    chosen = layout.members.sizes[relevant.clamp_min(0)].masked_fill(relevant < 0, 0).sum(-1)
    return int((chosen * layout.fine_cells.sizes).sum())


# What comes of it -----------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """One table per question."""

    question: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: object) -> None:
        """A row; None is a dash."""
        self.rows.append(["–" if cell is None else str(cell) for cell in cells])

    def text(self) -> str:
        """For a terminal: the first column to the left, the others to the right."""
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = []
        for line in lines:
            first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            body.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
        return "\n".join([self.question, "-" * len(self.question), *body, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        """For a page."""
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        head = ["| " + " | ".join(self.columns) + " |", "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        return "\n".join([f"### {self.question}", "", *head, *rows, *(["", self.note] if self.note else [])])


def milliseconds(value: float | None) -> str | None:
    """Seconds as milliseconds with three digits."""
    if value is None:
        return None
    number = value * 1e3
    return f"{number:.0f} ms" if number >= 100 else f"{number:.3g} ms"


def times(value: float | None) -> str | None:
    """A ratio."""
    if value is None:
        return None
    return f"{value:.0f}×" if value >= 100 else f"{value:.3g}×"


def mebibytes(value: float | None) -> str | None:
    """Bytes as MiB."""
    return None if value is None else f"{value / 2**20:.3g} MiB" if value < 2**27 else f"{value / 2**20:.0f} MiB"


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Their quotient, where both were measured."""
    return numerator / denominator if numerator and denominator else None


def machine(device: torch.device) -> dict[str, str]:
    """What was measured on, with the versions that matter."""
    found = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    found["gpa_nd"] = gpa_nd.__version__
    if "triton" in sys.modules:
        found["triton"] = sys.modules["triton"].__version__
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["cuda"] = torch.version.cuda or f"hip {torch.version.hip}"
        found["memory"] = f"{properties.total_memory / 2**30:.0f} GiB"
        found["processors"] = str(properties.multi_processor_count)
    else:
        found["threads"] = str(torch.get_num_threads())
    return found


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write(path: Path, text: str) -> None:
    """All of it or nothing: whoever reads the file never sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The same for a JSON file."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
