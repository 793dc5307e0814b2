"""The loss terms of Eq. 2: non-saturating GAN with R1, and the reconstruction that L_per and L_self share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def generator_gan_loss(fake: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """The non-saturating loss: -log sigmoid(D(fake))."""
    return F.softplus(-fake).mean()


def discriminator_gan_loss(real: Float[Tensor, "b"], fake: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """The logistic loss of the discriminator: -log sigmoid(D(real)) - log(1 - sigmoid(D(fake)))."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def r1_penalty(
    discriminator: Callable[[Tensor, Tensor], Tensor],
    image: Float[Tensor, "b 3 h w"],
    heatmaps: Float[Tensor, "b 18 h w"],
) -> Float[Tensor, ""]:
    """Half the mean squared gradient of D at real pairs (Mescheder et al. 2018); weigh it by gamma."""
    image, heatmaps = image.detach().requires_grad_(), heatmaps.detach().requires_grad_()
    score = discriminator(image, heatmaps).sum()
    gradients = torch.autograd.grad(score, (image, heatmaps), create_graph=True)
    return sum(gradient.square().flatten(1).sum(dim=1) for gradient in gradients).mean() / 2


def reconstruction_loss(
    result: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    *,
    perceptual_weight: float,
    pixel_weight: float,
) -> Float[Tensor, ""]:
    """L_per on a pair and L_self on a picture and its tau; the pixels' L1 beside the features is ours."""
    loss = pixel_weight * (result - truth).abs().mean()
    if perceptual_weight:
        loss = loss + perceptual_weight * perceptual(result, truth).mean()
    return loss
