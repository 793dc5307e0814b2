"""What was measured on: the device, and the versions that matter."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import torch

import gpa_nd


def described(device: torch.device) -> dict[str, str]:
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
