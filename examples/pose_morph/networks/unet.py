"""The parts of the UNets: the encoder, the decoder's block with its copy attention, and the way to RGB."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.networks.stylegan2 import DownBlock, EqualConv2d, ModulatedConv2d, StyledConv
from gpa_nd.nn import CopyAttention

IMAGE = 3
"""Channels of a picture."""


class Encoder(nn.Module):
    """The first half of a UNet; also the trunk of the discriminator (Table 3)."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        """Take ``channels`` from the largest level to the smallest."""
        super().__init__()
        self.stem = EqualConv2d(in_channels, channels[0], 1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(channels))
        self.last = EqualConv2d(channels[-1], channels[-1], 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d h2 w2"]]:
        """Return the features of every level, largest first."""
        x = self.stem(x)
        features = []
        for block in self.blocks:
            full, x = block(x)
            features.append(full)
        return [*features, self.last(x)]


class DecoderBlock(nn.Module):
    """Upsample, take in the encoder's features of this level and, in the target UNet, copy from the source decoder."""

    def __init__(
        self,
        below: int | None,
        skip: int,
        channels: int,
        style_channels: int,
        copy: CopyAttention | None = None,
    ) -> None:
        """Make a block for ``below`` channels from the level below (None: the smallest level) and ``skip`` across."""
        super().__init__()
        self.up = None if below is None else StyledConv(below, channels, style_channels, up=True)
        self.merge = StyledConv(skip if below is None else channels + skip, channels, style_channels)
        self.copy = copy
        self.fuse = None if copy is None else StyledConv(2 * channels, channels, style_channels)

    def forward(
        self,
        x: Float[Tensor, "b c h w"] | None,
        skip: Float[Tensor, "b d h2 w2"],
        style: Float[Tensor, "b s"],
        source: Float[Tensor, "b e h2 w2"] | None,
        coordinates: Float[Tensor, "b k h2 w2"] | None,
    ) -> tuple[Float[Tensor, "b d h2 w2"], Float[Tensor, "b d h2 w2"] | None]:
        """Return this level's features and what was copied into them (None without attention)."""
        if self.up is not None:
            skip = torch.cat([self.up(x, style), skip], dim=1)
        x = self.merge(skip, style)
        if self.copy is None:
            return x, None
        channels = x.shape[1]
        query = x if coordinates is None else torch.cat([x, coordinates], dim=1)
        copied = self.copy(query, source)[:, query.shape[1] :]
        assert copied.shape[1] == channels
        return self.fuse(torch.cat([x, copied], dim=1), style), copied


class ToRGB(nn.Module):
    """A level's addition to the picture; with ``copies`` it may replace the picture by the copied colours.

    The gate is ours: the first three copied channels start out as the attended source pixels, and ``gate`` says where
    the picture so far gives way to them. The residual RGB of StyleGAN2 is added afterwards.
    """

    def __init__(self, channels: int, style_channels: int, *, copies: bool) -> None:
        """Make the 1x1 layer of StyleGAN2 (no demodulation)."""
        super().__init__()
        outputs = IMAGE + 1 if copies else IMAGE
        self.conv = ModulatedConv2d(channels, outputs, 1, style_channels, demodulate=False)
        # A quarter of the usual size: the picture starts out as what was copied.
        nn.init.normal_(self.conv.weight, std=0.25)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.copies = copies
        if copies:
            nn.init.constant_(self.bias[IMAGE:], 1.5)

    def forward(
        self,
        rgb: Float[Tensor, "b 3 h w"] | None,
        x: Float[Tensor, "b c h w"],
        style: Float[Tensor, "b s"],
        copied: Float[Tensor, "b c h w"] | None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Add this level to ``rgb``, the picture so far."""
        out = self.conv(x, style) + self.bias[:, None, None]
        addition = out[:, :IMAGE]
        if self.copies:
            colour = copied[:, :IMAGE]
            addition = addition + (colour if rgb is None else torch.lerp(rgb, colour, torch.sigmoid(out[:, IMAGE:])))
            return addition
        return addition if rgb is None else rgb + addition
