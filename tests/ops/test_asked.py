"""A geometry of one's own that answers something wrong is named, with the method and the shape it was asked about."""

import pytest
import torch

from gpa_nd import GPA, Partition
from gpa_nd.ops import Downsampler, IndexUpsampler
from gpa_nd.partitioners import Partitioner


def fours(shape):
    return Partition.from_labels(torch.arange(shape[0]) // 4)


class Fours(Downsampler):
    def groups(self, shape):
        return fours(shape)


class Cells(Partitioner):
    def cells(self, shape):
        return fours(shape)


def mine(owner, method, answer):
    """An operator that answers otherwise."""

    def answers(self, shape):
        return answer(shape)

    answers.__name__ = method
    return type("Mine", (owner,), {method: answers})()


def attended(method, answer, packed=False):
    """A call of a GPA with such an operator."""
    owner = {"groups": Fours, "coarse_shape": Fours, "cells": Cells, "members": IndexUpsampler}[method]
    operator = mine(owner, method, answer)
    down, cells = (operator if isinstance(operator, kind) else kind() for kind in (Fours, Cells))
    gpa = GPA(cells, down, key_upsampler=operator if isinstance(operator, IndexUpsampler) else None, kappa=2)
    x = torch.randn(1, 1, 64, 8)
    return gpa.packed(x, x, x, [(64,)]) if packed else gpa(x, x, x)


def falls_over(shape):
    return torch.arange(3)[5]


def refuses(shape):
    raise ValueError("only for 48 elements")


def too_few(shape):
    return fours((shape[0] - 4,))


@pytest.mark.parametrize("packed", [False, True], ids=["", "packed"])
@pytest.mark.parametrize(
    ("method", "answer", "error", "message"),
    [
        (
            "groups",
            lambda shape: None,
            TypeError,
            r"^Mine.groups\(\(64,\)\): expected it to return a Partition, got NoneT",
        ),
        (
            "groups",
            lambda shape: torch.arange(64) // 4,
            TypeError,
            r"got Tensor; Partition.from_labels makes one of labels",
        ),
        (
            "groups",
            falls_over,
            ValueError,
            r"downsampler: .*: Mine.groups\(\(64,\)\) raised IndexError: index 5 is out of",
        ),
        ("groups", refuses, ValueError, r"downsampler: .*: Mine.groups\(\(64,\)\): only for 48 elements"),
        (
            "groups",
            too_few,
            ValueError,
            r"Mine.groups\(\(64,\)\): expected a Partition of 64 elements, got Partition\(60",
        ),
        ("cells", lambda shape: None, TypeError, r"^Mine.cells\(\(16,\)\): expected it to return a Partition"),
        ("cells", falls_over, ValueError, r"partitioner: .*: Mine.cells\(\(16,\)\) raised IndexError"),
        (
            "cells",
            too_few,
            ValueError,
            r"Mine.cells\(\(16,\)\): expected a Partition of 16 elements, got Partition\(12",
        ),
        ("members", falls_over, ValueError, r"key_upsampler: .*: Mine.members\(\(64,\)\) raised IndexError"),
        (
            "members",
            lambda shape: [0],
            TypeError,
            r"^Mine.members\(\(64,\)\): expected it to return a Partition, got list",
        ),
        ("coarse_shape", lambda shape: 16, TypeError, r"^Mine.coarse_shape\(\(64,\)\): .* a tuple of ints, got 16"),
        ("coarse_shape", falls_over, ValueError, r"downsampler: .*: Mine.coarse_shape\(\(64,\)\) raised IndexError"),
        (
            "coarse_shape",
            lambda shape: (3, 5),
            ValueError,
            r"Mine.coarse_shape\(\(64,\)\): expected one coarse element for each of 16 groups, got 15 in \(3, 5\)",
        ),
    ],
)
def test_bad_input_of_an_own_geometry_is_named(method, answer, error, message, packed):
    with pytest.raises(error, match=message):
        attended(method, answer, packed)


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (Fours, "groups", lambda mine, x: mine(x)),
        (Cells, "cells", lambda mine, x: mine.partition(x)),
        (Cells, "cells", lambda mine, x: mine.compose((x,), (64,))),
        (IndexUpsampler, "members", lambda mine, x: mine(torch.tensor([0]), (64,))),
    ],
)
def test_bad_input_of_an_operator_alone_is_named(owner, method, call):
    with pytest.raises(ValueError, match=rf"Mine.{method}\(\(64,\)\) raised IndexError"):
        call(mine(owner, method, falls_over), torch.randn(64, 8))
