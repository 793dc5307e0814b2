"""The memory that attention blocks need (Fig. 5): what PyTorch has allocated at most, on a GPU or a CPU."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.generator import Generator


def peak_allocated(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of allocated bytes during ``run()`` over what was allocated before.

    On a GPU this is `torch.cuda.max_memory_allocated`, as in the paper; on a CPU the profiler's record of every
    allocation, which tells the same and repeats exactly. ``run`` is called once before it counts.

    Raises:
        UserError: there is no such record for the device.
    """
    if device.type not in ("cuda", "cpu"):
        raise UserError(f"--device: memory can be measured on cpu and cuda, not on {device.type}; take --device cpu")
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    total = peak = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        total += change
        peak = max(peak, total)
    return peak


def attention_memory(generator: Generator, device: torch.device) -> int:
    """Return the bytes that the attention blocks need at their peak, forward and backward, batch 1 (Fig. 5).

    Every copy attention is run on random features of its level's size; the figure is the sum, as if all were one
    after the other in one network, where what is kept for the backward pass adds up.
    """
    levels = zip(generator.target_decoder, reversed(generator.settings.sizes), strict=True)
    blocks, inputs_ = [], []
    for level, size in levels:
        if level.copy is not None:
            blocks.append(level.copy)
            channels = level.copy.query.in_features, level.copy.key.in_features
            inputs_.append([torch.randn(1, c, *size, device=device, requires_grad=True) for c in channels])

    def run() -> None:
        sum(block(*pair).sum() for block, pair in zip(blocks, inputs_, strict=True)).backward()
        for tensor in [*(x for pair in inputs_ for x in pair), *(p for b in blocks for p in b.parameters())]:
            tensor.grad = None

    return peak_allocated(run, device)
