"""What every score of a pair is computed from: bytes without padding, as picture files would hold them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from examples.pose_morph.data.pixels import to_bytes, to_image
from examples.pose_morph.data.pose_data import Region
from examples.pose_morph.training.batch import Batch


class ScoredPair(NamedTuple):
    """A generated picture, the true one, and the joints in them if they are known."""

    result: UInt8[Tensor, "3 h w"]
    truth: UInt8[Tensor, "3 h w"]
    keypoints: Float[Tensor, "18 2"] | None

    def images(self, device: torch.device) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 3 h w"]]:
        """Return result and truth in [-1, 1], as batches of one."""
        return to_image(self.result[None].to(device)), to_image(self.truth[None].to(device))


def scored_pairs(batch: Batch, results: UInt8[Tensor, "b 3 h w"], regions: Sequence[Region | None]) -> list[ScoredPair]:
    """Cut generated pictures, truths and joints to where each truth lies inside its padding; None leaves it whole."""
    truths, keypoints = to_bytes(batch.target), batch.target_keypoints.cpu()
    return [
        ScoredPair(result, truth, joints)
        if region is None
        else ScoredPair(region.crop(result), region.crop(truth), region.move(joints))
        for result, truth, joints, region in zip(results, truths, keypoints, regions, strict=True)
    ]
