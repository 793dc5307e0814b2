"""The command of Fig. 9 on a tiny model and a tiny folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.contributions import Options, contributions_at, default_points, parse_point, run
from examples.pose_morph.networks.attention import FullAttention
from examples.pose_morph.networks.copy_weights import CopyLevel
from examples.pose_morph.networks.trained import ModelInfo, save_model


@pytest.fixture
def model(tmp_path, tiny_generator) -> Path:
    """A folder with an untrained model."""
    save_model(tmp_path / "model", tiny_generator, info=ModelInfo("tiny", 0, 0))
    return tmp_path / "model"


def test_the_picture_and_the_table_are_made(model, people, tmp_path):
    console = Console(record=True, width=100)
    assert run(Options(model, people, pair=1, out=tmp_path / "out"), console) == 0
    with Image.open(tmp_path / "out" / "pair_0001_32x16.png") as picture:
        assert picture.height > 640
    text = console.export_text()
    assert "gpa attention at 32x16" in text
    for letter, joint in zip("ABCD", ("neck", "right elbow", "left hip", "right ankle"), strict=True):
        assert re.search(rf"{letter} +│ {joint}", text)
    run(Options(model, people, layer="16x8", out=tmp_path / "out"), console)
    assert (tmp_path / "out" / "pair_0000_16x8.png").is_file()


def test_by_default_the_picture_goes_beside_its_model(model, people):
    run(Options(model, people), Console(quiet=True))
    run(Options(model / "model.safetensors", people, layer="16x8"), Console(quiet=True))
    assert {path.name for path in (model / "contributions").iterdir()} == {"pair_0000_32x16.png", "pair_0000_16x8.png"}
    other = (model / "model.safetensors").rename(model.parent / "other.safetensors")
    run(Options(other, people), Console(quiet=True))
    assert (model.parent / "other-contributions" / "pair_0000_32x16.png").is_file()


def test_a_point_asks_the_pixel_of_the_layer_that_covers_it():
    keys = torch.eye(8).view(1, 1, 4, 2, 8)
    level = CopyLevel(FullAttention(scale=1000.0), keys, keys)
    first, second = contributions_at([(3.4, 0.0), (3.6, 15.4)], level, size=(16, 8))
    assert (first.label, second.label) == ("A", "B")
    assert first.weights.nonzero().tolist() == [[0, 0]]
    assert second.weights.nonzero().tolist() == [[3, 1]]


def test_a_joint_that_is_not_known_gives_way_to_the_other_side(standing):
    standing[[3, 11, 10, 13]] = torch.nan
    assert [name for name, _ in default_points(standing)] == ["neck", "left elbow", "right hip"]
    with pytest.raises(UserError, match="none of the joints"):
        default_points(torch.full_like(standing, torch.nan))


@pytest.mark.parametrize("text", ["40", "a,b", "1,2,3", "nan,1"])
def test_a_point_that_is_none_is_named(text):
    assert parse_point("40,2.5") == ("", (40.0, 2.5))
    with pytest.raises(UserError, match=re.escape(repr(text))):
        parse_point(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair": 4}, r"--pair: expected 0 … 3, got 4"),
        ({"pair": -1}, r"--pair: expected 0 … 3, got -1"),
        ({"points": ("16,3",)}, r"--points: expected points inside the picture, 16 wide and 32 high, got 16,3"),
        ({"points": ("1,1",) * 27}, r"--points: expected at most 26 points, got 27"),
        ({"layer": "64x40"}, r"layer: expected last or one of 16x8, 32x16"),
    ],
)
def test_bad_input_is_named_and_nothing_written(changes, message, model, people, tmp_path):
    options = {"pair": 0, "points": (), "layer": "last", "out": tmp_path / "out"} | changes
    with pytest.raises(UserError, match=message):
        run(Options(model, people, **options), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_a_message_and_code_2(tmp_path):
    command = [sys.executable, "-m", "examples.pose_morph.experiments.contributions", "--model", str(tmp_path / "no")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "model: there is no" in done.stdout
    assert not done.stderr
