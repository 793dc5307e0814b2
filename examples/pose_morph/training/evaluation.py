"""The scores at the end of a run, on held-out people."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pose import random_affine
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.scores.metrics import PROTOCOLS, score_pairs
from examples.pose_morph.training.batch import Batch, distorted, take_pairs, to_device
from examples.pose_morph.training.sample_stream import seeded

EVALUATION = 2
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
    return distorted(batch, torch.cat([random_affine(1, TAU, seeded(0, EVALUATION, n)) for n in which.tolist()]))


def take_shown(data: PoseData, wanted: int) -> Batch:
    """Return pairs for the sample grids; in unpaired data each picture takes the pose of another one."""
    which = evenly(len(data.pairs), wanted)
    batch = take_pairs(data, which)
    if data.paired:
        return batch
    others = take_pairs(data, (which + max(1, len(data.pairs) // 2)) % len(data.pairs))
    return Batch(batch.source, batch.source_keypoints, others.source, others.source_keypoints)


def evaluate(
    data: PoseData,
    which: Tensor,
    morph: Callable[[Batch], Tensor],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    *,
    batch_size: int,
    device: torch.device,
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    """Score the pictures that ``morph`` makes of the pairs ``which``, and the untouched sources beside them.

    ``stopped`` is asked between batches, to end early.
    """

    def batches() -> Iterator[Batch]:
        for numbers in which.split(batch_size):
            if not stopped():
                yield to_device(take_held_out(data, numbers), device)

    regions = [data.region(number) for number in data.pairs[which, 1].tolist()] if data.paired else None
    return {
        "model": score_pairs(batches(), morph, perceptual, regions=regions),
        "copy_source": score_pairs(batches(), lambda batch: batch.source, perceptual, regions=regions),
        "protocols": PROTOCOLS,
        "task": TASKS[data.paired],
        "pairs": len(which),
    }


def write_metrics(path: Path, metrics: dict[str, Any], console: Console) -> None:
    """Write the scores and all that belongs to them, and print the scores."""
    text = json.dumps({**metrics, "torch": torch.__version__}, indent=2) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))
    for name, score in metrics["model"].items():
        console.print(f"{name:>14}: {score:.4f}   copying the source: {metrics['copy_source'][name]:.4f}")
