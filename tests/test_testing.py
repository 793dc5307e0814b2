"""The assertions that the library ships fail where a law is broken."""

import dataclasses

import pytest
import torch

from gpa_nd import Partition, testing
from gpa_nd.ops import GridDownsampler
from gpa_nd.ops.base import Downsampler, IndexUpsampler
from gpa_nd.partitioners import GridPartitioner

GOOD = Partition.from_labels(torch.tensor([0, 1, 0, 2]))


def test_a_partition_passes():
    testing.assert_partition(GOOD, 4)
    testing.assert_consistent(GridPartitioner((2, 2)), GridDownsampler((2, 3)), (5, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": torch.tensor([0, 2, 1, 1])}, "do not hold each of 0 … 3 once"),
        ({"order": torch.tensor([2, 0, 1, 3])}, "the elements of cell 0 do not ascend"),
        ({"offsets": torch.tensor([0, 2, 2, 4])}, "cell 1 is empty"),
        ({"offsets": torch.tensor([0, 2, 3, 3])}, "offsets end at 3, not at 4"),
        ({"offsets": torch.tensor([1, 2, 3, 4])}, "offsets start at 1, not at 0"),
        ({"host_offsets": torch.tensor([0, 1, 3, 4])}, "on the device and on the host differ"),
    ],
)
def test_what_is_no_partition_fails(changes, message):
    with pytest.raises(AssertionError, match=message):
        testing.assert_partition(dataclasses.replace(GOOD, **changes), 4)


def test_the_commonest_mistakes_are_named():
    with pytest.raises(AssertionError, match=r"expected a Partition, got Tensor; Partition.from_labels makes one"):
        testing.assert_partition(torch.tensor([0, 1]), 2)
    with pytest.raises(AssertionError, match="expected a Partitioner, got GridDownsampler"):
        testing.assert_consistent(GridDownsampler(2), GridPartitioner(2), (4, 4))


def test_too_few_elements_fail():
    with pytest.raises(AssertionError, match="do not hold each of 0 … 4 once"):
        testing.assert_partition(GOOD, 5)


class Pairs(Downsampler):
    def groups(self, shape):
        return Partition.from_labels(torch.arange(shape[0]) // 2)


class WrongShape(Pairs):
    def coarse_shape(self, shape):
        return (shape[0],)


class Reversed(IndexUpsampler):
    def members(self, shape):
        return Partition.from_labels((shape[0] - 1 - torch.arange(shape[0])) // 2)


class WrongUpsampler(Pairs):
    def upsampler(self):
        return Reversed()


def test_operators_that_contradict_each_other_fail():
    cut = GridPartitioner((2,))
    testing.assert_consistent(cut, Pairs(), (8,))
    with pytest.raises(AssertionError, match=r"coarse_shape is \(8,\), but there are 4 groups"):
        testing.assert_consistent(cut, WrongShape(), (8,))
    with pytest.raises(AssertionError, match="the elements under cell 0 are not those of its fine cell"):
        testing.assert_consistent(cut, WrongUpsampler(), (8,))
