"""Rendering people."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.pose_morph.data.rest_points import read_rest_points
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.synthetic import Synthetic, as_keypoints, synthetic

PEOPLE = Path(__file__).parents[4] / "examples" / "pose_morph" / "people"
needs_anny = pytest.mark.skipif(
    find_spec("anny") is None or find_spec("warp") is None, reason="needs the body model: pip install anny warp-lang"
)


def test_rows_and_columns_become_x_and_y():
    points = as_keypoints(np.array([[3, 7], [-1, -1]]))
    assert points[0].tolist() == [7, 3]
    assert points[1].isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poses": 0}, "--poses: expected at least 1, got 0"),
        ({"test_identities": -1}, "--test-identities: expected at least 0, got -1"),
        ({"size": (8, 8)}, r"--size: expected at least \(32, 16\)"),
    ],
)
def test_odd_options_are_refused(tmp_path, console, options, message):
    with pytest.raises(UserError, match=message):
        synthetic(Synthetic(tmp_path / "out", **options), console)


def test_a_folder_that_is_filled_is_kept(tmp_path, console):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train is already there .*--overwrite"):
        synthetic(Synthetic(tmp_path), console)


@pytest.mark.skipif(find_spec("anny") is not None, reason="anny is installed")
def test_without_the_body_model_the_message_is_the_command_to_install_it(tmp_path, console):
    with pytest.raises(UserError, match=r"python -m pip install anny warp-lang"):
        synthetic(Synthetic(tmp_path / "out", identities=1, test_identities=1), console)
    assert not (tmp_path / "out").exists()


@needs_anny
def test_the_shipped_people_come_out_again(tmp_path, console):
    synthetic(Synthetic(tmp_path, identities=1, test_identities=0), console)
    names = sorted(path.name for path in (tmp_path / "train").iterdir())
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "train" / name).read_bytes() == (PEOPLE / "train" / name).read_bytes()


@needs_anny
def test_any_size_and_rest_points_that_fit_the_pictures(tmp_path, console):
    synthetic(Synthetic(tmp_path, identities=0, test_identities=1, poses=1, size=(64, 60), rest_points=True), console)
    (picture,) = (tmp_path / "test").iterdir()
    points = read_rest_points(tmp_path, picture.name)
    with Image.open(picture) as image:
        assert (image.height, image.width) == (64, 60) == tuple(points.shape[:2])
    rows = points.isfinite().all(-1).any(1).nonzero().flatten()
    assert 64 * 0.6 < rows[-1] - rows[0] < 63
