"""Target poses: frames, the body's size, poses in between, and tables that lack something."""

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.pose_data import fit
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.poses import (
    TargetPose,
    between,
    check_inside,
    fit_to_body,
    names_between,
    place,
    read_poses,
)
from tests.examples.pose_morph.conftest import write_table

UNKNOWN = torch.full((18, 2), torch.nan)


def hips_and_trunk(pose):
    hips = pose[[8, 11]].mean(dim=0)
    return hips, (pose[1] - hips).norm()


def test_rows_come_in_the_order_of_their_names_and_may_come_twice(tmp_path, standing):
    write_table(tmp_path / "t.csv", {"a.jpg": standing, "b.jpg": standing + 1, "c.jpg": UNKNOWN})
    poses = read_poses(tmp_path / "t.csv", ["b.jpg", "a.jpg", "b.jpg"], None)
    assert [pose.name for pose in poses] == ["b", "a", "b"]
    assert torch.equal(poses[0].keypoints, standing + 1)
    with pytest.raises(UserError, match=r"t\.csv has no row x\.jpg \(1 of 2 names are missing\); its rows begin"):
        read_poses(tmp_path / "t.csv", ["a.jpg", "x.jpg"], None)
    with pytest.raises(UserError, match=r"t\.csv knows no joint of c\.jpg \(1 row\(s\) like it\)"):
        read_poses(tmp_path / "t.csv", [], None)
    write_table(tmp_path / "t.csv", {})
    with pytest.raises(UserError, match=r"t\.csv has no rows"):
        read_poses(tmp_path / "t.csv", [], None)


def test_the_frame_of_a_row_is_that_of_its_picture(tmp_path, standing):
    (tmp_path / "test").mkdir()
    Image.new("RGB", (40, 64)).save(tmp_path / "test" / "a.png")
    write_table(tmp_path / "t.csv", {"a.png": standing, "b.png": standing})
    assert [pose.frame for pose in read_poses(tmp_path / "t.csv", [], None)] == [(64, 40), None]
    assert [pose.frame for pose in read_poses(tmp_path / "t.csv", [], (7, 5))] == [(7, 5), (7, 5)]
    (tmp_path / "test" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"the frame of a\.png is that of .*a\.png, which cannot be read"):
        read_poses(tmp_path / "t.csv", [], None)


def test_poses_are_placed_as_their_pictures_would_be(standing):
    poses = [TargetPose("own", standing, (64, 40)), TargetPose("source's", standing, None)]
    placed = place(poses, (100, 50), (96, 96))
    assert torch.equal(placed[0], fit(Image.new("RGB", (40, 64)), standing, (96, 96)).keypoints)
    assert torch.equal(placed[1], fit(Image.new("RGB", (50, 100)), standing, (96, 96)).keypoints)


def test_a_fitted_pose_has_the_bodys_trunk_at_the_bodys_hips(standing):
    poses = torch.stack([standing * 2 + 5, standing / 3 - 4])
    for fitted in fit_to_body(poses, standing, together=False, source="a"):
        torch.testing.assert_close(fitted, standing)


def test_a_sequence_is_fitted_as_a_whole_so_that_its_movement_stays(standing):
    walk = torch.stack([standing, standing + torch.tensor([3.0, 0.0]), standing + torch.tensor([6.0, 0.0])])
    fitted = fit_to_body(walk * 2 + 11, standing, together=True, source="a")
    torch.testing.assert_close(fitted.diff(dim=0), walk.diff(dim=0))
    torch.testing.assert_close(fitted[1], standing)


def test_one_odd_frame_does_not_resize_a_sequence(standing):
    walk = torch.stack([2 * standing] * 4 + [9 * standing])
    fitted = fit_to_body(walk, standing, together=True, source="a")
    torch.testing.assert_close(fitted[0], standing)


def test_unknown_joints_stay_unknown_and_one_hip_is_enough(standing):
    pose = standing.clone()
    pose[[4, 11]] = torch.nan
    fitted = fit_to_body(pose[None], standing, together=False, source="a")[0]
    assert torch.equal(torch.isnan(fitted), torch.isnan(pose))
    with pytest.raises(UserError, match="in 1 pose"):
        fit_to_body(UNKNOWN[None], standing, together=False, source="a")
    with pytest.raises(UserError, match="neck and a hip of a must be known"):
        fit_to_body(standing[None], UNKNOWN, together=False, source="a")


def test_poses_between_lie_on_straight_lines_and_given_ones_are_kept(standing):
    first, second = standing.clone(), standing + 6
    first[4] = torch.nan
    filled = between(torch.stack([first, second, first]), 2)
    assert len(filled) == 7
    for index, share in ((1, 2.0), (2, 4.0)):
        torch.testing.assert_close(filled[index][0], standing[0] + share)
    assert torch.isnan(filled[1:3, 4]).all()  # unknown at one end
    assert torch.equal(filled[3], second)  # but known where it was given
    assert torch.equal(filled[0].nan_to_num(-1), first.nan_to_num(-1))
    assert torch.equal(filled[6].nan_to_num(-1), first.nan_to_num(-1))
    assert names_between(["a", "b", "a"], 2) == ["a", "a+1", "a+2", "b", "b+1", "b+2", "a"]
    assert torch.equal(between(second[None], 5), second[None])
    assert names_between(["b"], 5) == ["b"]


def test_joints_outside_of_the_picture_are_counted_and_poses_wholly_outside_refused(standing):
    assert check_inside(standing[None], ["a"], (64, 40), "photo") == []
    partly = standing.clone()
    partly[4] = torch.tensor([-3.0, 5.0])
    partly[5] = torch.tensor([39.6, 5.0])
    (note,) = check_inside(torch.stack([standing, partly]), ["a", "b"], (64, 40), "photo")
    assert note == "photo: 2 joint(s) of 1 of 2 pose(s) lie outside of the picture"
    away = standing + 100
    away[3] = torch.nan
    with pytest.raises(UserError, match="all joints of b lie outside of the picture of photo"):
        check_inside(torch.stack([standing, away]), ["a", "b"], (64, 40), "photo")
