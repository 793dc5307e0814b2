"""Rules of one's own for what is always on."""

import pytest
import torch

import gpa_nd
from gpa_nd import GPA
from gpa_nd.always import AlwaysOn, GlobalElements, GraphNeighbourhood, GridNeighbourhood
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner


class Rule(AlwaysOn):
    """Returns what it was made with."""

    def __init__(self, table):
        self.table = table

    def keys(self, cells, query_shape, key_downsampler, key_shape):
        return self.table


def layout_of(table, packed):
    gpa = gpa_nd.audio(4, 3, 1, always=[Rule(table)])
    return gpa.packed_layout([(20,), (80,)]) if packed else gpa.layout((20,), (20,))


def test_a_rule_of_ones_own_is_numbered_on_in_a_pack():
    table = torch.tensor([[0, 1], [4, -1], [2, 3]])
    assert layout_of(table, False).always.tolist() == [[0, 1], [4, -1], [2, 3]]
    assert layout_of(table, True).always.tolist() == [[0, 1], [4, -1], [2, 3], [5, 6], [9, -1], [7, 8]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (torch.tensor([[10], [0], [0]]), ValueError, r"Rule.keys should return coarse keys −1 … 4, got 0 … 10"),
        (torch.tensor([[0], [-2], [0]]), ValueError, r"Rule.keys should return coarse keys −1 … 4, got -2 … 0"),
        (torch.tensor([[3]]), ValueError, r"should return shape \(3, any\), a row for each cell, got \(1, 1\)"),
        (torch.tensor([3, 3, 3]), ValueError, r"Rule.keys should return shape \(3, any\), .* got \(3,\)"),
        (torch.ones(3, 5, dtype=torch.bool), TypeError, "always, keys of Rule: expected an int64 or int32 tensor, got"),
        (None, TypeError, "always, keys of Rule: expected an int64 or int32 tensor, got NoneType"),
    ],
)  # fmt: skip
def test_what_a_rule_returns_is_checked_in_each_structure(table, error, message, packed):
    with pytest.raises(error, match=message):
        layout_of(table, packed)


def test_sinks_that_a_short_structure_lacks_are_left_out_there():
    sinks = GlobalElements(torch.arange(6))
    layout = gpa_nd.audio(2, 2, 1, always=[sinks]).packed_layout([(3,), (12,)])
    assert layout.always.tolist() == [[0, 1, -1], [0, 1, -1], [2, 3, 4], [2, 3, 4]]


def graph_attends_to_more_nodes() -> None:
    near = GraphNeighbourhood(torch.tensor([[0], [1]]))
    keys = GraphDownsampler(torch.tensor([0, 0, 1]))
    gpa = GPA(
        GraphPartitioner(torch.tensor([0])),
        GraphDownsampler(torch.tensor([0, 0])),
        key_downsampler=keys,
        kappa=1,
        always=[near],
    )
    gpa.layout((2,), (3,))


def grid_attends_to_another_grid() -> None:
    gpa = GPA(
        GridPartitioner(2),
        GridDownsampler(2),
        key_downsampler=GridDownsampler((2,)),
        kappa=1,
        always=[GridNeighbourhood(1)],
    )
    gpa.layout((4, 4), (8,))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GlobalElements(torch.tensor([], dtype=torch.int64)), ValueError, "elements: expected shape"),
        (lambda: GlobalElements(torch.tensor([-1])), ValueError, "elements: expected numbers from 0 on, got -1"),
        (
            lambda: gpa_nd.audio(always=[GlobalElements(torch.tensor([40]))]).layout((8,), (8,)),
            ValueError,
            r"elements: expected numbers below 8, the keys of shape \(8,\), got 40",
        ),
        (
            lambda: gpa_nd.audio(always=GlobalElements(torch.tensor([4]))),
            TypeError,
            "always: expected a sequence of them, got one GlobalElements",
        ),
        (lambda: GridNeighbourhood("2"), TypeError, "radius: expected an int or a tuple of ints, got '2'"),
        (lambda: GridNeighbourhood(True), TypeError, "radius: expected an int or a tuple of ints, got True"),
        (lambda: GridNeighbourhood(-1), ValueError, "radius: expected numbers of at least 0, got -1"),
        (lambda: GridNeighbourhood(()), ValueError, r"radius: expected numbers of at least 0, got \(\)"),
        (grid_attends_to_another_grid, ValueError, r"always: a grid neighbourhood expects .* as many axes, got shapes"),
        (
            lambda: GraphNeighbourhood(torch.zeros(3, dtype=torch.int64)),
            ValueError,
            r"edge_index: expected shape \(2, e\)",
        ),
        (
            lambda: GraphNeighbourhood(torch.zeros(2, 3)),
            TypeError,
            "edge_index: expected an int64 or int32 tensor, got",
        ),
        (
            graph_attends_to_more_nodes,
            ValueError,
            "always: a graph neighbourhood expects .* the same nodes, got 2 and 3",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
