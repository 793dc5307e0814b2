"""FID: the Fréchet distance on Inception-v3, in two protocols that give different numbers for the same pictures.

Weights, resizing and the real pictures are part of a protocol; FIDs of different protocols cannot be compared.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from examples.pose_morph.scores.inception import IGNORED, InceptionV3, Version
from examples.pose_morph.scores.weights import load_weights

_REST = (
    "mean of the last maps (2048); sample covariances over n - 1 in float64; fake: the generated pictures; real: the "
    "pictures that `real` describes; lower is better"
)
DEFINITIONS = {
    "fid_gfla": "FID as GFLA, PIDM and CFLD report it: torchvision's ImageNet Inception-v3; pictures in [0, 1] to "
    "299x299 (bilinear, align_corners off, no antialiasing), then x * (0.229, 0.224, 0.225) / 0.5 + ((0.485, 0.456, "
    f"0.406) - 0.5) / 0.5 per colour; {_REST}. GFLA's script leaves out its last incomplete batch of 64, here every "
    "picture counts; its real pictures are the whole training set",
    "fid_tf2015": "FID as pytorch-fid computes it: the Inception of TensorFlow's file 2015-12-05, padding left out of "
    "its averages, a maximum in its last block; pictures in [0, 1] to 299x299 (bilinear, align_corners off, no "
    f"antialiasing; not clean-fid's resizing), then 2 x - 1; {_REST}",
}
EXPECTED: dict[Version, str] = {
    "torchvision": "torchvision's Inception-v3 (inception_v3_google-0cc3c7bd.pth)",
    "tf2015": "pytorch-fid's Inception (pt_inception-2015-12-05-6726825d.pth)",
}
OPTIONS: dict[Version, str] = {"torchvision": "--inception-weights", "tf2015": "--inception2015-weights"}


class InceptionFeatures(nn.Module):
    """The features of one protocol for pictures of bytes, of any size."""

    def __init__(self, version: Version, weights: Path) -> None:
        """Read the weights.

        Raises:
            UserError: the file is absent or holds another network's.
        """
        super().__init__()
        self.network = InceptionV3(version)
        load_weights(self.network, weights, option=OPTIONS[version], expected=EXPECTED[version], ignored=IGNORED)
        deviation, mean = (0.229, 0.224, 0.225), (0.485, 0.456, 0.406)
        plain = version == "tf2015"
        scale = torch.full((3,), 2.0) if plain else torch.tensor(deviation) / 0.5
        shift = torch.full((3,), -1.0) if plain else (torch.tensor(mean) - 0.5) / 0.5
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """Return the features."""
        x = F.interpolate(pictures.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        return self.network(x * self.scale + self.shift)
