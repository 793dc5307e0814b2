"""Does a GPA cost what :func:`gpa_nd.diagnostics.cost` says? ``python -m benchmarks.cost``.

Multiply-adds, traffic and the tensors that are held are counted operation by operation, see :mod:`benchmarks.counting`.
Memory is measured as well: on a CPU the peak of resident memory of one call in a fresh process, on a GPU that of
PyTorch's allocator. Beside every figure stands how far off the expectation was; 20 % are the limit. A process on a CPU
keeps up to 32 MiB of what Phase 1 gave back, which no tensor holds and no expectation counts: where the result is
small, that is more than 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import gpa_nd
from benchmarks import geometries, report
from benchmarks.clock import Run
from benchmarks.counting import Counted
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import peak_bytes
from benchmarks.report import Found, Section
from benchmarks.tables import Table, mebibytes
from gpa_nd import GPA
from gpa_nd.diagnostics import Cost, cost

CHANNELS = 32


@dataclass(frozen=True)
class Item:
    """A structure, forward or with its gradients.

    Attributes:
        name: what it is.
        size: elements along each axis; nodes of a graph.
        dtype: of q, k and v.
        backward: whether gradients are computed, too.
    """

    name: str
    size: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    backward: bool = False

    @property
    def heads(self) -> int:
        """So many that tokens are large beside what a process keeps anyway."""
        return 4 if self.backward else 16

    def __str__(self) -> str:
        kind = "" if self.dtype == torch.float32 else f", {str(self.dtype).removeprefix('torch.')}"
        return f"{self.name} {'×'.join(map(str, self.size))}{kind}" + ", with gradients" * self.backward

    def gpa(self, backend: str) -> GPA:
        """The module."""
        settings: dict[str, Any] = {"backend": backend}
        match self.name:
            case "audio":
                return gpa_nd.audio(16, 512, 8, **settings)
            case "causal audio":
                return gpa_nd.audio(16, 512, 8, causal=True, **settings)
            case "audio on two levels":
                return gpa_nd.audio(16, 512, (8, 8), **settings)
            case "image":
                return gpa_nd.image(**settings)
            case "video":
                return gpa_nd.video(**settings)
        edges = geometries.triangles(round(self.size[0] ** 0.5))
        return gpa_nd.graph(edges, self.size[0], **settings)

    def expected(self, backend: str, device: torch.device) -> Cost:
        """What it should cost."""
        given = {"heads": self.heads, "channels": CHANNELS, "dtype": self.dtype, "backward": self.backward}
        return cost(self.gpa(backend), self.size, **given, device=device.type)  # type: ignore[arg-type]

    def run(self, backend: str, device: torch.device) -> Run:
        """One call on random tokens."""
        gpa = self.gpa(backend)
        gpa.layout(self.size, self.size, device)
        shape = (1, self.heads, *self.size, CHANNELS)
        q, k, v = (torch.randn(shape, device=device).to(self.dtype).requires_grad_() for _ in range(3))
        gradient = torch.ones_like(q)

        def call() -> object:
            with torch.set_grad_enabled(self.backward):
                out = gpa(q, k, v)
            return (out, torch.autograd.grad(out, (q, k, v), gradient)) if self.backward else out

        return call


def items(quick: bool) -> list[Item]:
    """Every domain, forward and with gradients."""
    if quick:
        return [Item("audio", (2048,)), Item("image", (32, 40), backward=True)]
    return [
        Item("audio", (131072,)),
        Item("causal audio", (131072,)),
        Item("audio on two levels", (262144,)),
        Item("image", (256, 256)),
        Item("image", (317, 245)),
        Item("image", (256, 256), torch.bfloat16),
        Item("video", (16, 72, 96)),
        Item("graph", (65536,)),
        Item("audio", (131072,), backward=True),
        Item("causal audio", (131072,), backward=True),
        Item("image", (256, 256), backward=True),
        Item("image", (256, 256), torch.bfloat16, backward=True),
        Item("graph", (65536,), backward=True),
    ]


def main() -> None:
    """The command line."""
    options = report.parser("cost", __doc__).parse_args()
    section = Section("cost", items(options.quick), lambda item: measure(item, options.device), tables)
    report.run("cost", [section], options)


def measure(item: Item, device: torch.device) -> dict[str, Any]:
    """What was expected, and what was found."""
    expected = item.expected("torch", device)
    found: dict[str, Any] = {
        "expected": figures(expected) | {"tensors": expected.torch_bytes, "torch": expected.torch_bytes},
        "found": {"torch": in_fresh_process(peak, item, "torch", device)},
    }
    if device.type == "cuda":
        found["expected"]["triton"] = expected.triton_bytes
        found["found"]["triton"] = in_fresh_process(peak, item, "triton", device)
    else:
        found["found"] |= in_fresh_process(counted, item)
    return found


def figures(expected: Cost) -> dict[str, int]:
    """Of the whole call."""
    work = expected.total
    return {"multiply-adds": work.multiply_adds, "reads": work.bytes_read, "writes": work.bytes_written}


def counted(item: Item) -> dict[str, int]:
    """The same, counted operation by operation in this process."""
    run, counts = item.run("torch", torch.device("cpu")), Counted()
    run()  # what a layout makes once
    with counts.counting():
        run()
    return {
        "multiply-adds": counts.multiply_adds,
        "reads": counts.bytes_read,
        "writes": counts.bytes_written,
        "tensors": counts.peak,
    }


def peak(item: Item, backend: str, device: torch.device) -> int:
    """Bytes over what there was before the call."""
    return peak_bytes(item.run(backend, device), device)


def tables(found: Found) -> list[Table]:
    """Found, and beside it how far off the expectation was."""
    kinds = [
        kind for kind in ("multiply-adds", "reads", "writes", "tensors", "torch", "triton") if kind in found[0]["found"]
    ]
    names = {"tensors": "tensors held", "torch": "memory", "triton": 'memory, "triton"'}
    table = Table(
        "Does it cost what was expected?",
        ["structure", *(name for kind in kinds for name in (names.get(kind, kind), "expected"))],
        note=f"16 heads, with gradients 4, of {CHANNELS} channels. Tensors and memory: at the peak beside q, k and v, "
        "the result and gradients included.",
    )
    for row in found:
        cells = []
        for kind in kinds:
            number, expected = row["found"][kind], row["expected"][kind]
            cells += [
                f"{number:.3g}" if kind == "multiply-adds" else mebibytes(number),
                f"{expected / number - 1:+.0%}",
            ]
        table.add(row["item"], *cells)
    return [table]


if __name__ == "__main__":
    main()
