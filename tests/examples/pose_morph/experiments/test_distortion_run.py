"""One run of the distortion task on a tiny folder: what it trains on, what it starts from, and what it leaves."""

import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments import distortion_run, distortion_task
from examples.pose_morph.experiments.distortion_run import RunOptions, model_settings, run, set_sharpness
from examples.pose_morph.networks.attention import CosineAttention, FullAttention
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.presets import PRESETS
from tests.examples.pose_morph.conftest import write_single


def options(people, tmp_path, **changes) -> RunOptions:
    """A run of the tiny preset."""
    return RunOptions(**{"out": tmp_path / "run", "data": people, "preset": "tiny", "test_cases": 3, **changes})


def test_sharpness_is_set_where_gpa_would_stand_and_nowhere_else():
    generator = Generator(PRESETS["tiny"].model)
    set_sharpness(generator, 7.0)
    cosines = [module for module in generator.modules() if isinstance(module, CosineAttention)]
    values = [(isinstance(cosine.attention, FullAttention), cosine.log_sharpness.exp().item()) for cosine in cosines]
    preset = PRESETS["tiny"].model.sharpness
    assert values == [(True, pytest.approx(preset))] * 2 + [(False, pytest.approx(7.0))] * 2


def test_only_the_large_levels_are_widened(tmp_path):
    before = PRESETS["tiny"].model
    wide = model_settings(options(tmp_path, tmp_path, attention="no", widen=2.0))
    assert [level.channels for level in wide.levels] == [24, 48, 48, 64]
    assert [level.encoder_channels for level in wide.levels] == [level.encoder_channels for level in before.levels]
    assert [level.attention for level in wide.levels] == [None, None, *(level.attention for level in before.levels[2:])]


@pytest.mark.parametrize("attention", ["gpa", "no"])
def test_a_short_run_leaves_its_log_pictures_and_finite_scores(people, tmp_path, attention):
    given = options(people, tmp_path, attention=attention, seconds=0.01)
    assert run(given, Console(quiet=True)) == 0
    result = json.loads((given.out / "result.json").read_text())
    assert result["options"].keys() >= {"attention", "seconds", "learning_rate", "sharpness", "widen", "test_cases"}
    assert result["options"]["data"] == str(people)
    assert {"loss", "perceptual", "l1", "ssim_gaussian"} <= result["scores"].keys()
    assert all(map(math.isfinite, result["scores"].values()))
    assert 0 < result["bytes"]["attention"] < result["bytes"]["step"]
    assert result["steps"] >= 1
    assert (given.out / "log.jsonl").is_file()
    with np.load(given.out / "shown.npz") as shown:
        assert {name: shown[name].shape for name in shown.files} == dict.fromkeys(
            ("source", "truth", "result"), (3, 3, 64, 40)
        )


@pytest.mark.parametrize("phase", ["validation", "test"])
def test_validation_pictures_are_never_trained_on(people, tmp_path, monkeypatch, phase):
    trained, scored = [], []
    random, fixed = distortion_task.random_batches, distortion_task.test_batches

    def note_training(pictures, *others):
        trained.append(pictures.images)
        return random(pictures, *others)

    def note_scoring(pictures, *others):
        scored.append(pictures.images)
        return fixed(pictures, *others)

    monkeypatch.setattr(distortion_run, "VALIDATION", 1)
    monkeypatch.setattr(distortion_run, "random_batches", note_training)
    monkeypatch.setattr(distortion_run, "test_batches", note_scoring)
    run(options(people, tmp_path, phase=phase, seconds=0.01, test_cases=1), Console(quiet=True))
    everything = distortion_run.Pictures.of(distortion_run.read_data(people, "train", (64, 40))).images
    held_out = distortion_run.Pictures.of(distortion_run.read_data(people, "test", (64, 40))).images
    assert len(trained) == 2
    assert all(torch.equal(images, everything[:-1]) for images in trained)
    assert all(torch.equal(images, everything[-1:] if phase == "validation" else held_out) for images in scored)


def test_validation_takes_no_more_than_a_fifth_and_data_of_other_layouts_is_read(tmp_path):
    data = write_single(tmp_path / "single", pictures=12)
    training, scored = distortion_run.read_pictures(options(data, tmp_path, phase="validation"), (64, 40))
    total = len(training.images) + len(scored.images)
    assert len(scored.images) == total // 5 == 2


def test_a_single_picture_is_too_few(people, tmp_path):
    table = people / "fasion-resize-pairs-train.csv"
    table.write_text("from,to\ntrain0_0.jpg,train0_0.jpg\n")
    annotation = people / "fasion-resize-annotation-train.csv"
    annotation.write_text("\n".join(annotation.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(UserError, match=r"expected at least 2 training pictures in .*people, got 1"):
        run(options(people, tmp_path), Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_a_message(people, tmp_path):
    with pytest.raises(UserError, match="--device: expected auto, cpu, cuda, cuda:N or mps, got gpu"):
        run(options(people, tmp_path, device="gpu"), Console(quiet=True))
    assert not (tmp_path / "run").exists()
