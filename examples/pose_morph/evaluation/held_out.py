"""Held-out people: the pairs that are scored, and those that are shown."""

import torch
from torch import Tensor

from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose import random_affine
from examples.pose_morph.data.pose_data import PoseData, Region
from examples.pose_morph.training.batch import Batch, distorted, take_pairs
from examples.pose_morph.training.sample_stream import seeded

HELD_OUT = 2
"""The purpose that the generators of the held-out tau are seeded for; training has 0 and 1."""

TAU = 0.15
"""Strength of the affine maps that stand in for pairs where there are none: the paper's."""

TASKS = {
    True: "pairs: one person in two poses",
    False: f"pictures and their tau of strength {TAU}, seeded by the picture's number: the data has no pairs",
}
"""What is scored, by whether the data has pairs."""


def take_held_out(data: PoseData, which: Tensor) -> Batch:
    """Return pairs with a truth: those of the data, or each picture with a tau that depends on its number alone."""
    batch = take_pairs(data, which)
    if data.paired:
        return batch
    return distorted(batch, torch.cat([random_affine(1, TAU, seeded(0, HELD_OUT, n)) for n in which.tolist()]))


def regions_of(data: PoseData, which: Tensor) -> list[Region | None]:
    """Return where each truth of `take_held_out` lies inside its padding; tau moves padding too, which leaves None."""
    if not data.paired:
        return [None] * len(which)
    return [data.region(number) for number in data.pairs[which, 1].tolist()]


def take_shown(data: PoseData, wanted: int) -> Batch:
    """Return pairs for the sample grids; in unpaired data each picture takes the pose of another one."""
    which = evenly(len(data.pairs), wanted)
    batch = take_pairs(data, which)
    if data.paired:
        return batch
    others = take_pairs(data, (which + max(1, len(data.pairs) // 2)) % len(data.pairs))
    return Batch(batch.source, batch.source_keypoints, others.source, others.source_keypoints)
