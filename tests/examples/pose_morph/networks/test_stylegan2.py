"""The layers against slow statements of what they mean."""

import pytest
import torch
import torch.nn.functional as F

from examples.pose_morph.networks.stylegan2 import (
    Blur,
    DownBlock,
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    StyledConv,
    minibatch_std,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_equals_one_convolution_per_sample(up, demodulate):
    layer = ModulatedConv2d(3, 5, 3, 7, up=up, demodulate=demodulate).double()
    x, style = torch.randn(4, 3, 6, 5).double(), torch.randn(4, 7).double()
    blur = Blur(pad=1, gain=4.0).double()
    rows = []
    for one, scale in zip(x, layer.style(style), strict=True):
        weight = layer.weight * layer.gain * scale[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            rows.append(blur(F.conv_transpose2d(one[None], weight.transpose(0, 1), stride=2)))
        else:
            rows.append(F.conv2d(one[None], weight, padding=1))
    torch.testing.assert_close(layer(x, style), torch.cat(rows), rtol=1e-10, atol=1e-10)


def test_demodulated_output_has_unit_variance_whatever_the_style():
    layer = ModulatedConv2d(32, 16, 3, 8)
    x, style = torch.randn(2, 32, 64, 64), torch.randn(2, 8)
    small, large = layer(x, style), layer(x, 0.1 * style)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    for out in (small, large):
        assert out[inner].std().item() == pytest.approx(1.0, abs=0.05)


def test_equalised_layers_keep_unit_variance():
    x = torch.randn(4096, 100)
    assert EqualLinear(100, 50)(x).std().item() == pytest.approx(1.0, abs=0.05)
    image = torch.randn(4, 20, 40, 40)
    out = EqualConv2d(20, 30, 1, act=False)(image)
    assert out.std().item() == pytest.approx(1.0, abs=0.1)


def test_blur_keeps_a_constant_and_spreads_a_point():
    constant = Blur(pad=2)(torch.ones(1, 2, 8, 8))
    assert constant.shape == (1, 2, 9, 9)
    torch.testing.assert_close(constant[:, :, 2:-2, 2:-2], torch.ones(1, 2, 5, 5))
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 64.0
    spread = Blur(pad=2)(point)[0, 0]
    torch.testing.assert_close(spread[3], torch.tensor([0.0, 0, 3, 9, 9, 3, 0, 0]))


def test_up_doubles_and_keeps_a_constant():
    layer = StyledConv(1, 1, 1, up=True)
    assert layer(torch.randn(2, 1, 4, 5), torch.randn(2, 1)).shape == (2, 1, 8, 10)
    conv = ModulatedConv2d(1, 1, 3, 1, up=True, demodulate=False)
    torch.nn.init.constant_(conv.weight, 1 / 3)  # times the gain 1/3: nine weights that sum to one
    torch.nn.init.zeros_(conv.style.weight)  # and the style's bias is one
    out = conv(torch.ones(1, 1, 6, 6), torch.zeros(1, 1))
    torch.testing.assert_close(out[..., 3:-3, 3:-3], torch.ones(1, 1, 6, 6))


def test_down_block_returns_full_and_half_size():
    full, half = DownBlock(4, 6)(torch.randn(2, 4, 16, 10))
    assert full.shape == (2, 4, 16, 10)
    assert half.shape == (2, 6, 8, 5)


def test_layers_have_second_derivatives():
    block = DownBlock(2, 3).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: block(x)[1], (x,), atol=1e-6)


def test_minibatch_std_of_equal_samples_is_zero_and_of_two_is_known():
    same = torch.ones(4, 3, 2, 2)
    assert minibatch_std(same, 4)[:, 3].abs().max() < 1e-3
    two = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 2.0)])
    torch.testing.assert_close(minibatch_std(two, 2)[:, 1], torch.ones(2, 2, 2))
    three = torch.tensor([0.0, 3.0, 6.0])[:, None, None, None].expand(3, 1, 2, 2)  # the paper's batch is one group
    torch.testing.assert_close(minibatch_std(three, 3)[:, 1], torch.full((3, 2, 2), 6**0.5))


def test_minibatch_groups_are_samples_that_follow_one_another():
    x = torch.randn(6, 3, 4, 4)
    whole = minibatch_std(x, 2)
    torch.testing.assert_close(whole, torch.cat([minibatch_std(part, 2) for part in x.split(2)]))
    assert len(whole[:, 3].unique()) == 3
    with pytest.raises(ValueError, match="group: expected a number that divides the batch of 6, got 4"):
        minibatch_std(x, 4)
