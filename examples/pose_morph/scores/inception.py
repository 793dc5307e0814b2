"""Inception-v3 (Szegedy et al. 2016) up to its pooled features, in plain PyTorch, in the two versions that FIDs use.

Parameters bear torchvision's names, so that torchvision's file and pytorch-fid's fit as they are. The two networks
differ in their poolings: the one ported from TensorFlow's file of 2015 leaves the padding out of its averages and takes
a maximum in its last block.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Version = Literal["torchvision", "tf2015"]
Map = Float[Tensor, "b c h w"]
Pool = Callable[[Map], Map]

FEATURES = 2048
IGNORED = ("AuxLogits.", "fc.")
"""What the files hold beside these features: the classifiers."""

AVERAGE = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
AVERAGE_INSIDE = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
MAXIMUM = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
HALVE = partial(F.max_pool2d, kernel_size=3, stride=2)


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation, ReLU; padded to keep the size unless ``same`` is off."""

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], *, stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (kernel[0] // 2, kernel[1] // 2) if same else 0
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Map) -> Map:
        """Apply the three."""
        return F.relu(self.bn(self.conv(x)))


class InceptionA(nn.Module):
    """Mixed_5b to Mixed_5d, at 35x35."""

    def __init__(self, channels: int, pool_channels: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Convolution(channels, 48, 1), Convolution(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(channels, pool_channels, 1)

    def forward(self, x: Map) -> Map:
        """Join four branches."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(self.pool(x))], dim=1)


class InceptionB(nn.Module):
    """Mixed_6a, from 35x35 to 17x17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(channels, 384, 3, stride=2, same=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 64, 1), Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2, same=False)

    def forward(self, x: Map) -> Map:
        """Join three branches."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, HALVE(x)], dim=1)


class InceptionC(nn.Module):
    """Mixed_6b to Mixed_6e, at 17x17, with 7x7 taken apart into 1x7 and 7x1."""

    def __init__(self, channels: int, inner: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Convolution(channels, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Convolution(channels, inner, 1), Convolution(inner, inner, (1, 7))
        self.branch7x7_3 = Convolution(inner, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Convolution(channels, inner, 1), Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Convolution(inner, inner, (1, 7)), Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Convolution(inner, 192, (1, 7))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Map) -> Map:
        """Join four branches."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(self.pool(x))], dim=1)


class InceptionD(nn.Module):
    """Mixed_7a, from 17x17 to 8x8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(channels, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2, same=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = Convolution(channels, 192, 1), Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2, same=False)

    def forward(self, x: Map) -> Map:
        """Join three branches."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, HALVE(x)], dim=1)


class InceptionE(nn.Module):
    """Mixed_7b and Mixed_7c, at 8x8, whose branches fork once more."""

    def __init__(self, channels: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Convolution(channels, 448, 1), Convolution(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Map) -> Map:
        """Join four branches, two of which fork."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        forks += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pool(x))], dim=1)


class InceptionV3(nn.Module):
    """The pooled features of Inception-v3 for pictures of 299x299 that are already normalised."""

    def __init__(self, version: Version) -> None:
        """Build one of the two versions, with random weights."""
        super().__init__()
        pool, last = (AVERAGE, AVERAGE) if version == "torchvision" else (AVERAGE_INSIDE, MAXIMUM)
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2, same=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, same=False)
        self.Mixed_5b = InceptionA(192, 32, pool)
        self.Mixed_5c = InceptionA(256, 64, pool)
        self.Mixed_5d = InceptionA(288, 64, pool)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128, pool)
        self.Mixed_6c = InceptionC(768, 160, pool)
        self.Mixed_6d = InceptionC(768, 160, pool)
        self.Mixed_6e = InceptionC(768, 192, pool)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, pool)
        self.Mixed_7c = InceptionE(2048, last)

    def forward(self, image: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        """Return the means of the last maps."""
        x = HALVE(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(image))))
        x = HALVE(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))
