"""Rest-pose points: what is stored, and that the shipped ones belong to the shipped pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.rest_points import HIGH, LOW, STEPS, decode, encode, read_rest_points, rest_path

PEOPLE = Path(__file__).parents[4] / "examples" / "pose_morph" / "people"
NAMES = sorted(path.name for path in (PEOPLE / "test").iterdir())


def test_a_point_comes_back_to_half_a_step_and_the_background_as_nan():
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    points = low + torch.rand(40, 30, 3, generator=torch.Generator().manual_seed(0)) * (high - low)
    points[0, 0], points[0, 1] = low, high
    points[5, 7] = torch.nan
    back = decode(encode(points))
    assert torch.isnan(back[5, 7]).all()
    wrong = (back - points).abs()
    wrong[5, 7] = 0
    assert (wrong <= (high - low) / STEPS / 2 + 1e-6).all()


def test_a_point_outside_the_box_is_refused():
    with pytest.raises(ValueError, match=r"expected points between .* got \[0.0, 0.0, 1.0\]"):
        encode(torch.tensor([[[0.0, 0.0, 1.0]]]))


def test_every_held_out_picture_has_its_points():
    assert {path.name for path in (PEOPLE / "rest").iterdir()} == {rest_path(PEOPLE, name).name for name in NAMES}
    for name in NAMES:
        points = read_rest_points(PEOPLE, name)
        assert points.shape == (128, 80, 3)
        assert 0.1 < torch.isfinite(points).all(-1).float().mean() < 0.4


def test_two_pictures_of_one_person_have_the_same_colour_where_their_points_agree():
    def look(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        points = read_rest_points(PEOPLE, name)
        with Image.open(PEOPLE / "test" / name) as picture:
            pixels = torch.from_numpy(np.array(picture)).float() / 255
        known = torch.isfinite(points).all(-1)
        return points[known], pixels[known]

    def median_error(source: str, target: str) -> float:
        (source_points, source_pixels), (points, pixels) = look(source), look(target)
        distance, nearest = torch.cdist(points, source_points).min(dim=1)
        seen = distance < 0.01
        assert seen.sum() > 200
        return float((source_pixels[nearest] - pixels)[seen].abs().mean(dim=1).median())

    first, second = "annyid00000201_1front.jpg", "annyid00000201_3front.jpg"
    other = "annyid00000200_2front.jpg"
    assert median_error(first, second) < 0.05 < 0.2 < median_error(other, second)


def test_missing_and_odd_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"rest points: .*rest/a.png is not there; .*--rest-points"):
        read_rest_points(tmp_path, "a.jpg")
    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"rest/a.png cannot be read as a picture"):
        read_rest_points(tmp_path, "a.jpg")
    Image.new("L", (4, 4)).save(tmp_path / "rest" / "a.png")
    with pytest.raises(DataError, match=r"rest/a.png to be an 8-bit RGB picture, got mode L"):
        read_rest_points(tmp_path, "a.jpg")
