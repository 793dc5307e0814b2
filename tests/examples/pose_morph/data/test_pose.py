"""Heatmaps, mirroring and tau at known places."""

import pytest
import torch

from examples.pose_morph.data.pose import (
    JOINTS,
    MIRRORED,
    apply_affine,
    facing,
    heatmaps,
    mirror,
    random_affine,
    scale_keypoints,
)


def test_heatmap_peaks_at_the_joint_and_falls_as_a_gaussian(standing):
    maps = heatmaps(standing[None], (64, 40), sigma=2.0)
    assert maps.shape == (1, 18, 64, 40)
    for joint, (x, y) in enumerate(standing.int().tolist()):
        assert maps[0, joint, y, x].item() == 1.0
        assert maps[0, joint, y + 2, x].item() == pytest.approx(0.60653, abs=1e-4)  # exp(-1/2)


def test_heatmap_tails_are_exact_zeros_and_unknown_joints_are_empty(standing):
    standing[3] = torch.nan
    maps = heatmaps(standing[None], (64, 40))
    assert torch.isfinite(maps).all()
    assert maps[0, 3].abs().max() == 0
    positive = maps[maps > 0]
    assert positive.min() > 1e-3
    assert (maps == 0).float().mean() > 0.5


def test_default_sigma_is_six_at_256():
    joint = torch.full((1, 18, 2), 100.0)
    torch.testing.assert_close(heatmaps(joint, (256, 256)), heatmaps(joint, (256, 256), sigma=6.0))


def test_mirroring_swaps_the_sides_by_name():
    for joint, other in enumerate(MIRRORED):
        swapped = JOINTS[joint].replace("right", "?").replace("left", "right").replace("?", "left")
        assert JOINTS[other] == swapped


def test_mirrored_joints_lie_on_mirrored_pixels(standing):
    picture = torch.zeros(1, 3, 64, 40)
    x, y = standing[4].int().tolist()  # the right wrist
    picture[0, :, y, x] = 1.0
    flipped, joints = mirror(picture, standing[None])
    left_wrist = joints[0, 7].int().tolist()
    assert flipped[0, 0, left_wrist[1], left_wrist[0]] == 1.0
    again, back = mirror(flipped, joints)
    assert torch.equal(again, picture)
    assert torch.equal(back[0], standing)


def test_tau_moves_joints_exactly_where_it_moves_the_picture(standing):
    generator = torch.Generator().manual_seed(3)
    matrix = random_affine(8, 0.15, generator)
    maps = heatmaps(standing[None], (64, 40), sigma=2.0).expand(8, -1, -1, -1)
    moved, joints = apply_affine(maps, standing.expand(8, -1, -1), matrix)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(40.0), indexing="ij")
    seen = 0
    for sample in range(8):
        for joint in range(18):
            point, heat = joints[sample, joint], moved[sample, joint]
            if not (9 < point[0] < 30 and 9 < point[1] < 54):
                continue
            centre = torch.stack([(heat * x).sum(), (heat * y).sum()]) / heat.sum()
            torch.testing.assert_close(centre, point, atol=0.1, rtol=0)
            seen += 1
    assert seen > 40


def test_identity_tau_changes_nothing(standing):
    picture = torch.rand(1, 3, 64, 40)
    same, joints = apply_affine(picture, standing[None], torch.eye(2, 3)[None])
    torch.testing.assert_close(same, picture, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joints[0], standing, atol=1e-4, rtol=1e-5)


def test_tau_is_the_identity_plus_bounded_noise():
    noise = random_affine(1000, 0.15, torch.Generator().manual_seed(0)) - torch.eye(2, 3)
    assert noise.abs().max() <= 0.15
    assert noise.abs().amax(dim=0).min() > 0.14  # every one of the six numbers moves


def test_a_person_seen_from_behind_faces_away(standing):
    behind = standing.clone()
    behind[:, 0] = 39 - behind[:, 0]  # turned round, not mirrored: joints keep their names
    unknown = torch.full((18, 2), torch.nan)
    assert facing(torch.stack([standing, behind, unknown])).tolist() == [1.0, -1.0, 1.0]


def test_scaled_joints_follow_pixel_centres():
    joints = torch.tensor([[0.5, 0.5], [-0.5, 3.5]]).repeat(9, 1)[None]
    half = scale_keypoints(joints, 0.5)
    assert half[0, :2].tolist() == [[0.0, 0.0], [-0.5, 1.5]]
    with pytest.raises(ValueError, match="factor"):
        scale_keypoints(joints, 0.0)
