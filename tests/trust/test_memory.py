"""Training does not grow, and takes no more memory than :func:`gpa_nd.diagnostics.cost` says; on Linux."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st

import gpa_nd
from benchmarks.cost import items, peak
from benchmarks.counting import Counted
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import start_peak
from gpa_nd import GPA
from gpa_nd.diagnostics import cost

MIB = 2**20
MORE = 1.2
"""How many times as much memory as was said may be taken."""
KEPT = 32 * MIB
"""What the allocator of a process on a CPU keeps, as docs/diagnostics.md says."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@linux
def test_five_hundred_steps_of_changing_shapes_grow_by_less_than_a_mebibyte(cases, figure):
    steps = cases(500, 5000)
    grown = in_fresh_process(growth, steps)
    figure(f"{grown / MIB:+.2f} MiB over {steps} steps")
    assert grown <= MIB


def growth(steps: int) -> int:
    """Bytes by which a process grows over so many steps, of more shapes than layouts are kept."""
    torch.set_num_threads(1)
    gpa = gpa_nd.image(2, (4, 5), 3, causal=(True, False), backend="torch")
    shapes = [(4 + 3 * (i % 5), 6 + 2 * (i % 7)) for i in range(35)]

    def step(i: int) -> None:
        shape = shapes[i * 11 % 35]
        q, k, v = (torch.randn(2, 2, *shape, 8, requires_grad=True) for _ in range(3))
        mask = torch.rand(2, *shape) > 0.1
        gpa(q, k, v, key_mask=mask).square().sum().backward()

    for i in range(210):
        step(i)
    gc.collect()
    before = start_peak()
    for i in range(steps):
        step(i)
    gc.collect()
    return start_peak() - before


@dataclass(frozen=True)
class Geometry:
    """What is called, forward or with gradients."""

    gpa: GPA
    shape: tuple[int, ...]
    channels: int
    heads: int
    dtype: torch.dtype
    backward: bool


@st.composite
def geometries(draw) -> Geometry:
    """So large that what is kept of tables does not outweigh tokens: from about 1,000 elements on."""
    axes = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(*{1: (1000, 6000), 2: (32, 80), 3: (10, 18)}[axes])] * axes))
    factor = draw(st.tuples(*[st.integers(*{1: (4, 32), 2: (2, 6), 3: (2, 4)}[axes])] * axes))
    cells = draw(st.tuples(*[st.integers(*{1: (4, 64), 2: (2, 10), 3: (1, 4)}[axes])] * axes))
    causal = draw(st.booleans())
    make = {1: gpa_nd.audio, 2: gpa_nd.image, 3: gpa_nd.video}[axes]
    return Geometry(
        make(factor, cells, draw(st.integers(1, 12)), causal=(causal,) + (False,) * (axes - 1), backend="torch"),
        shape,
        channels=draw(st.sampled_from([8, 16, 32, 64])),
        heads=draw(st.integers(1, 4)),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        backward=draw(st.booleans()),
    )


def test_tensors_take_no_more_than_was_said(each_of, figure):
    ratios: list[float] = []

    def check(drawn: Geometry) -> None:
        shape = (1, drawn.heads, *drawn.shape, drawn.channels)
        q, k, v = (torch.randn(shape).to(drawn.dtype).requires_grad_(drawn.backward) for _ in range(3))
        gradient = torch.ones_like(q)

        def call() -> object:
            out = drawn.gpa(q, k, v)
            return torch.autograd.grad(out, (q, k, v), gradient) if drawn.backward else out

        call()  # what a layout makes once
        with Counted() as counted:
            call()
        given = {"channels": drawn.channels, "heads": drawn.heads, "dtype": drawn.dtype, "backward": drawn.backward}
        said = cost(drawn.gpa, drawn.shape, **given).torch_bytes
        ratios.append(counted.peak / said)
        assert counted.peak <= MORE * said, f"{counted.peak:,} bytes where {said:,} were said"

    each_of(geometries(), 8, 200, check)
    figure(f"{len(ratios)} geometries, at most {max(ratios):.2f} times what was said")


@linux
def test_a_process_takes_no_more_than_was_said(request, figure):
    device, ratios = torch.device("cpu"), {}
    for item in items(quick=not request.config.getoption("--nightly")):
        found, said = in_fresh_process(peak, item, "torch", device), item.expected("torch", device).torch_bytes
        ratios[str(item)] = found / said
        assert found <= MORE * said + KEPT, f"{item}: {found:,} bytes where {said:,} were said"
    figure(f"{len(ratios)} geometries, at most {max(ratios.values()):.2f} times what was said")
