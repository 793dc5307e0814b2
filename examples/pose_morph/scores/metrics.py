"""The quick scores of a training run on held-out people; `examples.pose_morph.evaluate` has all protocols."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.pixels import to_bytes
from examples.pose_morph.data.pose_data import Region
from examples.pose_morph.scores import l1, perceptual, ssim
from examples.pose_morph.scores.scored_pair import scored_pairs
from examples.pose_morph.training.batch import Batch


def definitions_of(extractor: perceptual.ExtractorName) -> dict[str, str]:
    """Return the names of the scores, with how each is computed."""
    name = perceptual.protocol_of(extractor)
    of_features = {**perceptual.DEFINITIONS, **perceptual.VGG19_DEFINITIONS}[name]
    return {"ssim_gaussian": ssim.DEFINITIONS["ssim_gaussian"], name: of_features, **l1.DEFINITIONS}


def score_pairs(
    batches: Iterator[Batch],
    morph: Callable[[Batch], Float[Tensor, "b 3 h w"]],
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    extractor: perceptual.ExtractorName,
    regions: Sequence[Region | None] | None = None,
) -> dict[str, float]:
    """Return the mean of every protocol over all pairs, for the pictures that ``morph`` makes of them.

    Args:
        batches: The pairs.
        morph: From a batch to generated pictures.
        distance: The perceptual distance: one number per pair.
        extractor: The network in whose features it is computed, which names the score.
        regions: Where each target picture lies inside its padding, in the order of the pairs; None scores it whole.
    """
    scores: dict[str, list[float]] = {name: [] for name in definitions_of(extractor)}
    done = 0
    with torch.no_grad():
        for batch in batches:
            results, device = to_bytes(morph(batch)), batch.target.device
            here = [None] * len(results) if regions is None else regions[done : done + len(results)]
            done += len(results)
            for pair in scored_pairs(batch, results, here):
                result, truth = pair.images(device)
                scores["ssim_gaussian"].append(ssim.ssim_gaussian(pair.result, pair.truth))
                scores[perceptual.protocol_of(extractor)].append(distance(result, truth).item())
                scores["l1"].append(l1.l1(result, truth).item())
                scores["l1_person"].append(l1.l1_person(result, truth, pair.keypoints[None].to(device)).item())
    return {name: sum(values) / len(values) if values else math.nan for name, values in scores.items()}
