"""The time that the machine would need at best.

If it did nothing but the arithmetic, at the rate of its own matrix product, and then nothing but the necessary traffic,
at the rate of its own copy: operations ÷ rate + bytes ÷ rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import gpa_nd
from benchmarks.clock import in_turn


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


def measured_floor(device: torch.device, dtype: torch.dtype, *, rounds: int = 10) -> Floor:
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
