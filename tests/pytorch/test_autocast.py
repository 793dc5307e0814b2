"""Autocast: projections are computed in bfloat16, and the dtype that they give is what the engine computes in."""

import pytest
import torch

import gpa_nd
from gpa_nd.nn import CopyAttention, GatedCoarse


def block(gated, **settings):
    gpa = gpa_nd.image(downsample=(3, 4), cells=(2, 3), kappa=2, **settings)
    return CopyAttention(8, 8, 8, GatedCoarse(gpa, 8) if gated else gpa)


@pytest.mark.parametrize("gated", [False, True])
def test_a_block_is_what_its_projections_in_bfloat16_make_it(gated):
    seen = {}
    module = block(gated)
    target, source = torch.randn(2, 2, 8, 10, 13)
    module.attention.register_forward_hook(lambda _, inputs, out: seen.update(inputs=inputs, out=out))
    with torch.autocast("cpu", torch.bfloat16):
        out = module(target, source)
        q, k, v = seen["inputs"]
        assert {x.dtype for x in (q, k, v, seen["out"])} == {torch.bfloat16}
    assert out[:, :8].equal(target)  # what is not projected stays as it is
    attended = seen["out"]
    if not gated:
        assert module.attention(q, k, v).equal(attended)  # the engine does not look at autocast
    out.float().square().sum().backward()
    assert {x.grad.dtype for x in module.parameters()} == {torch.float32}
    # Rounding may change which keys are chosen, but where it does not, it changes little.
    near = (out - module(target, source)).abs().amax(1) < 0.05
    assert near.float().mean() > 0.9


def test_float32_inputs_are_not_rounded():
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=2)
    q, k, v = torch.randn(3, 1, 2, 30, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert gpa(q, k, v).equal(gpa(q.clone(), k, v))
        assert gpa(q, k, v).dtype == torch.float32
