"""Selection that learns, and coarse fill, with the fused kernels, in Triton's interpreter or on a GPU."""

import pytest
import torch

import gpa_nd
from gpa_nd import gpa_attention
from gpa_nd.selection import SoftTopK, StraightThrough

pytest.importorskip("triton")
from gpa_nd.engine.fused.launch import interpreted

DEVICE = "cpu" if interpreted() else "cuda"
pytestmark = [
    pytest.mark.skipif(not interpreted() and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a GPU"),
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # numpy, under the interpreter
]
SOFT = SoftTopK(0.8)


def layout(causal):
    return gpa_nd.audio(downsample=4, cells=4, kappa=1, causal=causal).layout((30,), (30,), DEVICE)


SETTINGS = [
    {"selection": SOFT},
    {"selection": StraightThrough(SOFT)},
    {"unselected": "pooled"},
    {"unselected": "pooled", "selection": SOFT},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_backend_agrees(settings, causal):
    def results(backend):
        rng = torch.Generator().manual_seed(0)
        tokens = torch.randn(3, 1, 2, 30, 16, generator=rng).to(DEVICE)
        q, k, v = (x.requires_grad_() for x in tokens)
        out = gpa_attention(q, k, v, layout(causal), kappa=2, backend=backend, **settings)
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    for fused, plain in zip(results("triton"), results("reference"), strict=True):
        assert (fused - plain).abs().max() < 1e-5
