"""The layers of StyleGAN2 in plain PyTorch: no compiled operators, twice differentiable, any device.

After Karras et al., "Analyzing and improving the image quality of StyleGAN" (2020).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SQRT2 = math.sqrt(2.0)


class EqualLinear(nn.Module):
    """A linear layer with an equalised learning rate: unit-variance weights, scaled by 1/sqrt(fan-in) when used."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: float = 0.0) -> None:
        """Start with normal weights and a constant bias."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels))
        self.bias = nn.Parameter(torch.full((out_channels,), bias))
        self.gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b d"]:
        """Apply the layer."""
        return F.linear(x, self.weight * self.gain, self.bias)


class Blur(nn.Module):
    """The separable filter [1, 3, 3, 1] of StyleGAN2, one channel at a time; ``gain`` 4 makes up for inserted zeros."""

    kernel: Tensor

    def __init__(self, pad: int, *, gain: float = 1.0) -> None:
        """Keep the 4x4 filter as a buffer."""
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(taps, taps)
        self.register_buffer("kernel", kernel / kernel.sum() * gain, persistent=False)
        self.pad = pad

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Filter; the picture grows by 2*pad - 3 on each axis."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, weight, padding=self.pad, groups=channels)


def upsample_rgb(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
    """Double a picture. Bilinear doubling is the filter [1, 3, 3, 1] with replicated borders."""
    return F.interpolate(rgb, scale_factor=2, mode="bilinear", align_corners=False)


class EqualConv2d(nn.Module):
    """A convolution with an equalised learning rate, optionally blurred and halved, optionally with leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, down: bool = False, act: bool = True
    ) -> None:
        """Start with normal weights; without activation there is no bias either (a residual path)."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if act else None
        self.gain = 1.0 / math.sqrt(in_channels * kernel**2)
        # Blurred pictures are one wider (two for 3x3), so that stride 2 lands on h/2.
        self.blur = Blur(pad=(kernel + 1) // 2) if down else None
        self.stride, self.padding = (2, 0) if down else (1, kernel // 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Apply blur, convolution, bias and activation (times sqrt 2, which keeps the variance)."""
        if self.blur is not None:
            x = self.blur(x)
        x = F.conv2d(x, self.weight * self.gain, self.bias, stride=self.stride, padding=self.padding)
        return x if self.bias is None else F.leaky_relu(x, 0.2) * SQRT2


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by a style and whose outputs are demodulated (section 2.2).

    The style scales the input and the demodulation the output, which equals per-sample weights w·s / |w·s| and lets
    all samples share one convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style_channels: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        """Start with normal weights; the style's affine map starts at one for every channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.gain = 1.0 / math.sqrt(in_channels * kernel**2)
        self.style = EqualLinear(style_channels, in_channels, bias=1.0)
        self.blur = Blur(pad=1, gain=4.0) if up else None
        self.padding = 0 if up else kernel // 2
        self.demodulate = demodulate

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b d h2 w2"]:
        """Convolve ``x`` under ``style``; with ``up`` the result is twice as high and wide."""
        scale = self.style(style)
        weight = self.weight * self.gain
        x = x * scale[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if self.demodulate:
            energy = scale.square() @ weight.square().sum(dim=(2, 3)).t()
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None]
        return x


class StyledConv(nn.Module):
    """Modulated convolution, bias, leaky ReLU: one layer of the synthesis network."""

    def __init__(self, in_channels: int, out_channels: int, style_channels: int, *, up: bool = False) -> None:
        """Make a 3x3 layer; ``up`` doubles the picture."""
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_channels, up=up)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b d h2 w2"]:
        """Apply the layer."""
        return F.leaky_relu(self.conv(x, style) + self.bias[:, None, None], 0.2) * SQRT2


class DownBlock(nn.Module):
    """The residual block of StyleGAN2's discriminator and of our encoders, cut after its full-size convolution.

    Returns the features before halving (what a UNet passes across) and the features after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make a block that halves the picture."""
        super().__init__()
        self.conv = EqualConv2d(in_channels, in_channels, 3)
        self.down = EqualConv2d(in_channels, out_channels, 3, down=True)
        self.skip = EqualConv2d(in_channels, out_channels, 1, down=True, act=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d h2 w2"]]:
        """Return (full-size features, halved features)."""
        full = self.conv(x)
        return full, (self.down(full) + self.skip(x)) / SQRT2


def minibatch_std(x: Float[Tensor, "b c h w"], group: int) -> Float[Tensor, "b c1 h w"]:
    """Append the features' mean standard deviation over groups of the batch as one channel (Karras et al. 2018).

    A group is ``group`` samples that follow one another, so that a batch worked off in parts has the same ones.
    """
    b, _, h, w = x.shape
    if b % group:
        raise ValueError(f"group: expected a number that divides the batch of {b}, got {group}")
    deviation = (x.unflatten(0, (b // group, group)).var(dim=1, unbiased=False) + 1e-8).sqrt()
    deviation = deviation.mean(dim=(1, 2, 3)).repeat_interleave(group)
    return torch.cat([x, deviation[:, None, None, None].expand(b, 1, h, w)], dim=1)
