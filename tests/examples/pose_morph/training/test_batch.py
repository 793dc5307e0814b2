"""Batches: tau, and the parts that are worked off one after the other."""

import torch

from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.training.batch import Batch, distorted, divide, take_pairs


def test_a_distorted_batch_shows_one_picture_twice(people):
    batch = take_pairs(read_data(people, "train", (64, 40)), torch.arange(3))
    still = distorted(batch, torch.eye(2, 3).expand(3, 2, 3))
    torch.testing.assert_close(still.source, still.target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(still.source_keypoints, still.target_keypoints, atol=1e-4, rtol=1e-5)
    moved = distorted(batch, torch.tensor([[1.0, 0, 0.1], [0, 1, 0]]).expand(3, 2, 3))
    assert torch.equal(moved.source, batch.source)
    torch.testing.assert_close(moved.target_keypoints[..., 0], batch.source_keypoints[..., 0] - 2)
    torch.testing.assert_close(moved.target[..., :38], batch.source[..., 2:], atol=1e-4, rtol=1e-4)


def test_parts_are_samples_that_follow_one_another():
    batch = Batch(*(torch.arange(6.0) + 10 * field for field in range(4)))
    parts = divide(batch, torch.arange(6.0), 3)
    assert [part[0].source.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part[0].target_keypoints.tolist() for part in parts] == [[30, 31], [32, 33], [34, 35]]
    assert [part[1].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
