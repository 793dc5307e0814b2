"""How much memory a run needs at its peak: a GPU's allocator and the Linux kernel both keep count."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from benchmarks.clock import Run


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
    return resident_extra(run)


def resident_extra(run: Run) -> int:
    """Peak resident bytes of one run over those before it; Linux only."""
    before = start_peak()
    kept = run()
    extra = resident_peak() - before
    del kept
    return extra


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
