"""Operators of one's own print as what they were made with."""

from functools import cached_property

import pytest
import torch

import gpa_nd
from gpa_nd.always import AlwaysOn
from gpa_nd.ops import Downsampler, GridDownsampler, IndexUpsampler
from gpa_nd.ops.graph import GraphIndexUpsampler
from gpa_nd.ops.grid import GridIndexUpsampler
from gpa_nd.partitioners import Partitioner

METHODS = {Downsampler: "groups", Partitioner: "cells", IndexUpsampler: "members", AlwaysOn: "keys"}


@pytest.fixture(params=METHODS)
def own(request):
    """An operator without attributes."""
    return type("Own", (request.param,), {METHODS[request.param]: None, "table": cached_property(lambda self: [1])})()


@pytest.mark.parametrize(
    ("attributes", "printed"),
    [
        ({}, "Own()"),
        ({"radius": 2, "kind": "hex"}, "Own(radius=2, kind='hex')"),
        ({"places": torch.zeros(4, 2), "sizes": torch.zeros(3).numpy()},
         "Own(places=Tensor of shape (4, 2), sizes=ndarray of shape (3,))"),
        ({"_made": {}, "radius": 2}, "Own(radius=2)"),
        ({"down": GridDownsampler((4, 4))}, "Own(down=GridDownsampler((4, 4)))"),
        ({"numbers": list(range(100))}, f"Own(numbers={str(list(range(100)))[:79]}…)"),
        ({"pair": (torch.zeros(2, 2),)}, "Own(pair=(tensor([[0., 0.], [0., 0.]]),))"),
    ],
)  # fmt: skip
def test_an_operator_prints_its_public_attributes(own, attributes, printed):
    vars(own).update(attributes)
    assert repr(own) == printed


def test_what_is_kept_for_later_does_not_print(own):
    assert own.table == [1]
    assert repr(own) == "Own()"


def test_operators_that_hold_one_another_print(own):
    own.other = own
    assert repr(own) == "Own(other=...)"


def test_operators_of_the_library_print():
    assert repr(GridIndexUpsampler((2, 2))) == "GridIndexUpsampler(factor=(2, 2))"
    assert repr(GraphIndexUpsampler(torch.tensor([0, 1, 0]))) == "GraphIndexUpsampler(3 nodes in 2 groups)"


def test_a_module_prints_the_operators_of_its_geometry():
    class Fours(Downsampler):
        def groups(self, shape):
            return gpa_nd.Partition.from_labels(torch.arange(shape[0]) // 4)

    class Cells(Partitioner):
        cells = Fours.groups

    assert repr(gpa_nd.GPA(Cells(), Fours(), kappa=2)).startswith("GPA(Cells(), Fours(), kappa=2")
