import pytest
import torch

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
        ({"fine_cells": parts(0, 1)}, ValueError, "fine_cells: expected 2 cells of 3 queries, got 2 of 2"),
        ({"key_members": parts(0, 0, 1).to("meta")}, ValueError, "one device, got cpu and meta"),
        ({"key_groups": parts(0, 0, 1).to("meta")}, ValueError, "one device, got cpu and meta"),
    ],
)
def test_parts_that_do_not_fit(changes, error, message):
    fitting = {"query_groups": parts(0, 0, 1), "query_cells": parts(0, 1), "key_groups": parts(0, 1, 1)}
    with pytest.raises(error, match=message):
        Layout(**{**fitting, **changes})
