"""Mean absolute difference of pixels, over the picture and over the body."""

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.networks import limb_coordinates

DEFINITIONS = {
    "l1": "mean absolute difference of pixels in [-1, 1]; mean over pairs; lower is better",
    "l1_person": "mean absolute difference of pixels in [-1, 1], weighed by how far a pixel of the truth belongs to "
    "the body (limb coordinates); mean over pairs; lower is better",
}


def l1(result: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Return one mean per pair."""
    return (result - truth).abs().mean(dim=(1, 2, 3))


def l1_person(
    result: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"], keypoints: Float[Tensor, "b 18 2"]
) -> Float[Tensor, "b"]:
    """Return one mean per pair, over the body that stands in the pose ``keypoints``."""
    coordinates = limb_coordinates.limb_coordinates(keypoints, (truth.shape[-2], truth.shape[-1]))
    body = coordinates[:, : len(limb_coordinates.PARTS)].sum(dim=1) / limb_coordinates.MEMBERSHIP
    error = (result - truth).abs().mean(dim=1)
    return (error * body).sum(dim=(1, 2)) / torch.clamp(body.sum(dim=(1, 2)), min=1e-6)
