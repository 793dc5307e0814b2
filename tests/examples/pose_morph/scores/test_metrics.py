"""Scores against hand-worked values."""

import json

import pytest
import torch

from examples.pose_morph.data.pose_data import region_of
from examples.pose_morph.scores.metrics import definitions_of, score_pairs
from examples.pose_morph.scores.protocols import DEFINITIONS
from examples.pose_morph.training.batch import Batch


def test_scores_average_over_pairs_and_weigh_the_body(standing):
    keypoints = standing.expand(2, -1, -1)
    truth = -torch.ones(2, 3, 64, 40)
    truth[0] = 1.0
    batch = Batch(truth, keypoints, truth, keypoints)
    right = torch.ones(2, 3, 64, 40)
    scores = score_pairs(
        iter([batch]), lambda batch: right, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), extractor="vgg19"
    )
    assert set(scores) == set(definitions_of("vgg19"))
    assert scores["l1"] == pytest.approx(1.0)
    assert scores["perceptual_vgg19"] == pytest.approx(1.0)
    corner = truth.clone()
    corner[:, :, :4, :4] = 0.0  # far from the body
    scores = score_pairs(iter([batch]), lambda batch: corner, lambda a, b: torch.zeros(1), extractor="vgg19")
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
            iter([batch]),
            lambda _: result,
            lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)),
            extractor="efficientnet-lite0",
            regions=regions,
        )

    assert score(wrong_outside, [region])["l1"] == pytest.approx(0.0, abs=0.01)
    assert score(wrong_outside, [region])["perceptual_efficientnet_lite0"] == pytest.approx(0.0, abs=0.01)
    assert score(wrong_outside, None)["l1"] == pytest.approx(20 / 60, abs=0.01)


def test_the_perceptual_score_bears_the_name_and_the_definition_that_evaluate_gives_it():
    definitions = definitions_of("efficientnet-lite0")
    assert definitions == {name: DEFINITIONS[name] for name in definitions}
    assert "perceptual_efficientnet_lite0" in definitions
    assert "VGG-19" in definitions_of("vgg19")["perceptual_vgg19"]
