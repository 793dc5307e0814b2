"""How kernels are launched, and on which chip: the only place that asks the GPU anything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton

MATRIX_CORES = ("gfx908", "gfx90a", "gfx94", "gfx95")


@dataclass(frozen=True)
class Chip:
    """What configurations are chosen for.

    Attributes:
        name: ``sm_80``, ``sm_90``, ``sm_100``, ``gfx942``, another chip's name, or ``interpreter``.
        processors: how many programs run side by side at least.
    """

    name: str
    processors: int

    @property
    def is_nvidia(self) -> bool:
        """Whether it has CUDA's instructions, tf32x3 among them."""
        return self.name.startswith("sm_")

    @property
    def precision(self) -> str:
        """How float32 matrices are multiplied, to float32's own accuracy."""
        return "tf32x3" if self.is_nvidia else "ieee"

    @property
    def is_interpreter(self) -> bool:
        """Whether kernels are interpreted on the CPU."""
        return self.name == "interpreter"


def chip_of(device: torch.device) -> Chip:
    """The chip that a kernel for tensors on this device runs on."""
    if interpreted():
        return Chip("interpreter", 4)
    return _chip_of_gpu(device.index or 0)


@lru_cache
def _chip_of_gpu(index: int) -> Chip:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        name = properties.gcnArchName.split(":")[0]
    else:
        name = f"sm_{properties.major}{properties.minor}"
    return Chip(name, properties.multi_processor_count)


def why_not_chip(device: torch.device) -> str | None:
    """What the GPU lacks; None if it lacks nothing."""
    chip = _chip_of_gpu(device.index or 0)
    if chip.is_nvidia and int(chip.name[3:]) < 80:
        return f"it needs tensor cores for bfloat16 (compute capability 8.0), and {device} is of {chip.name}"
    if not chip.is_nvidia and not chip.name.startswith(MATRIX_CORES):
        return f"it needs AMD's matrix cores ({', '.join(MATRIX_CORES)}), and {device} is {chip.name}"
    return None


def interpreted() -> bool:
    """Whether Triton was told to interpret its kernels (``TRITON_INTERPRET=1`` before it was imported)."""
    return bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: Sequence[int], *arguments: object, **settings: object) -> None:
    """Run ``kernel`` on a grid of programs; ``settings`` are its constants, ``num_warps`` and ``num_stages``."""
    device = next(x.device for x in arguments if isinstance(x, torch.Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # Triton takes the current one
        kernel[tuple(grid)](*arguments, **settings)


def with_whole_rows(x: torch.Tensor) -> torch.Tensor:
    """x, copied if the channels of a row do not lie side by side, as the kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()
