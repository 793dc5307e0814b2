"""A tiny folder in every layout: it trains, its model is scored, and it draws a person in another's pose."""

import json
import math

from PIL import Image, ImageStat
from rich.console import Console

from examples.pose_morph import presets
from examples.pose_morph.data.profiles import find_profile, read_data
from examples.pose_morph.evaluate import evaluate
from examples.pose_morph.evaluation.options import Options as EvaluateOptions
from examples.pose_morph.generate import generate
from examples.pose_morph.generation.options import Options as GenerateOptions
from examples.pose_morph.networks.settings import Full, Grid, Level, ModelSettings
from examples.pose_morph.pictures.sheet import to_picture
from examples.pose_morph.presets import Preset, TrainingSettings
from examples.pose_morph.train import train
from examples.pose_morph.training.batch import to_image
from examples.pose_morph.training.options import Options as TrainOptions
from tests.examples.pose_morph.conftest import write_table

TINY = Preset(
    ModelSettings(
        size=(32, 24),
        levels=(Level(4, 4, Grid(downsample=2, cells=(4, 3), kappa=4)), Level(6, 6, Full())),
        limb_coordinates=True,
        copy_pixels=True,
        sharpness=80.0,
    ),
    TrainingSettings(steps=2, batch_size=2, r1_every=2, sample_every=2, checkpoint_every=2, log_every=1),
)


def test_a_folder_trains_evaluates_and_generates(tmp_path, root, layout, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", TINY)
    console, run = Console(quiet=True), tmp_path / "run"
    profile = layout.partition(",")[0]
    assert find_profile(root, "train") == profile

    assert train(TrainOptions(data=root, out=run, device="cpu", eval_pairs=2), console) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    unpaired = profile == "single"
    expected = {"self", "gan", "disc"} if unpaired else {"per", "self", "gan", "disc"}
    assert expected <= lines[0].keys()
    assert ("per" in lines[0]) is not unpaired
    assert all(math.isfinite(value) for line in lines for value in line.values())
    with Image.open(run / "samples" / "step_000002.png") as samples:
        samples.load()
    scores = json.loads((run / "metrics.json").read_text())["model"]
    assert scores
    assert all(map(math.isfinite, scores.values()))

    options = EvaluateOptions(
        run=(run,), data=root, protocols=("l1", "ssim_gaussian"), pairs=2, grid=1, save_pictures=tmp_path / "scored",
        device="cpu",
    )  # fmt: skip
    assert evaluate(options, console) == 0
    results = json.loads((run / "evaluation" / "metrics.json").read_text())["results"]["run"]
    assert results.keys() >= {"l1", "ssim_gaussian"}
    assert all(math.isfinite(value) for value in results.values())
    assert (run / "evaluation" / "comparison.png").is_file()
    held_out = read_data(root, "test", TINY.model.size)
    assert len(list((tmp_path / "scored").glob("*.png"))) == min(2, len(held_out.pairs))

    portraits = {"source.png": held_out[0], "other.png": held_out[len(held_out) - 1]}
    people = tmp_path / "people"
    write_table(people / "joints.csv", {name: portrait.keypoints for name, portrait in portraits.items()})
    for name, portrait in portraits.items():
        to_picture(to_image(portrait.image)).save(people / name)
    options = GenerateOptions(
        model=run, source=(people / "source.png",), pose_from=(people / "other.png",), out=tmp_path / "drawn",
        device="cpu",
    )  # fmt: skip
    assert generate(options, console) == 0
    with Image.open(tmp_path / "drawn" / "source__other.png") as drawn:
        assert drawn.size == (24, 32)
        assert max(ImageStat.Stat(drawn).stddev) > 0
