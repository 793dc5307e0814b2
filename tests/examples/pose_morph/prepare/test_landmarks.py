"""33 landmarks to 18 joints."""

import torch

from examples.pose_morph.data.pose import JOINTS, mirror
from examples.pose_morph.prepare.landmarks import to_joints

SIZE = (200, 100)
MIRRORED_LANDMARKS = (0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 - 2 * (i % 2 == 0) for i in range(11, 33)))
"""MediaPipe's numbering: left and right take turns from 11 on; 1-3 and 4-6 are the eyes, 7 and 8 the ears."""


def landmarks() -> torch.Tensor:
    """Visible points well inside the picture."""
    points = 0.1 + 0.8 * torch.rand(33, 3, generator=torch.Generator().manual_seed(0))
    points[:, 2] = 1
    return points


def test_every_joint_is_its_landmark_in_pixels():
    points = landmarks()
    joints = to_joints(points, SIZE, 0.5)
    expected = {"nose": 0, "right shoulder": 12, "right wrist": 16, "left elbow": 13, "right ankle": 28, "left hip": 23}
    expected |= {"right eye": 5, "left eye": 2, "right ear": 8, "left ear": 7}
    for name, landmark in expected.items():
        x, y = points[landmark, :2] * torch.tensor([100, 200]) - 0.5
        assert torch.allclose(joints[JOINTS.index(name)], torch.stack([x, y])), name


def test_the_neck_is_the_middle_of_the_shoulders():
    joints = to_joints(landmarks(), SIZE, 0.5)
    assert torch.allclose(joints[1], (joints[2] + joints[5]) / 2)


def test_a_mirrored_person_has_mirrored_joints():
    points = landmarks()
    mirrored = points[list(MIRRORED_LANDMARKS)].clone()
    mirrored[:, 0] = 1 - mirrored[:, 0]
    expected = mirror(torch.zeros(1, 3, *SIZE), to_joints(points, SIZE, 0.5)[None])[1][0]
    assert torch.allclose(to_joints(mirrored, SIZE, 0.5), expected, atol=1e-4)


def test_what_is_hardly_seen_is_not_known_and_the_neck_needs_both_shoulders():
    points = landmarks()
    points[14, 2] = points[11, 2] = 0.49
    unknown = torch.isnan(to_joints(points, SIZE, 0.5)).all(dim=1)
    assert unknown.nonzero().flatten().tolist() == [1, 3, 5]


def test_joints_outside_the_picture_are_not_known():
    points = landmarks()
    points[0, :2] = torch.tensor([1.02, 0.5])
    points[16, :2] = torch.tensor([0.5, -0.02])
    points[15, :2] = torch.tensor([0.0, 0.0])
    points[28, :2] = torch.tensor([1.0, 1.0])
    joints = to_joints(points, SIZE, 0.5)
    assert torch.isnan(joints[[0, 4, 10]]).all()
    assert joints[7].tolist() == [-0.5, -0.5]
