"""The discriminator: is this picture real, and does it show this pose? (section 3.1, Table 3)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.networks.settings import ModelSettings
from examples.pose_morph.networks.stylegan2 import SQRT2, EqualConv2d, EqualLinear, minibatch_std
from examples.pose_morph.networks.unet import IMAGE, Encoder


class Discriminator(nn.Module):
    """StyleGAN2's discriminator on a picture joined with the heatmaps of a pose."""

    def __init__(self, settings: ModelSettings, *, minibatch_group: int = 1) -> None:
        """Build the encoder's blocks, the minibatch standard deviation over groups of samples and two linear layers."""
        super().__init__()
        channels = settings.discriminator_channels or tuple(level.encoder_channels for level in settings.levels)
        smallest = [axis // 2 ** (len(channels) - 1) for axis in settings.size]
        self.minibatch_group = minibatch_group
        self.encoder = Encoder(IMAGE + len(JOINTS), channels)
        self.conv = EqualConv2d(channels[-1] + 1, channels[-1], 3)
        self.hidden = EqualLinear(channels[-1] * math.prod(smallest), channels[-1])
        self.score = EqualLinear(channels[-1], 1)

    def forward(self, image: Float[Tensor, "b 3 h w"], heatmaps: Float[Tensor, "b 18 h w"]) -> Float[Tensor, "b"]:
        """Return one logit per pair; large means real."""
        x = self.encoder(torch.cat([image, heatmaps], dim=1))[-1]
        x = self.conv(minibatch_std(x, self.minibatch_group))
        x = nn.functional.leaky_relu(self.hidden(x.flatten(1)), 0.2) * SQRT2
        return self.score(x).squeeze(1)
