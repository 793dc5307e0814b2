"""Numbers that lie further apart than 32 bits count, on every backend; of backend "triton" in tests/engine/fused."""

from __future__ import annotations

import sys

import pytest
import torch

import gpa_nd
from gpa_nd import gpa_attention, select_keys
from tests.engine.fused.reserved import room

NAMES = ("q", "k", "v", "key_bias")
FAR = (0, 16, 2**29, 1)
"""Strides of (1, 2, 6, 16): the last row begins at 5 · 2²⁹, past 2³¹."""


def tokens(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    tokens = {name: torch.randn(1, 2, 6, 16, generator=rng).to(dtype) for name in NAMES}
    return tokens | {"key_bias": tokens["key_bias"][..., 0]}


def far_apart(x: torch.Tensor) -> torch.Tensor:
    """The same numbers in memory that takes no room where nothing is written."""
    return room(5 * 2**29 + 32, "cpu").as_strided(x.shape, FAR[: x.ndim]).copy_(x)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that takes no room until it is touched")
@pytest.mark.parametrize("ranking", ["mean", "rerank"])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_past_two_to_the_31_are_reached(name, ranking, backend):
    layout = gpa_nd.audio(2, 3, 2, ranking=ranking).layout((6,), (6,))
    settings = {"layout": layout, "kappa": 2, "ranking": ranking, "backend": backend}

    def run(given):
        inputs = [x.detach().requires_grad_() for x in given.values()]
        out = gpa_attention(**dict(zip(given, inputs, strict=True)), **settings)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    near = tokens()
    far = near | {name: far_apart(near[name])}
    assert all(a.equal(b) for a, b in zip(run(far), run(near), strict=True))


def test_more_than_two_to_the_31_numbers_are_pooled(cases, figure):
    """2²⁰ keys of 2¹¹ channels, which are one row in memory; the night has 4 GiB for what pooling copies of them."""
    n = 2 ** cases(13, 20)
    layout = gpa_nd.audio(n // 64, 4, 2).layout((n // 16,), (n,))
    row = torch.randn(1, 1, 1, 2**11).bfloat16()
    q, k = row.expand(-1, -1, n // 16, -1), row.expand(-1, -1, n, -1)
    assert select_keys(q, k, layout, kappa=2, backend="torch").equal(torch.tensor([0, 1]).expand(1, 1, 4, 2))  # all tie
    figure(f"{k.numel():,} numbers")
