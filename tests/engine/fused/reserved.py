"""Memory that is reserved and not used: tensors whose rows lie far apart."""

import mmap

import torch

MAP_NORESERVE = 0x4000  # of Linux; mmap has it from Python 3.13 on


def room(numbers: int, device: str) -> torch.Tensor:
    """bfloat16 numbers; on the CPU they take no memory until they are touched."""
    if device == "cuda":
        return torch.empty(numbers, dtype=torch.bfloat16, device=device)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, 2 * numbers, flags=flags), dtype=torch.bfloat16)
