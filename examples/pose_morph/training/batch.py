"""What the networks are trained and scored on: two pictures with their poses."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import default_collate

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.data.pose import apply_affine
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.networks.generator import Pose, draw_pose
from examples.pose_morph.networks.settings import ModelSettings


class Batch(NamedTuple):
    """Source and target pictures in [-1, 1] with their poses: (M1, B1) and (M2, B2)."""

    source: Float[Tensor, "b 3 h w"]
    source_keypoints: Float[Tensor, "b 18 2"]
    target: Float[Tensor, "b 3 h w"]
    target_keypoints: Float[Tensor, "b 18 2"]


def take_pairs(data: PoseData, which: Tensor) -> Batch:
    """Return the pairs with the numbers ``which``."""
    first, second = (default_collate([data[number] for number in side]) for side in data.pairs[which].t().tolist())
    return Batch(to_image(first.image), first.keypoints, to_image(second.image), second.keypoints)


def distorted(batch: Batch, tau: Float[Tensor, "b 2 3"]) -> Batch:
    """Return (M1, B1, tau(M1), tau(B1)), what L_self compares."""
    source, keypoints, _, _ = batch
    return Batch(source, keypoints, *apply_affine(source, keypoints, tau))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch, its pictures in the layout that convolutions like."""
    pictures = torch.channels_last
    return Batch(
        batch.source.to(device, memory_format=pictures, non_blocking=True),
        batch.source_keypoints.to(device, non_blocking=True),
        batch.target.to(device, memory_format=pictures, non_blocking=True),
        batch.target_keypoints.to(device, non_blocking=True),
    )


def draw_poses(batch: Batch, settings: ModelSettings) -> tuple[Pose, Pose]:
    """Return B1 and B2 as the networks of ``settings`` see them."""
    return draw_pose(batch.source_keypoints, settings), draw_pose(batch.target_keypoints, settings)


def divide(batch: Batch, tau: Float[Tensor, "b 2 3"], parts: int) -> list[tuple[Batch, Float[Tensor, "b2 2 3"]]]:
    """Return ``parts`` equal parts of a batch and its tau, each of samples that follow one another."""
    fields = [field.chunk(parts) for field in (*batch, tau)]
    return [(Batch(*part[:-1]), part[-1]) for part in zip(*fields, strict=True)]
