"""The task's batches: the test cases are everybody's, training ones follow the seed, and the budget."""

import time

import pytest
import torch

from examples.pose_morph.data.pose import apply_affine
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.experiments import distortion_task
from examples.pose_morph.experiments.distortion_task import Budget, Pictures, random_batches
from examples.pose_morph.training.batch import Batch, to_image

CPU = torch.device("cpu")


@pytest.fixture
def pictures(people) -> Pictures:
    """Six pictures."""
    return Pictures.of(read_data(people, "train", (64, 40)))


def cases(pictures: Pictures, batch_size: int, count: int = 15) -> Batch:
    """All test cases, as one batch."""
    batches = distortion_task.test_batches(pictures, count, batch_size, 0.15, CPU)
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def assert_same(one: Batch, other: Batch) -> None:
    """Compare bit for bit; joints that are not known are the same."""
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_the_test_cases_are_the_same_for_everybody_and_every_batch_size(pictures):
    expected = cases(pictures, 15)
    assert len(expected.source) == 15
    for batch_size in (1, 4):
        torch.manual_seed(batch_size)  # as a run of another seed would
        assert_same(cases(pictures, batch_size), expected)


def test_a_picture_that_comes_again_is_under_another_map(pictures):
    source, _, target, _ = cases(pictures, 5)
    assert torch.equal(source[0], source[6])
    assert not torch.equal(target[0], target[6])


def test_picture_and_pose_are_under_the_same_map(pictures):
    matrix = torch.tensor([[[1.1, 0.05, 0.1], [-0.1, 0.9, 0.0]]])
    batch = pictures.distorted(torch.tensor([2]), matrix, CPU)
    image, keypoints = to_image(pictures.images[2:3]), pictures.keypoints[2:3]
    assert_same(batch, Batch(image, keypoints, *apply_affine(image, keypoints, matrix)))


def test_training_batches_follow_the_seed_alone(pictures):
    def first(seed: int) -> Batch:
        return next(random_batches(pictures, 3, 0.15, seed, CPU))

    assert_same(first(1), first(1))
    assert not torch.equal(first(1).target, first(2).target)


def test_without_and_last_divide_the_pictures(pictures):
    last = pictures.last(2)
    rest = pictures.without(last)
    assert (len(last.images), len(rest.images)) == (2, 4)
    assert torch.equal(torch.cat([rest.images, last.images]), pictures.images)
    torch.testing.assert_close(torch.cat([rest.keypoints, last.keypoints]), pictures.keypoints, equal_nan=True)


def test_on_a_processor_the_budget_counts_work_and_not_waiting():
    budget = Budget(1.0, CPU)
    time.sleep(0.2)
    assert budget.spent() < 0.1
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    assert 0.2 <= budget.spent() < 0.5
