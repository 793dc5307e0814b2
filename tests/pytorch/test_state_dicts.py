"""State dicts of today can be loaded tomorrow, and mean the same."""

import pytest
import torch

from tests.pytorch.frozen import IMAGE, frozen, modules

MODULES = modules()


@pytest.mark.parametrize("name", list(MODULES))
@torch.no_grad()
def test_frozen_weights_give_the_frozen_answer(name):
    module = MODULES[name][0].eval()
    weights, inputs, output = frozen(name)
    module.load_state_dict(weights, strict=True)
    assert [x.shape for x in module.state_dict().values()] == [weights[key].shape for key in module.state_dict()]
    out = module(*inputs)
    assert out.abs().max() > 0.01
    assert (out - output).abs().max() < 1e-4 * max(1, output.abs().max())


def test_attention_itself_has_nothing_to_load():
    IMAGE(*torch.randn(3, 1, 1, 6, 8, 4))
    assert IMAGE.state_dict() == {}
