"""The quick scores of a training run on held-out people; `examples.pose_morph.evaluate` has all protocols."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.pose_data import Region
from examples.pose_morph.scores import l1, ssim
from examples.pose_morph.training.batch import Batch

PROTOCOLS = {
    "ssim_gaussian": ssim.DEFINITIONS["ssim_gaussian"],
    "perceptual": "mean squared distance of channel-normalised features of the named extractor; lower is better",
    **l1.DEFINITIONS,
}


def to_bytes(images: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Round pictures in [-1, 1] to bytes; what lies outside is cut."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)


def score_pairs(
    batches: Iterator[Batch],
    morph: Callable[[Batch], Float[Tensor, "b 3 h w"]],
    perceptual: Callable[[Tensor, Tensor], Tensor],
    *,
    regions: Sequence[Region] | None = None,
) -> dict[str, float]:
    """Return the mean of every protocol over all pairs, for the pictures that ``morph`` makes of them.

    Args:
        batches: The pairs.
        morph: From a batch to generated pictures.
        perceptual: One distance per pair.
        regions: Where each target picture lies inside its padding, in the order of the pairs; None scores everything.
    """
    scores: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    done = 0
    with torch.no_grad():
        for batch in batches:
            # As a picture file would hold them: rounded to 8 bits, inside [-1, 1].
            results, truths, keypoints = to_bytes(morph(batch)), to_bytes(batch.target), batch.target_keypoints
            here = [None] * len(results) if regions is None else regions[done : done + len(results)]
            done += len(results)
            for region, rows in _by_region(here).items():
                parts = results[rows], truths[rows], keypoints[rows]
                if region is not None:
                    parts = region.crop(parts[0]), region.crop(parts[1]), region.move(parts[2])
                scores["ssim_gaussian"] += [ssim.ssim_gaussian(a, b) for a, b in zip(*parts[:2], strict=True)]
                a, b = (pictures.to(batch.target.device).float() / 127.5 - 1 for pictures in parts[:2])
                scores["perceptual"] += perceptual(a, b).tolist()
                scores["l1"] += l1.l1(a, b).tolist()
                scores["l1_person"] += l1.l1_person(a, b, parts[2]).tolist()
    return {name: sum(values) / len(values) if values else math.nan for name, values in scores.items()}


def _by_region(regions: Sequence[Region | None]) -> dict[Region | None, list[int]]:
    """The rows of a batch that are cut alike."""
    rows: dict[Region | None, list[int]] = {}
    for row, region in enumerate(regions):
        rows.setdefault(region, []).append(row)
    return rows
