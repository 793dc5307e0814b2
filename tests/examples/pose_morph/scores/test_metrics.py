"""Scores against hand-worked values."""

import json

import pytest
import torch

from examples.pose_morph.scores.metrics import PROTOCOLS, score_pairs, ssim_gaussian, to_bytes
from examples.pose_morph.training.pair_stream import Batch


def grey(value: float) -> torch.Tensor:
    """A flat picture."""
    return torch.full((3, 32, 24), value)


def test_ssim_of_flat_pictures_is_the_luminance_term():
    """Without variance SSIM is (2ab + C1) / (a² + b² + C1), C1 = (0.01 · 255)²."""
    a, b, c1 = 51.0, 204.0, 2.55**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim_gaussian(grey(a / 127.5 - 1), grey(b / 127.5 - 1)) == pytest.approx(expected, abs=1e-4)
    assert ssim_gaussian(grey(0.3), grey(0.3)) == 1.0


def test_ssim_uses_the_gaussian_window():
    """A single different pixel changes SSIM only as far as the window reaches: 5 pixels at sigma 1.5."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    result = truth.clone()
    result[:, 32, 32] = -result[:, 32, 32]
    from skimage.metrics import structural_similarity

    a, b = (to_bytes(x[None])[0].permute(1, 2, 0).numpy() for x in (result, truth))
    _, per_pixel = structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim_gaussian(result, truth) < 1
    assert (per_pixel[:26] == 1).all()
    assert per_pixel[28, 32].min() < 1


def test_bytes_are_rounded_and_cut():
    assert to_bytes(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)).flatten().tolist() == [
        0, 0, 128, 255, 255,
    ]  # fmt: skip


def test_scores_average_over_pairs_and_weigh_the_body(standing):
    keypoints = standing.expand(2, -1, -1)
    truth = -torch.ones(2, 3, 64, 40)
    truth[0] = 1.0
    batch = Batch(truth, keypoints, truth, keypoints)
    right = torch.ones(2, 3, 64, 40)
    scores = score_pairs(iter([batch]), lambda batch: right, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    assert set(scores) == set(PROTOCOLS)
    assert scores["l1"] == pytest.approx(1.0)
    assert scores["perceptual"] == pytest.approx(1.0)
    corner = truth.clone()
    corner[:, :, :4, :4] = 0.0  # far from the body
    scores = score_pairs(iter([batch]), lambda batch: corner, lambda a, b: torch.zeros(2))
    assert scores["l1"] == pytest.approx(16 / (64 * 40), rel=0.01)
    assert scores["l1_person"] < 0.1 * scores["l1"]
    json.dumps(scores)
