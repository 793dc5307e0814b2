"""LPIPS (Zhang et al. 2018), version 0.1 on AlexNet, in plain PyTorch; both sets of weights are the user's files."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.scores.undefined import UndefinedScore
from examples.pose_morph.scores.weights import load_weights

DEFINITIONS = {
    "lpips_alex": "LPIPS 0.1 on AlexNet: pictures in [-1, 1] less (-0.030, -0.088, -0.188) over (0.458, 0.448, 0.450), "
    "relu1 to relu5 normalised per pixel, squared differences weighed by the linear layers, mean over pixels, sum over "
    "layers, no resizing; mean over pairs; lower is better",
}
ALEXNET = "torchvision's AlexNet (alexnet-owt-7be5be79.pth or alexnet-owt-4df8aa71.pth)"
LINEAR = "the linear layers of LPIPS 0.1 for AlexNet (weights/v0.1/alex.pth of the lpips package)"

CHANNELS = (64, 192, 384, 256, 256)
SMALLEST = 31
"""With a smaller side nothing is left after AlexNet's two poolings."""


class AlexNet(nn.Module):
    """The five convolutions of AlexNet; parameters bear torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Return relu1 … relu5."""
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return maps


class LinearLayers(nn.Module):
    """One weight per channel of every map; names as in the published file (``model.0`` is a dropout there)."""

    def __init__(self) -> None:
        super().__init__()
        for index, channels in enumerate(CHANNELS):
            convolution = nn.Conv2d(channels, 1, 1, bias=False)
            self.add_module(f"lin{index}", nn.ModuleDict({"model": nn.Sequential(nn.Identity(), convolution)}))

    def forward(self, squares: list[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b"]:
        """Weigh the squared differences and sum over the layers."""
        layers = [getattr(self, f"lin{index}")["model"] for index in range(len(CHANNELS))]
        return torch.stack([layer(x).mean(dim=(1, 2, 3)) for layer, x in zip(layers, squares, strict=True)]).sum(dim=0)


class LPIPS(nn.Module):
    """The distance; 0 for equal pictures."""

    def __init__(self, alexnet_weights: Path, lpips_weights: Path) -> None:
        """Read both files.

        Raises:
            UserError: a file is absent or holds something else.
        """
        super().__init__()
        self.alexnet, self.linear = AlexNet(), LinearLayers()
        load_weights(
            self.alexnet, alexnet_weights, option="--alexnet-weights", expected=ALEXNET, ignored=("classifier.",)
        )
        load_weights(self.linear, lpips_weights, option="--lpips-weights", expected=LINEAR)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, result: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        """Return one distance per pair of pictures in [-1, 1]."""
        height, width = truth.shape[-2:]
        if min(height, width) < SMALLEST:
            raise UndefinedScore(f"lpips_alex: expected at least {SMALLEST} pixels on each side, got {height}x{width}")
        maps = [self.alexnet((image - self.shift) / self.scale) for image in (result, truth)]
        return self.linear([(_unit(a) - _unit(b)).square() for a, b in zip(*maps, strict=True)])


def _unit(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10)
