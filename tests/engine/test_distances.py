"""Squared distances and their gradients, beside plain differences."""

import pytest
import torch

from gpa_nd import testing
from gpa_nd.engine.distances import squared_distances


def differences(q, k):
    return (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)


@pytest.mark.parametrize("c", [1, 8, 9, 64, 256])
@pytest.mark.parametrize("away", [0, 1000])
def test_distances_and_their_gradients_are_as_exact_as_those_of_differences(c, away):
    q, k = torch.randn(2, 3, 17, c) + away, torch.randn(2, 3, 23, c) + away
    weights = torch.randn(2, 3, 17, 23, dtype=torch.float64)

    def run(function, dtype):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k)]
        found = function(*inputs)
        return found.detach(), *torch.autograd.grad((found * weights.to(dtype)).sum(), inputs)

    three = run(squared_distances, torch.float32), run(differences, torch.float32), run(differences, torch.float64)
    for which, (fast, plain, exact) in enumerate(zip(*three, strict=True)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)
    assert squared_distances(q, k).equal(three[0][0])


def test_derivatives_agree_with_differences_of_results():
    inputs = [torch.randn(2, n, 11, dtype=torch.float64, requires_grad=True) for n in (3, 4)]
    assert torch.autograd.gradcheck(squared_distances, inputs)
    assert torch.autograd.gradgradcheck(squared_distances, inputs)
    assert torch.autograd.gradcheck(lambda k: squared_distances(inputs[0].detach(), k), inputs[1:])


def test_nothing_but_the_rows_is_kept_for_the_gradient():
    q, k = (torch.randn(1, 50, 64, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        squared_distances(q, k)
    assert sum(x.numel() for x in kept) == q.numel() + k.numel()
