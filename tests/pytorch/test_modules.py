"""What people do with modules: copy, save, move, checkpoint, transform."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gpa_nd
from gpa_nd.nn import CopyAttention, GatedCoarse

TARGET, SOURCE = torch.randn(2, 6, 10, 13), torch.randn(2, 5, 10, 13)


def image(**settings):
    return gpa_nd.image(downsample=(3, 4), cells=(2, 3), kappa=2, **settings)


def block(**settings):
    return CopyAttention(6, 5, 6, image(**settings), heads=2)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.copy = CopyAttention(6, 5, 6, GatedCoarse(image(), 3), heads=2)

    def forward(self, target, source):
        return self.copy(target, source)


@pytest.mark.parametrize("make", [block, Gated])
def test_copies_and_pickles_are_the_same(make):
    module = make()
    expected = module(TARGET, SOURCE)
    whole = io.BytesIO()
    torch.save(module, whole)
    whole.seek(0)
    for twin in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(whole, weights_only=False),
    ):
        assert twin(TARGET, SOURCE).equal(expected)


@pytest.mark.parametrize("make", [block, Gated])
def test_a_state_dict_is_loaded_without_pickled_code(make):
    file, module, other = io.BytesIO(), make(), make()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(TARGET, SOURCE).equal(module(TARGET, SOURCE))


def test_it_moves_to_other_dtypes_and_devices():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert block().to(dtype)(TARGET.to(dtype), SOURCE.to(dtype)).dtype == dtype
    assert block().to("meta")(TARGET.to("meta"), SOURCE.to("meta")).shape == (2, 12, 10, 13)
    with torch.device("meta"):
        module = block()
    module.to_empty(device="cpu").load_state_dict((filled := block()).state_dict())
    assert module(TARGET, SOURCE).equal(filled(TARGET, SOURCE))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_computed_again_in_the_backward_pass_it_has_the_same_gradients(use_reentrant):
    module, grads = block(), []
    for again in (False, True):
        target = TARGET.clone().requires_grad_()
        out = checkpoint(module, target, SOURCE, use_reentrant=use_reentrant) if again else module(target, SOURCE)
        out.square().sum().backward()
        grads.append([target.grad, *(x.grad for x in module.parameters())])
        module.zero_grad()
    assert all(a.equal(b) for a, b in zip(*grads, strict=True))


def test_weights_may_be_parametrized_and_frozen():
    module = block()
    expected = module(TARGET, SOURCE)
    nn.utils.parametrizations.weight_norm(module.query)
    assert (module(TARGET, SOURCE) - expected).abs().max() < 1e-6
    module.requires_grad_(False)
    assert not module(TARGET, SOURCE).requires_grad


def test_transforms_of_functions_take_the_reference():
    module = block(backend="reference").double()
    target, source = (x.double() for x in (TARGET, SOURCE))

    def loss(weights):
        return torch.func.functional_call(module, weights, (target, source)).square().mean()

    grads = torch.func.grad(loss)(dict(module.named_parameters()))
    module(target, source).square().mean().backward()
    assert all((grads[name] - x.grad).abs().max() < 1e-12 for name, x in module.named_parameters())
    q, k, v = torch.randn(3, 3, 2, 2, 10, 13, 8).double()
    one_by_one = torch.stack([module.attention(*each) for each in zip(q, k, v, strict=True)])
    assert (torch.func.vmap(module.attention)(q, k, v) - one_by_one).abs().max() < 1e-12


def test_per_sample_gradients_take_the_reference():
    module = block(backend="reference").double()
    target, source, weights = TARGET.double(), SOURCE.double(), dict(module.named_parameters())

    def loss(weights, target, source):
        return torch.func.functional_call(module, weights, (target[None], source[None])).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, target, source)
    for n in range(2):
        module.zero_grad()
        loss(weights, target[n], source[n]).backward()
        assert all((each[name][n] - x.grad).abs().max() < 1e-12 for name, x in module.named_parameters())
