"""Sequences: tables, folders of frames and videos, in the order of their frames."""

import pytest
import torch
from PIL import Image

from examples.pose_morph.errors import UserError
from examples.pose_morph.generation import sequence
from examples.pose_morph.generation.sequence import read_sequence
from tests.examples.pose_morph.conftest import write_table, write_video

UNKNOWN = torch.full((18, 2), torch.nan)


def test_a_table_is_read_in_its_order_and_rows_without_joints_are_counted(tmp_path, standing):
    rows = {"9": standing, "10": UNKNOWN, "11": standing + 1, "2": standing + 2}
    write_table(tmp_path / "walk.csv", rows)
    poses, notes = read_sequence(tmp_path / "walk.csv", (64, 40))
    assert [pose.name for pose in poses] == ["9", "11", "2"]
    assert {pose.frame for pose in poses} == {(64, 40)}
    assert torch.equal(poses[1].keypoints, standing + 1)
    assert {pose.frame for pose in read_sequence(tmp_path / "walk.csv", None)[0]} == {None}
    assert notes == [f"1 of 4 frames of {tmp_path / 'walk.csv'} have no known joint and are left out: 10"]


def test_a_folder_is_read_by_number(tmp_path, standing):
    names = ["2.png", "10.png", "1.png"]
    (tmp_path / "walk").mkdir()
    for name in names:
        Image.new("RGB", (40, 64)).save(tmp_path / "walk" / name)
    write_table(tmp_path / "walk.csv", {name: standing + int(name[:-4]) for name in names})
    write_table(tmp_path / "other.csv", {name: standing for name in names})
    poses, notes = read_sequence(tmp_path / "walk", None)
    assert [pose.name for pose in poses] == ["1", "2", "10"]
    assert [pose.frame for pose in poses] == [(64, 40)] * 3
    assert torch.equal(poses[2].keypoints, standing + 10)
    assert notes == []


def test_a_video_takes_the_rows_of_its_table_and_its_own_size(tmp_path, standing):
    write_video(tmp_path / "walk.mp4", [Image.new("RGB", (40, 64), (level, 0, 0)) for level in (0, 80, 160)])
    write_table(tmp_path / "walk.csv", {"000": standing, "2": standing + 2})
    poses, notes = read_sequence(tmp_path / "walk.mp4", None)
    assert [pose.name for pose in poses] == ["walk_00000", "walk_00002"]
    assert [pose.frame for pose in poses] == [(64, 40)] * 2
    assert torch.equal(poses[1].keypoints, standing + 2)
    assert "1 of 3 frames" in notes[0]


def test_a_video_without_a_table_is_looked_at(tmp_path, standing, monkeypatch):
    asked = []

    def detect(picture, called):
        asked.append((picture.size, called))
        return standing

    monkeypatch.setattr(sequence, "detect_joints", detect)
    write_video(tmp_path / "walk.mp4", [Image.new("RGB", (40, 64), (level, 0, 0)) for level in (0, 80)])
    poses, _ = read_sequence(tmp_path / "walk.mp4", None)
    assert len(poses) == 2
    assert asked == [((40, 64), f"frame {number} of {tmp_path / 'walk.mp4'}") for number in range(2)]


def test_what_is_no_sequence_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--pose-sequence: there is no .*nowhere"):
        read_sequence(tmp_path / "nowhere", None)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"expected a \.csv table, a folder of pictures or a video"):
        read_sequence(tmp_path / "a.txt", None)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read as a video"):
        read_sequence(tmp_path / "a.mp4", None)
    write_table(tmp_path / "t.csv", {"1": UNKNOWN})
    with pytest.raises(UserError, match=r"no joint is known in any of the 1 frame\(s\) of .*t\.csv"):
        read_sequence(tmp_path / "t.csv", None)
