"""Cropping around the person."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.crop import Crop, crop
from examples.pose_morph.prepare.crop_box import Box, cut, move, person_box


def pose(*points: tuple[float, float]) -> torch.Tensor:
    joints = torch.full((18, 2), torch.nan)
    joints[: len(points)] = torch.tensor(points).reshape(-1, 2)
    return joints


def test_a_box_holds_all_joints_with_room_and_has_the_wanted_shape():
    box = person_box(torch.stack([pose((50, 20), (60, 119)), pose((40, 40))]), (200, 300), 0.5, 0.1)
    # 100 rows and 9.9 of room on each side; half as wide, around the middle of 40 to 60.
    assert box == pytest.approx(Box(left=50.5 - 59.9 / 2, top=20 - 9.9, width=59.9, height=119.8))


def test_a_box_is_moved_into_the_frame_or_centred_where_it_is_too_long():
    left, top, width, height = person_box(pose((2, 2), (30, 60))[None], (100, 40), 0.5, 0.5)
    assert (left, top) == ((40 - width) / 2, (100 - height) / 2)
    left, top, _, _ = person_box(pose((2, 90), (12, 98))[None], (100, 400), 1.0, 0.5)
    assert left == 0
    assert top == pytest.approx(100 - 21)


def test_without_a_joint_there_is_no_box():
    assert person_box(pose()[None], (10, 10), 1, 0.1) is None


@pytest.mark.parametrize("box", [Box(20, 30, 40, 80), Box(-12.5, -20, 60, 120), Box(10.25, 60.5, 50, 100)])
def test_a_joint_stays_on_what_it_marked(box):
    picture = Image.new("RGB", (80, 120), "white")
    picture.paste((255, 0, 0), (36, 76, 42, 82))
    size = (160, 80)
    x, y = move(pose((38.5, 78.5)), box, size)[0].tolist()
    found = np.asarray(cut(picture, box, size)).astype(float)
    rows, columns = np.nonzero(found[..., 1] < 128)
    assert found.shape == (160, 80, 3)
    assert rows.mean() == pytest.approx(y, abs=0.6)
    assert columns.mean() == pytest.approx(x, abs=0.6)


def test_joints_outside_the_box_are_not_known():
    assert torch.isnan(move(pose((5, 5), (30, 60)), Box(20, 30, 40, 80), (80, 40))[0]).all()


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two videos as folders: a red block around one joint moves over a wide frame; two joints mark top and bottom."""
    joints = {}
    for video, frame in (("run", 0), ("run", 1), ("run", 2), ("sit", 0), ("sit", 1)):
        name = f"{video}/{frame:03d}.png"
        picture = Image.new("RGB", (120, 80), "white")
        x = 50 + 10 * frame
        picture.paste((255, 0, 0), (x - 2, 38, x + 3, 43))
        (tmp_path / "raw" / video).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "raw" / name)
        joints[name] = pose((x, 40), (x, 20), (x, 60))
    write_annotation(tmp_path / "raw.csv", joints)
    return tmp_path


def test_all_frames_of_a_video_share_a_box_so_what_moves_still_moves(frames, console):
    crop(Crop(frames / "raw", frames / "raw.csv", frames / "data" / "train", size=(64, 32)), console)
    rows = read_annotation(frames / "data" / "train" / "run.csv").joints
    assert list(rows) == ["000.png", "001.png", "002.png"]
    steps = rows["001.png"][0] - rows["000.png"][0], rows["002.png"][0] - rows["001.png"][0]
    assert steps[0][0] == pytest.approx(steps[1][0], abs=1)
    assert steps[0][0] > 3
    assert steps[0][1] == 0
    for name, points in rows.items():
        with Image.open(frames / "data" / "train" / "run" / name) as picture:
            assert picture.size == (32, 64)
            assert picture.getpixel(tuple(points[0].int().tolist())) == (255, 0, 0)
    assert set(read_annotation(frames / "data" / "train" / "sit.csv").joints) == {"000.png", "001.png"}


def test_the_result_is_a_folder_that_training_reads(frames, console):
    crop(Crop(frames / "raw", frames / "raw.csv", frames / "data" / "train", size=(64, 32)), console)
    data = read_data(frames / "data", "train", (64, 32), "frames")
    assert len(data) == 5


def test_one_box_per_picture_brings_the_person_to_the_middle(frames, console):
    crop(Crop(frames / "raw", frames / "raw.csv", frames / "out", size=(64, 32), box="picture"), console)
    places = [points[0] for points in read_annotation(frames / "out" / "run.csv").joints.values()]
    assert all((place - places[0]).abs().max() <= 1 for place in places)


def test_a_video_file_becomes_numbered_frames(tmp_path, console):
    with av.open(str(tmp_path / "walk.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 50 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_annotation(tmp_path / "walk.csv", {f"{number:02d}": pose((20, 10), (30, 40)) for number in (0, 1, 3)})
    crop(Crop(tmp_path / "walk.mp4", tmp_path / "walk.csv", tmp_path / "out" / "walk", size=(32, 16)), console)
    assert list(read_annotation(tmp_path / "out" / "walk.csv").joints) == ["000000.png", "000001.png", "000003.png"]
    with Image.open(tmp_path / "out" / "walk" / "000003.png") as picture:
        assert picture.getpixel((8, 16))[0] == pytest.approx(150, abs=6)
    assert "1 picture(s) have no row in" in console.file.getvalue()


def test_pictures_without_a_person_are_left_out_and_named(frames, console):
    joints = read_annotation(frames / "raw.csv").joints
    write_annotation(frames / "raw.csv", {name: pose() if name.startswith("sit") else p for name, p in joints.items()})
    crop(Crop(frames / "raw", frames / "raw.csv", frames / "out", size=(64, 32)), console)
    assert "2 picture(s) are left out: sit/000.png: no joint is known, sit/001.png: no joint is known" in (
        console.file.getvalue()
    )
    assert "3 pictures written" in console.file.getvalue()
    assert not (frames / "out" / "sit.csv").exists()


def test_a_dry_run_shows_boxes_and_writes_nothing(frames, console):
    crop(Crop(frames / "raw", frames / "raw.csv", frames / "out", size=(64, 32), dry_run=True), console)
    assert not (frames / "out").exists()
    assert "3 pictures of" in console.file.getvalue()


def test_nothing_is_written_where_one_folder_has_no_box_for_all(frames, console):
    Image.new("RGB", (60, 80)).save(frames / "raw" / "sit" / "001.png")
    with pytest.raises(UserError, match=r"--box: sit/.* have different sizes"):
        crop(Crop(frames / "raw", frames / "raw.csv", frames / "out", size=(64, 32)), console)
    assert not (frames / "out").exists()


def test_what_cannot_be_done_is_said(frames, console):
    raw, table, out = frames / "raw", frames / "raw.csv", frames / "out"
    with pytest.raises(UserError, match=r"nothing.csv cannot be read"):
        crop(Crop(raw, frames / "nothing.csv", out), console)
    with pytest.raises(UserError, match=r"lies in .*raw, which is read"):
        crop(Crop(raw, table, raw / "out"), console)
    with pytest.raises(UserError, match=r"--margin: expected at least 0, got -1"):
        crop(Crop(raw, table, out, margin=-1), console)
    with pytest.raises(UserError, match=r"no row of .* names a picture"):
        crop(Crop(raw / "run", table, out), console)
    crop(Crop(raw, table, out), console)
    with pytest.raises(UserError, match=r"already there .*--overwrite"):
        crop(Crop(raw, table, out), console)
    Image.new("RGB", (50, 50)).save(raw / "run" / "001.png")
    with pytest.raises(UserError, match=r"run/\d+.png and run/\d+.png have different sizes .*--box picture"):
        crop(Crop(raw, table, frames / "again"), console)
