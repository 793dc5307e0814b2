"""Kernels that the compile check must accept, and kernels that it must refuse."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from gpa_nd.engine.fused import launch as launching


@triton.jit
def product(a, b, out, n, BLOCK: tl.constexpr, PRECISION: tl.constexpr):
    """A loop of matrix products."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        left = tl.load(a + row * n + start + column)
        right = tl.load(b + (start + row) * BLOCK + column)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    tl.store(out + row * BLOCK + column, total)


@triton.jit
def product_for_nobody(a, b, out, BLOCK: tl.constexpr):
    """A matrix product whose result is not used: the compiler leaves it out, and what is left spills nothing."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    left, right = tl.load(a + row * BLOCK + column), tl.load(b + row * BLOCK + column)
    tl.dot(left, right)
    tl.store(out + row * BLOCK + column, left)


@triton.jit
def wrong_types(out, BLOCK: tl.constexpr):
    """Does not compile."""
    tl.store(out + tl.arange(0, BLOCK), tl.zeros([2 * BLOCK], tl.float32))


def _product(block: int, dtype: torch.dtype = torch.bfloat16, precision: str = "ieee", num_warps: int = 4) -> None:
    a, b = (torch.empty(size, dtype=dtype) for size in ((block, 1024), (1024, block)))
    out = torch.empty(block, block)
    launching.launch(product, (1,), a, b, out, 1024, BLOCK=block, PRECISION=precision, num_warps=num_warps)


def fits(case: Any) -> None:
    """Twice the same, and once with a width that is not divisible by 16."""
    for n in (1024, 2048, 1023):
        a, b, out = torch.empty(64, n).bfloat16(), torch.empty(n, 64).bfloat16(), torch.empty(64, 64)
        launching.launch(product, (1,), a, b, out, n, BLOCK=64, PRECISION="ieee", num_warps=4)


def spills(case: Any) -> None:
    _product(128, num_warps=1)


def overflows(case: Any) -> None:
    a, b, out = torch.empty(128, 1024).half(), torch.empty(1024, 128).half(), torch.empty(128, 128)
    launching.launch(product, (1,), a, b, out, 1024, BLOCK=128, PRECISION="ieee", num_warps=8, num_stages=6)


def without_matrix_units(case: Any) -> None:
    _product(32, torch.float32)


def is_left_out(case: Any) -> None:
    a, b, out = (torch.empty(64, 64, dtype=torch.bfloat16) for _ in range(3))
    launching.launch(product_for_nobody, (1,), a, b, out, BLOCK=64)


def is_rounded(case: Any) -> None:
    _product(32, torch.float32, "tf32")


def is_no_program(case: Any) -> None:
    launching.launch(wrong_types, (1,), torch.empty(64), BLOCK=64)


def is_launched_too_wide(case: Any) -> None:
    launching.launch(product_for_nobody, (1, 70_000), *(torch.empty(64, 64).half() for _ in range(3)), BLOCK=64)


def breaks_before_a_launch(case: Any) -> None:
    raise ValueError("this host function refuses")


RUNS = {
    run.__name__: run
    for run in (
        fits,
        spills,
        overflows,
        without_matrix_units,
        is_left_out,
        is_rounded,
        is_no_program,
        is_launched_too_wide,
        breaks_before_a_launch,
    )
}
