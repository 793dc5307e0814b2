"""The sample grid and the drawn skeleton."""

import torch
from PIL import Image

from examples.pose_morph.pictures import samples
from examples.pose_morph.pictures.samples import COLUMNS, save_samples
from examples.pose_morph.pictures.sheet import GAP, HEADER
from examples.pose_morph.pictures.skeleton import draw_skeleton
from examples.pose_morph.training.batch import Batch


def test_the_grid_shows_each_picture_in_its_column(tmp_path, standing):
    colours = {"source": -1.0, "truth": 0.0, "result": 1.0}
    pictures = {name: torch.full((2, 3, 64, 40), value) for name, value in colours.items()}
    keypoints = standing.expand(2, -1, -1)
    batch = Batch(pictures["source"], keypoints, pictures["truth"], keypoints + 1)
    save_samples(tmp_path / "deep" / "grid.png", batch, pictures["result"], "a title")
    with Image.open(tmp_path / "deep" / "grid.png") as sheet:
        cell = (40 * 3, 64 * 3)
        assert sheet.size == (5 * (cell[0] + GAP) + GAP, 2 * HEADER + 2 * (cell[1] + GAP))
        for row in range(2):
            for name, value in colours.items():
                x = GAP + COLUMNS.index(name) * (cell[0] + GAP) + cell[0] // 2
                y = 2 * HEADER + row * (cell[1] + GAP) + cell[1] // 2
                assert sheet.getpixel((x, y)) == (round((value + 1) * 127.5 + 1e-6),) * 3
        header = sheet.crop((0, HEADER, sheet.width, 2 * HEADER)).convert("L")
        for column in range(5):  # every column has a label
            left = GAP + column * (cell[0] + GAP)
            assert header.crop((left, 0, left + cell[0], HEADER)).getextrema()[0] < 100


def test_pictures_without_pairs_have_no_truth_but_a_picture_that_lent_the_pose(tmp_path, monkeypatch, standing):
    labels = []
    draw = samples.draw_sheet
    monkeypatch.setattr(
        samples, "draw_sheet", lambda rows, columns, title: (labels.append(columns), draw(rows, columns, title))[1]
    )
    picture = torch.zeros(1, 3, 64, 40)
    batch = Batch(picture, standing[None], picture, standing[None])
    for paired in (True, False):
        save_samples(tmp_path / "grid.png", batch, picture, "a title", paired=paired)
    assert [columns[-1] for columns in labels] == ["truth", "pose from"]
    assert labels[0][:-1] == labels[1][:-1]


def test_a_skeleton_marks_known_joints_and_leaves_out_unknown_ones(standing):
    standing[4] = torch.nan
    picture = draw_skeleton(standing, (64, 40), 4)
    assert picture.size == (160, 256)
    for joint, (x, y) in enumerate(standing.tolist()):
        if joint != 4:
            assert picture.getpixel((round((x + 0.5) * 4), round((y + 0.5) * 4))) != (0, 0, 0)
    assert picture.getpixel((42, 146)) == (0, 0, 0)  # where the right wrist was
