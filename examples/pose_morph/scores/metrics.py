"""Scores on held-out people, each under a name that says how it is computed."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from examples.pose_morph.networks import limb_coordinates
from examples.pose_morph.training.pair_stream import Batch

PROTOCOLS = {
    "ssim_gaussian": "scikit-image structural_similarity, 8-bit RGB, Gaussian window sigma 1.5, no sample covariance; "
    "over the picture as fitted to the preset's size, padding included; mean over pairs; higher is better",
    "perceptual": "mean squared distance of channel-normalised features of the named extractor; lower is better",
    "l1": "mean absolute difference of pixels in [-1, 1]; lower is better",
    "l1_person": "the same, weighed by how far a pixel of the truth belongs to the body (limb coordinates)",
}


def ssim_gaussian(result: Float[Tensor, "3 h w"], truth: Float[Tensor, "3 h w"]) -> float:
    """SSIM of two pictures in [-1, 1] as Wang et al. (2004) computed it, on 8-bit colours."""
    a, b = (to_bytes(x[None])[0].permute(1, 2, 0).numpy() for x in (result, truth))
    score = structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(score)


def to_bytes(images: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Round pictures in [-1, 1] to bytes; what lies outside is cut."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)


def score_pairs(
    batches: Iterator[Batch],
    morph: Callable[[Batch], Float[Tensor, "b 3 h w"]],
    perceptual: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """Return the mean of every protocol over all pairs, for the pictures that ``morph`` makes of them."""
    scores: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    with torch.no_grad():
        for batch in batches:
            # As a picture file would hold them: rounded to 8 bits, inside [-1, 1].
            result = to_bytes(morph(batch)).to(batch.target.device).float() / 127.5 - 1
            error = (result - batch.target).abs().mean(dim=1)
            body = _body(batch.target_keypoints, batch.target.shape[-2:])
            scores["ssim_gaussian"] += [ssim_gaussian(a, b) for a, b in zip(result, batch.target, strict=True)]
            scores["perceptual"] += perceptual(result, batch.target).tolist()
            scores["l1"] += error.mean(dim=(1, 2)).tolist()
            scores["l1_person"] += ((error * body).sum(dim=(1, 2)) / body.sum(dim=(1, 2)).clamp(min=1e-6)).tolist()
    return {name: sum(values) / len(values) if values else math.nan for name, values in scores.items()}


def _body(keypoints: Float[Tensor, "b 18 2"], size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """How far each pixel belongs to the body: the sum of its memberships."""
    coordinates = limb_coordinates.limb_coordinates(keypoints, size)
    return coordinates[:, : len(limb_coordinates.PARTS)].sum(dim=1) / limb_coordinates.MEMBERSHIP
