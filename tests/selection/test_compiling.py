"""Selection that learns under torch.compile: one graph, the same answers and gradients."""

import pytest
import torch

import gpa_nd
from gpa_nd.selection import PerturbedTopK, SoftTopK, StraightThrough

RULES = [SoftTopK(0.7), StraightThrough(SoftTopK(0.7)), PerturbedTopK(0.7, samples=8)]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the compiler itself
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_compiled_it_is_one_graph_with_the_same_answers(rule):
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=2, selection=rule)
    compiled = torch.compile(gpa, backend="aot_eager", fullgraph=True)

    def results(call):
        torch.manual_seed(0)
        q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 2, 30, 8, dtype=torch.float64))
        out = call(q, k, v)
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    for a, b in zip(results(compiled), results(gpa), strict=True):
        assert (a - b).abs().max() < 1e-12
