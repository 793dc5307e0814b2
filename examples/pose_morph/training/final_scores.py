"""The quick scores at the end of a run, on held-out people; `examples.pose_morph.evaluate` has all protocols."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from examples.pose_morph.atomic import write_json
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.evaluation.held_out import TASKS, regions_of, take_held_out
from examples.pose_morph.messages import say
from examples.pose_morph.scores.metrics import definitions_of, score_pairs
from examples.pose_morph.scores.perceptual import ExtractorName
from examples.pose_morph.training.batch import Batch, to_device


def score_held_out(
    data: PoseData,
    which: Tensor,
    morph: Callable[[Batch], Tensor],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    *,
    extractor: ExtractorName,
    batch_size: int,
    device: torch.device,
    stopped: Callable[[], bool],
    show: Callable[[str, int], None],
) -> dict[str, Any]:
    """Score the pictures that ``morph`` makes of the pairs ``which``, and the untouched sources beside them.

    ``stopped`` is asked between batches, to end early; ``show`` is told what is scored and how many of it are done.
    """

    def batches(what: str) -> Iterator[Batch]:
        done = 0
        for numbers in which.split(batch_size):
            if not stopped():
                show(what, done)
                yield to_device(take_held_out(data, numbers), device)
                done += len(numbers)
        show(what, done)

    same = {"extractor": extractor, "regions": regions_of(data, which)}
    return {
        "model": score_pairs(batches("scoring"), morph, perceptual, **same),
        "copy_source": score_pairs(batches("scoring copies"), lambda batch: batch.source, perceptual, **same),
        "protocols": definitions_of(extractor),
        "task": TASKS[data.paired],
        "pairs": len(which),
    }


def write_metrics(path: Path, metrics: dict[str, Any], console: Console) -> None:
    """Write the scores and all that belongs to them, and print the scores."""
    write_json(path, {**metrics, "torch": torch.__version__})
    width = max(map(len, metrics["model"]))
    for name, score in metrics["model"].items():
        say(console, f"{name:>{width}}: {score:.4f}   copying the source: {metrics['copy_source'][name]:.4f}")
