"""The number for Fig. 9 on a tiny folder with rest-pose points, and on the shipped people."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.data.rest_points import encode, rest_path
from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.right_spot import Options, drawn, run, spots_of
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.trained import ModelInfo, save_model
from examples.pose_morph.presets import PRESETS
from examples.pose_morph.scores.right_spot import right_spots, spot_shares
from examples.pose_morph.training.options import PEOPLE


def write_rest(root: Path, size: tuple[int, int] = (64, 40)) -> Path:
    """Give every held-out picture the same points: those of a flat person in the inner half."""
    y, x = torch.meshgrid(torch.linspace(0.8, -0.8, size[0]), torch.linspace(-0.5, 0.5, size[1]), indexing="ij")
    points = torch.stack([x, torch.zeros_like(x), y], dim=-1)
    points[:, : size[1] // 4] = points[:, -(size[1] // 4) :] = torch.nan
    for path in (root / "test").iterdir():
        target = rest_path(root, path.name)
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(encode(points).numpy()).save(target)
    return root


def write_model(folder: Path, attention: str = "gpa") -> Path:
    """Write an untrained model of the pictures' size."""
    torch.manual_seed(0)
    settings = with_attention(PRESETS["tiny"].model, attention)
    save_model(folder, Generator(settings), info=ModelInfo("tiny", 0, 0))
    return folder


def test_table_numbers_and_picture_are_made(people, tmp_path):
    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    console = Console(record=True, width=80)
    assert run(Options(model, write_rest(people), untrained=True, shown=2, out=out), console) == 0
    report = json.loads((out / "right_spot.json").read_text())
    assert report["pairs"] == 4
    assert report["pixels"] == {"asked": 4 * 64 * 20, "hidden": 0}
    assert [level["level"] for level in report["trained"]] == ["8x5", "16x10", "32x20", "64x40"]
    for level, before in zip(report["trained"], report["untrained"], strict=True):
        assert level["attention"] == pytest.approx(before["attention"])  # the same seed, and no training in between
        assert list(level["attention"]) == ["2", "4", "8", "16"]
        for radius, share in level["attention"].items():
            assert 0 < share <= level["selected"][radius] <= level["best"][radius] <= 1
    with Image.open(out / "right_spot.png") as picture:
        assert picture.height > 2 * 256
    assert "…" not in console.export_text()


def test_an_approximation_is_left_out_and_said(people, tmp_path):
    model = write_model(tmp_path / "model", "performer")
    console = Console(record=True, width=80)
    run(Options(model, write_rest(people), pairs=1, out=tmp_path / "out"), console)
    report = json.loads((tmp_path / "out" / "right_spot.json").read_text())
    assert [level["level"] for level in report["trained"]] == ["8x5", "16x10"]
    assert report["left_out"] == ["PerformerAttention at 32x20", "PerformerAttention at 64x40"]
    assert "left out: PerformerAttention at 64x40" in console.export_text()


def test_limb_coordinates_find_the_place_on_a_person_who_stays_as_they_are():
    """Source and target are one shipped picture; before any training the coordinates lead to the right spot."""
    people = read_data(PEOPLE, "test", (128, 80))
    same = replace(people, pairs=people.pairs[:1, [0, 0]])
    torch.manual_seed(0)
    generator = Generator(PRESETS["demo"].model).eval()
    shares = spot_shares(spots_of(same, 0, PEOPLE, 0.04), drawn(generator, same, 0)[2][-1], (0.04,))
    assert shares.attention.mean() > 0.8
    assert shares.strongest.median() < 0.01
    assert shares.uniform.mean() < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0.0}, "--radius: expected more than 0, got 0"),
        ({"pairs": 0}, "--pairs: expected more than 0, got 0"),
        ({"shown": 0}, "--shown: expected more than 0, got 0"),
    ],
)
def test_a_number_that_makes_no_sense_is_named(changes, message, people, tmp_path):
    model = write_model(tmp_path / "model")
    with pytest.raises(UserError, match=message):
        run(Options(model, people, out=tmp_path / "out", **changes), Console(quiet=True))


def test_people_without_rest_points_or_of_another_size_are_named(people, tmp_path):
    options = Options(write_model(tmp_path / "model"), people, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"rest points: .*\.png is not there; only rendered people have them"):
        run(options, Console(quiet=True))
    write_rest(people, size=(128, 80))
    with pytest.raises(UserError, match=r"points of .* are \(128, 80\), and the model draws \(64, 40\)"):
        run(options, Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_points_that_no_source_shows_are_an_error(people, tmp_path):
    write_rest(people)
    empty = encode(torch.full((64, 40, 3), torch.nan))
    for path in (people / "rest").iterdir():
        Image.fromarray(empty.numpy()).save(path)
    with pytest.raises(UserError, match="no source shows any pixel of its target"):
        run(Options(write_model(tmp_path / "model"), people, out=tmp_path / "out"), Console(quiet=True))
    assert not right_spots(*torch.full((2, 4, 4, 3), torch.nan), 0.04).pixels.numel()
