"""Structural similarity (Wang et al. 2004), as three groups of authors compute it: three protocols, three names.

All take two pictures of bytes and call scikit-image's ``structural_similarity``; the score is the mean over pixels and
colours. The same pictures score 0.1 apart under different protocols, so a bare "SSIM" says nothing.
"""

import numpy as np
from jaxtyping import UInt8
from skimage.metrics import structural_similarity
from torch import Tensor

from examples.pose_morph.scores.undefined import UndefinedScore

DEFINITIONS = {
    "ssim_gaussian": "scikit-image structural_similarity, RGB of 8 bits, data range 255, Gaussian window of sigma 1.5 "
    "(11 pixels), no sample covariance; mean over pairs; higher is better",
    "ssim_uniform51": "scikit-image structural_similarity, RGB in [0, 1], data range 1, uniform window of 51 pixels, "
    "sample covariance, as GFLA's script has it; mean over pairs; higher is better",
    "ssim_bars": "as PATN's script has it: white bars on the left and right of both pictures (40 pixels at a height of "
    "256, in proportion at others: 256x176 becomes 256x256), then scikit-image structural_similarity, RGB of 8 bits, "
    "Gaussian window of sigma 1.5, no sample covariance, data range from the least to the greatest value of the "
    "generated picture with its bars; mean over pairs; higher is better",
}

Picture = UInt8[Tensor, "3 h w"]


def ssim_gaussian(result: Picture, truth: Picture) -> float:
    """SSIM with the Gaussian window of the original paper."""
    _check(result, window=11, protocol="ssim_gaussian")
    return _gaussian(_channels_last(result), _channels_last(truth), data_range=255)


def ssim_uniform51(result: Picture, truth: Picture) -> float:
    """SSIM as the scripts of GFLA and its followers compute it."""
    _check(result, window=51, protocol="ssim_uniform51")
    a, b = (_channels_last(picture) / 255 for picture in (result, truth))
    return float(structural_similarity(a, b, channel_axis=2, data_range=1, win_size=51))


def ssim_bars(result: Picture, truth: Picture) -> float:
    """SSIM as PATN's script computes it, with white bars that every method gets right."""
    _check(result, window=11, protocol="ssim_bars")
    a, b = (_with_bars(_channels_last(picture)) for picture in (result, truth))
    return _gaussian(a, b, data_range=float(a.max()) - float(a.min()))


def _with_bars(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w2 3"]:
    bar = round(40 * picture.shape[0] / 256)
    return np.pad(picture, ((0, 0), (bar, bar), (0, 0)), constant_values=255)


def _gaussian(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"], *, data_range: float) -> float:
    # A generated picture that is white all over has no range under its bars; 1 keeps the constants of SSIM from zero.
    score = structural_similarity(
        a, b, channel_axis=2, data_range=data_range or 1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    return float(score)


def _channels_last(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    return picture.permute(1, 2, 0).cpu().numpy()


def _check(picture: Picture, *, window: int, protocol: str) -> None:
    height, width = picture.shape[-2:]
    if min(height, width) < window:
        raise UndefinedScore(
            f"{protocol}: expected pictures of at least {window} pixels on each side, got {height}x{width}"
        )
