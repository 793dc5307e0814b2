"""Scores against hand-worked values."""

import json

import pytest
import torch

from examples.pose_morph.data.pose_data import region_of
from examples.pose_morph.scores.metrics import PROTOCOLS, score_pairs
from examples.pose_morph.training.batch import Batch


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
    scores = score_pairs(iter([batch]), lambda batch: corner, lambda a, b: torch.zeros(1))
    assert scores["l1"] == pytest.approx(16 / (64 * 40), rel=0.01)
    assert scores["l1_person"] < 0.1 * scores["l1"]
    json.dumps(scores)


def test_padding_is_not_scored(standing):
    truth = torch.zeros(1, 3, 64, 60)
    batch = Batch(truth, standing[None], truth, standing[None])
    region = region_of((64, 40), (64, 60))
    assert region == (0, 10, 64, 40, 1.0)
    wrong_outside = truth.clone()
    wrong_outside[..., :10] = wrong_outside[..., 50:] = 1.0

    def score(result, regions):
        return score_pairs(
            iter([batch]), lambda _: result, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), regions=regions
        )

    assert score(wrong_outside, [region])["l1"] == pytest.approx(0.0, abs=0.01)
    assert score(wrong_outside, [region])["perceptual"] == pytest.approx(0.0, abs=0.01)
    assert score(wrong_outside, None)["l1"] == pytest.approx(20 / 60, abs=0.01)
