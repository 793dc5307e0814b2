import pytest
import torch

from gpa_nd import testing
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner

PATH = torch.stack([torch.arange(11), torch.arange(1, 12)])


def test_cells_stand_in_scan_line_order():
    labels = GridPartitioner((2, 2)).cells((4, 6)).labels.view(4, 6)
    assert labels[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert labels[3].tolist() == [2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("size", "cells", "expected"), [(5, 2, [3, 2]), (7, 3, [3, 2, 2]), (2, 5, [1, 1]), (8, 3, [3, 3, 2])]
)
def test_cells_along_an_axis_differ_by_at_most_one(size, cells, expected):
    assert GridPartitioner((cells,)).cells((size,)).sizes.tolist() == expected
    assert GridPartitioner((cells,)).cells((size,)).labels.tolist() == [
        i * min(cells, size) // size for i in range(size)
    ]


def test_partition_and_compose_tensors():
    x = torch.randn(2, 5, 6, 3)
    cut = GridPartitioner((2, 3))
    cells = cut.partition(x)
    assert [tuple(cell.shape) for cell in cells[:2]] == [(2, 6, 3), (2, 6, 3)]
    assert cells[0].equal(x[:, :3, :2].flatten(1, 2))
    assert cut.compose(cells, (5, 6)).equal(x)


def test_an_int_number_of_cells_means_the_same_on_every_axis():
    assert len(GridPartitioner(3).cells((9, 9, 9))) == 27
    testing.assert_consistent(GridPartitioner(3), GridDownsampler(2), (7, 9, 8))


def test_partition_at_its_own_level_is_the_fine_cells_where_all_divides():
    from gpa_nd import GPA

    gpa = GPA(GridPartitioner((2, 4)), GridDownsampler((2, 2)), kappa=1)
    layout = gpa.layout((8, 16), (8, 16))
    assert layout.fine_cells.labels.equal(GridPartitioner((2, 4)).cells((8, 16)).labels)


@pytest.mark.parametrize("method", ["matching", "metis"])
@pytest.mark.parametrize(("wanted", "got"), [(1, 1), (2, 2), (3, 3), (100, 6)])
def test_graph_cells_are_as_many_as_asked_for(method, wanted, got):
    if method == "metis":
        pytest.importorskip("pymetis")
    down = GraphDownsampler(torch.arange(12) // 2)
    cells = GraphPartitioner.from_edges(PATH, down, wanted, method).cells((6,))
    testing.assert_partition(cells, 6)
    assert len(cells) == got


def test_graph_cells_of_a_path_are_pieces_of_it():
    down = GraphDownsampler(torch.arange(12) // 2)
    labels = GraphPartitioner.from_edges(PATH, down, 3).cells((6,)).labels
    assert (labels.diff() != 0).sum() == 2
    assert labels.bincount().tolist() == [2, 2, 2]


def test_an_empty_graph_has_no_cells():
    down = GraphDownsampler(torch.zeros(0, dtype=torch.int64))
    assert len(GraphPartitioner.from_edges(torch.zeros(2, 0, dtype=torch.int64), down, 3).cells((0,))) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GridPartitioner(0), ValueError, "cells: expected numbers of at least 1, got 0"),
        (lambda: GridPartitioner("4"), TypeError, "cells: expected an int or a tuple of ints, got '4'"),
        (
            lambda: GridPartitioner((2, 2)).cells((4,)),
            ValueError,
            r"cells: expected one number per axis of a grid of shape \(4,\)",
        ),
        (lambda: GridPartitioner(2).partition(torch.zeros(4, 4, 1)), ValueError, "cells: expected a tuple"),
        (lambda: GridPartitioner((2,)).compose([], (4,)), ValueError, "cells: expected at least one"),
        (
            lambda: GridPartitioner((2,)).compose([torch.zeros(4, 1)], (4,)),
            ValueError,
            "cells: expected 2 of them, got 1",
        ),
        (lambda: GraphPartitioner(torch.tensor([0, 2])), ValueError, "labels: "),
        (lambda: GraphPartitioner(torch.tensor([0, 0])).cells((3,)), ValueError, r"labels: .*\(2,\), got .*\(3,\)"),
        (lambda: GraphPartitioner.from_edges(PATH, DOWN, 0), ValueError, "cells: expected at least 1, got 0"),
        (lambda: GraphPartitioner.from_edges(PATH, DOWN, 2.5), TypeError, "cells: expected an int, got 2.5"),
        (
            lambda: GraphPartitioner.from_edges(PATH, DOWN, 2, "best"),
            ValueError,
            "method: expected 'matching' or 'metis'",
        ),
        (lambda: GraphPartitioner.from_edges(PATH, GridDownsampler(2), 2), TypeError, "downsampler: expected a Graph"),
        (lambda: GridPartitioner((2,)).partition([1.0]), TypeError, "x: expected a tensor, got list"),
        (lambda: GraphPartitioner.from_edges(PATH + 9, DOWN, 2), ValueError, "edge_index: "),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


DOWN = GraphDownsampler(torch.arange(12) // 2)
