from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import Layout, Partition


def parts(*labels):
    return Partition.from_labels(torch.tensor(labels))


def test_fine_cells_are_the_elements_under_the_coarse_cells():
    layout = Layout(parts(0, 0, 1, 1, 2), parts(1, 0, 1), parts(0, 1))
    assert layout.fine_cells.labels.tolist() == [1, 1, 0, 0, 1]
    assert layout.members is layout.key_groups


def test_layout_moves_as_a_whole():
    layout = Layout(parts(0, 1), parts(0, 1), parts(0, 1), parts(0, 1))
    assert repr(layout) == "Layout(2 queries in 2 groups in 2 cells, 2 keys in 2 groups)"
    moved = layout.to("meta")
    assert {part.order.device.type for part in (moved.query_groups, moved.query_cells, moved.members)} == {"meta"}
    assert layout.to("cpu").query_groups is layout.query_groups


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query_cells": parts(0, 1, 1)}, ValueError, "query_cells: expected a partition of the 2 coarse queries"),
        ({"key_groups": torch.tensor([0])}, TypeError, "key_groups: expected a Partition, got Tensor"),
        (
            {"key_members": parts(0, 0, 0)},
            ValueError,
            "key_members: expected a list for each of the 2 coarse keys, got 1",
        ),
        ({"key_members": parts(0, 1)}, ValueError, "key_members: expected a partition of 3 elements, got one of 2"),
        (
            {"key_members": Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 7]))},
            ValueError,
            "key_members: expected elements below 3, got 7",
        ),
        (
            {"query_groups": Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 7]))},
            ValueError,
            "query_groups: expected a partition of all elements",
        ),
        ({"key_ranges": torch.tensor([[0, 1]])}, ValueError, r"key_ranges: expected shape \(2, 2\), got \(1, 2\)"),
        (
            {"key_ranges": torch.tensor([[0.0, 1], [0, 1]])},
            TypeError,
            "key_ranges: expected an int64 or int32 tensor, got torch.float32",
        ),
        ({"key_ranges": torch.tensor([[0, 1], [1, 3]])}, ValueError, r"key_ranges: .*got \[1, 3\] for cell 1"),
        ({"key_ranges": torch.tensor([[1, 0], [0, 1]])}, ValueError, r"key_ranges: .*got \[1, 0\] for cell 0"),
        ({"coarser": parts(0, 1)}, TypeError, "coarser: expected a Layout, got Partition"),
        ({"fine_cells": parts(0, 1)}, ValueError, "fine_cells: expected 2 cells of 3 queries, got 2 of 2"),
        ({"key_members": parts(0, 0, 1).to("meta")}, ValueError, "one device, got cpu and meta"),
        ({"key_groups": parts(0, 0, 1).to("meta")}, ValueError, "one device, got cpu and meta"),
    ],
)
def test_parts_that_do_not_fit(changes, error, message):
    fitting = {"query_groups": parts(0, 0, 1), "query_cells": parts(0, 1), "key_groups": parts(0, 1, 1)}
    with pytest.raises(error, match=message):
        Layout(**{**fitting, **changes})


def layouts(*lengths, **settings):
    return [gpa_nd.audio(2, 2, **settings).layout((n,), (n,)) for n in lengths]


def test_concat_numbers_everything_on():
    some = Layout(parts(0, 1, 1), parts(1, 0), parts(0, 0, 1), always=torch.tensor([[1], [0]]))
    other = Layout(
        parts(0, 0),
        parts(0),
        parts(0, 1, 1),
        Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 2])),  # element 1 belongs to nothing
        torch.tensor([[1, 2]]),
        ranked_by=torch.tensor([0]),
    )
    both = Layout.concat([some, other, some])
    assert both.query_groups.labels.tolist() == [0, 1, 1, 2, 2, 3, 4, 4]
    assert both.query_cells.labels.tolist() == [1, 0, 2, 4, 3]
    assert both.fine_cells.labels.tolist() == [1, 0, 0, 2, 2, 4, 3, 3]
    assert both.key_groups.labels.tolist() == [0, 0, 1, 2, 3, 3, 4, 4, 5]
    assert both.members.table.tolist() == [[0, 1], [2, -1], [3, -1], [5, -1], [6, 7], [8, -1]]
    assert both.key_ranges.tolist() == [[0, 2], [0, 2], [3, 4], [4, 6], [4, 6]]
    assert both.always.tolist() == [[1], [0], [-1], [5], [4]]
    assert both.ranked_by.tolist() == [0, 1, 2, 3, 4]
    assert both.positions is both.coarse_positions is both.coarser is None
    assert both.most_visible == 2


def test_concat_joins_positions_and_levels():
    each = layouts(5, 9, causal=True, kappa=(1, 1))
    both = Layout.concat(each)
    assert [x.flatten().tolist() for x in both.positions] == [[*range(5), *range(9)]] * 2
    assert both.levels == 2
    assert both.coarser.key_groups.num_elements == 3 + 5
    assert both.parents.tolist() == [*each[0].parents.tolist(), *(each[1].parents + len(each[0].coarser.query_cells))]


def test_concat_of_one_is_itself():
    (layout,) = layouts(5)
    assert Layout.concat([layout]) is layout


def test_a_layout_moves_after_it_was_used():
    layout = Layout.concat(layouts(5, 9, causal=True, kappa=(1, 1)))
    assert layout.most_visible >= 1
    assert layout.parents.device.type == "cpu"
    assert layout.to("meta").parents.device.type == "meta"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: [], ValueError, "layouts: expected at least one"),
        (lambda: [parts(0)], TypeError, "layouts: expected Layouts, got Partition"),
        (lambda: [*layouts(5), *layouts(9, kappa=(1, 1))], ValueError, "the same levels in all, got 1 and 2"),
        (lambda: [*layouts(5), *layouts(9, causal=True)], ValueError, "the same causal axes in all, got 0 and 1"),
        (lambda: [*layouts(5), layouts(9)[0].to("meta")], ValueError, "the same devices in all, got cpu and meta"),
    ],
)
def test_layouts_that_do_not_go_together(make, error, message):
    with pytest.raises(error, match=message):
        Layout.concat(make())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"always": torch.tensor([[0, 0], [1, -1]])}, "always: expected distinct coarse keys in every row, got one"),
        ({"always": torch.tensor([[0], [9]])}, "always: expected numbers -1 … 5, got 0 … 9"),
        ({"ranked_by": torch.tensor([0, 2])}, "ranked_by: expected numbers 0 … 1, got 0 … 2"),
        ({"ranked_by": torch.tensor([0])}, r"ranked_by: expected shape \(2\), got \(1,\)"),
        ({"positions": (torch.arange(12), torch.arange(11))}, r"positions: expected shape \(12, axes\) for the keys"),
        (
            {"positions": (torch.arange(12), torch.zeros(12, 2, dtype=torch.int64))},
            "positions: expected as many axes for queries as for keys, got 1 and 2",
        ),
        (
            {"fine_cells": Partition.from_labels(torch.arange(12) % 2)},
            r"fine_cells: expected the cells of query_groups.then\(query_cells\), got others",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_layout_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(gpa_nd.audio(2, 2, 1).layout((12,), (12,)), **changes)


def test_a_cell_above_that_holds_none_of_a_cells_queries_is_refused():
    layout = gpa_nd.audio(2, 4, (1, 1)).layout((24,), (24,))
    with pytest.raises(ValueError, match="parents: expected, for every cell, a cell of coarser that holds one of its"):
        replace(layout, parents=layout.parents.flip(0))
