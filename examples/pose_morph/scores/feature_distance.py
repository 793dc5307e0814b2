"""A Fréchet distance that works offline, on EfficientNet-Lite0. It is no FID and must not be called one."""

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.scores.perceptual import load_efficientnet_lite0

DEFINITIONS = {
    "frechet_efficientnet_lite0": "Fréchet distance, no FID: pictures in [-1, 1] to 224x224 (bilinear, align_corners "
    "off, no antialiasing), EfficientNet-Lite0's ImageNet features before its classifier, mean over pixels (1280); "
    "sample covariances over n - 1 in float64; fake: the generated pictures; real: the pictures that `real` describes; "
    "lower is better",
}


class EfficientNetLite0Features(nn.Module):
    """The pooled features for pictures of bytes, of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_efficientnet_lite0()
        self.eval().requires_grad_(False)

    def forward(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        """Return the features."""
        x = F.interpolate(to_image(pictures), size=(224, 224), mode="bilinear", align_corners=False)
        return self.network.extract_features(x).mean(dim=(2, 3))
