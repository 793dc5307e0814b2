"""Extracting keypoints: what the table holds, and what is said about the rest."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare import keypoints as step
from examples.pose_morph.prepare.keypoints import Keypoints, keypoints
from examples.pose_morph.prepare.pose_detector import INSTALL, PoseDetector

needs_mediapipe = pytest.mark.skipif(find_spec("mediapipe") is None, reason=f"needs MediaPipe: {INSTALL}")


class Centre:
    """Finds every landmark in the middle of a picture, and nobody in a black one."""

    seen = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def detect(self, picture: Image.Image) -> torch.Tensor | None:
        Centre.seen += 1
        if picture.getpixel((0, 0)) == (0, 0, 0):
            return None
        return torch.tensor([[0.5, 0.5, 1.0]]).repeat(33, 1)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(step, "PoseDetector", Centre)
    monkeypatch.setattr(Centre, "seen", 0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (41, 61), "white").save(folder / name)
    return folder


def test_one_row_per_picture_in_pixels_of_the_stored_picture(photos, tmp_path, console):
    keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    rows = read_annotation(tmp_path / "k.csv").joints
    assert list(rows) == ["a.png", "b.png", "c.png"]
    assert rows["a.png"].tolist() == [[20.0, 30.0]] * 18
    assert "3 pictures: a person in 3, with 18.0 of 18 joints on average; 0 more" in console.file.getvalue()


def test_a_picture_without_a_person_has_a_row_of_minus_one_and_is_named(photos, tmp_path, console):
    Image.new("RGB", (41, 61), "black").save(photos / "b.png")
    keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert torch.isnan(read_annotation(tmp_path / "k.csv").joints["b.png"]).all()
    assert "1 picture(s) without a person that the model finds have a row of -1: b.png" in console.file.getvalue()
    assert "a person in 2," in console.file.getvalue()


def test_broken_and_turned_pictures_are_left_out_and_named(photos, tmp_path, console):
    (photos / "a.png").write_bytes(b"no picture")
    for name, mode in (("d.jpg", "RGB"), ("e.png", "RGBA")):
        turned = Image.new(mode, (41, 61), "white")
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(photos / name, exif=exif)
    keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert list(read_annotation(tmp_path / "k.csv").joints) == ["b.png", "c.png"]
    said = console.file.getvalue()
    assert "2 picture(s) stored turned (EXIF orientation) are left out" in said
    assert "d.jpg, e.png" in said
    assert "left out: " in said
    assert "a.png cannot be read as a picture" in said


def test_rows_that_are_there_are_kept_and_a_stopped_run_goes_on(photos, tmp_path, console, monkeypatch):
    class Stopped(Centre):
        def detect(self, picture: Image.Image) -> torch.Tensor | None:
            if Centre.seen == 2:
                raise KeyboardInterrupt
            return super().detect(picture)

    monkeypatch.setattr(step, "PoseDetector", Stopped)
    with pytest.raises(KeyboardInterrupt):
        keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert list(read_annotation(tmp_path / "k.csv").joints) == ["a.png", "b.png"]
    monkeypatch.setattr(step, "PoseDetector", Centre)
    keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert Centre.seen == 3
    assert list(read_annotation(tmp_path / "k.csv").joints) == ["a.png", "b.png", "c.png"]
    assert "1 picture: a person in 1, with 18.0 of 18 joints on average; 2 more were" in console.file.getvalue()
    assert "nothing left to do" not in console.file.getvalue()
    keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert Centre.seen == 3
    assert "nothing left to do" in console.file.getvalue()
    keypoints(Keypoints(photos, tmp_path / "k.csv", overwrite=True), console)
    assert Centre.seen == 6


def test_a_table_that_cannot_be_written_is_said_before_the_work(photos, tmp_path, console):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"k\.csv cannot be written, because .*file is a file"):
        keypoints(Keypoints(photos, tmp_path / "file" / "k.csv"), console)
    assert Centre.seen == 0


def test_without_mediapipe_the_message_is_the_command_to_install_it(photos, tmp_path, console, monkeypatch):
    monkeypatch.setattr(step, "PoseDetector", PoseDetector)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(UserError, match=r"python -m pip install --no-deps mediapipe==0.10.21 "):
        keypoints(Keypoints(photos, tmp_path / "k.csv"), console)
    assert not (tmp_path / "k.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_visibility": 1.5}, "--least-visibility: expected a number from 0 to 1, got 1.5"),
        ({"every": 0}, "--every: expected at least 1, got 0"),
    ],
)
def test_odd_options_are_refused(photos, tmp_path, console, options, message):
    with pytest.raises(UserError, match=message):
        keypoints(Keypoints(photos, tmp_path / "k.csv", **options), console)


def test_a_file_that_is_no_video_is_refused(photos, tmp_path, console):
    with pytest.raises(UserError, match=r"expected a folder, or a video .* got the file .*a.png"):
        keypoints(Keypoints(photos / "a.png", tmp_path / "k.csv"), console)


@needs_mediapipe
def test_a_photograph_of_a_person_who_faces_us():
    from skimage.data import astronaut, coffee

    from examples.pose_morph.prepare.landmarks import to_joints

    with PoseDetector() as detector:
        landmarks = detector.detect(Image.fromarray(astronaut()))
        assert detector.detect(Image.fromarray(coffee())) is None
    joints = to_joints(landmarks, (512, 512), 0.5)
    nose, neck, right_shoulder, left_shoulder = joints[0], joints[1], joints[2], joints[5]
    assert (nose - torch.tensor([222.0, 127.0])).norm() < 12
    assert right_shoulder[0] < neck[0] < left_shoulder[0]
    assert joints[14, 0] < nose[0] < joints[15, 0]
    assert torch.isnan(joints[8:14]).all()  # the legs are not in the picture


@needs_mediapipe
def test_a_rendered_person_has_the_joints_that_the_renderer_says(console, tmp_path):
    people = Path(__file__).parents[4] / "examples" / "pose_morph" / "people"
    name = "annyid00000200_2front.jpg"
    (tmp_path / "photos").mkdir()
    with Image.open(people / "test" / name) as picture:
        picture.resize((320, 512), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "a.png")
    keypoints(Keypoints(tmp_path / "photos", tmp_path / "k.csv"), console)
    found = read_annotation(tmp_path / "k.csv").joints["a.png"]
    true = (read_annotation(people / "fasion-resize-annotation-test.csv").joints[name] + 0.5) * 4 - 0.5
    assert (found - true).norm(dim=1).nanmedian() < 12  # of 512
