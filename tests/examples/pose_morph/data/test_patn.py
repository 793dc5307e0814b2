"""Reading a folder: what is used, what is left out and said, and what stops."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.pose_data import DataError, fit
from examples.pose_morph.data.profiles import read_data

SIZE = (64, 40)


def annotation(people: Path) -> Path:
    """The annotation of the training phase."""
    return people / "fasion-resize-annotation-train.csv"


def test_reads_pictures_pairs_and_joints(people):
    data = read_data(people, "train", SIZE, "patn")
    assert len(data) == 6
    assert data[0].image.shape == (3, 64, 40)
    assert data[0].image.dtype == torch.uint8
    assert data[0].keypoints.shape == (18, 2)
    named = {(data.names[a], data.names[b]) for a, b in data.pairs.tolist()}
    lines = (people / "fasion-resize-pairs-train.csv").read_text().split()[1:]
    assert named == {tuple(line.split(",")) for line in lines}
    assert data.notes == []
    with Image.open(people / "train" / data.names[2]) as picture:
        x, y = data.keypoints[2, 0].int().tolist()
        assert tuple(data[2].image[:, y, x].tolist()) == picture.getpixel((x, y))


def test_minus_one_is_an_unknown_joint(people):
    rows = annotation(people).read_text().split("\n")
    name, y, x = rows[1].split(":")
    ys, xs = json.loads(y), json.loads(x)
    ys[3] = xs[3] = -1
    rows[1] = f"{name}:{ys}:{xs}"
    annotation(people).write_text("\n".join(rows))
    joints = read_data(people, "train", SIZE, "patn").keypoints[0]
    assert torch.isnan(joints[3]).all()
    assert torch.isfinite(joints[4]).all()


def test_fitting_keeps_the_shape_and_moves_the_joints():
    picture = Image.new("RGB", (176, 256), "white")
    picture.paste((255, 0, 0), (80, 120, 96, 136))  # a red block around (88, 128)
    joints = torch.tensor([[87.5, 127.5]]).expand(18, 2)
    pixels, moved = fit(picture, joints, (64, 64))
    assert pixels.shape == (3, 64, 64)
    assert moved[0].tolist() == [31.5, 31.5]
    assert pixels[:, 31:33, 31:33].float().mean(dim=(1, 2)).tolist() == [255, 0, 0]
    assert pixels[:, :, :10].min() == 255  # padded with the border


@pytest.mark.parametrize("name", ["fasion-resize-{}-{}.csv", "fashion-resize-{}-{}.csv", "fasion-{}-{}.csv"])
def test_spellings(people, name):
    for what in ("pairs", "annotation"):
        (people / f"fasion-resize-{what}-train.csv").rename(people / name.format(what, "train"))
    assert len(read_data(people, "train", SIZE, "patn").pairs) == 6


def test_missing_folders_and_tables_are_named(people):
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        read_data(people / "nowhere", "train", SIZE, "patn")
    (people / "fasion-resize-pairs-test.csv").unlink()
    with pytest.raises(DataError, match=r"fasion-resize-pairs-test.csv.* in .*people"):
        read_data(people, "test", SIZE, "patn")
    for picture in (people / "train").iterdir():
        picture.unlink()
    (people / "train").rmdir()
    with pytest.raises(DataError, match=r"expected the pictures in .*train"):
        read_data(people, "train", SIZE, "patn")


def test_a_missing_column_is_named_with_what_was_found(people):
    annotation(people).write_text(annotation(people).read_text().replace("keypoints_x", "kx"))
    with pytest.raises(
        DataError, match=r"no column keypoints_x: expected name:keypoints_y:keypoints_x .*name:keypoints_y:kx"
    ):
        read_data(people, "train", SIZE, "patn")


@pytest.mark.parametrize(
    ("broken", "message"),
    [("[1, 2]", "expected 18 joints, got 2"), ("[1, two]", "no JSON lists of numbers"), ("", "no JSON lists")],
)
def test_a_broken_row_is_named_by_its_line(people, broken, message):
    rows = annotation(people).read_text().split("\n")
    rows[2] = f"{rows[2].split(':')[0]}:{broken}:{broken}"
    annotation(people).write_text("\n".join(rows))
    with pytest.raises(DataError, match=f"line 3: .*{message}"):
        read_data(people, "train", SIZE, "patn")


def test_a_quotation_mark_that_nobody_closes_is_named(people):
    table = annotation(people)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], '"' + lines[1], *(lines[1:] * 400)]))
    with pytest.raises(DataError, match=r"annotation-train\.csv, line \d+: cannot be read as a row"):
        read_data(people, "train", SIZE, "patn")


def test_a_row_too_short_is_named(people):
    with (people / "fasion-resize-pairs-train.csv").open("a") as file:
        file.write("train0_0.jpg\n")
    with pytest.raises(DataError, match="line 8: expected 2 columns"):
        read_data(people, "train", SIZE, "patn")


def test_unusable_pictures_are_left_out_counted_and_named(people):
    (people / "train" / "train0_0.jpg").unlink()
    (people / "train" / "train1_1.jpg").write_bytes(b"no picture")
    rows = [row for row in annotation(people).read_text().split("\n") if not row.startswith("train2_0")]
    annotation(people).write_text("\n".join(rows))
    with (people / "fasion-resize-pairs-train.csv").open("a") as file:
        file.write("train2_1.jpg,train1_0.jpg\n")
    data = read_data(people, "train", SIZE, "patn")
    assert [(data.names[a], data.names[b]) for a, b in data.pairs.tolist()] == [("train2_1.jpg", "train1_0.jpg")]
    notes = "\n".join(data.notes)
    assert "1 picture(s) of the pairs are not in the folder: train0_0.jpg" in notes
    assert "1 picture(s) of the pairs cannot be read as pictures: train1_1.jpg" in notes
    assert "1 picture(s) of the pairs have no keypoints in fasion-resize-annotation-train.csv: train2_0.jpg" in notes
    assert "6 of 7 pairs are left out" in notes


def test_pictures_without_any_keypoint_stop_only_when_nothing_is_left(people):
    rows = annotation(people).read_text().strip().split("\n")
    empty = str([-1] * 18)
    rows[1:] = [f"{row.split(':')[0]}:{empty}:{empty}" for row in rows[1:]]
    annotation(people).write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"no usable pair(.|\n)*6 picture\(s\) of the pairs have no known keypoint"):
        read_data(people, "train", SIZE, "patn")
