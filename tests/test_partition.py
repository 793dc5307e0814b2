import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpa_nd import Partition, testing

PAIRS = Partition.from_labels(torch.tensor([0, 0, 1, 1]))
SOME = Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 3]))


@pytest.fixture
def ragged():
    return Partition.from_labels(torch.tensor([1, 0, 1, 2, 1, 0]))


def test_elements_stand_cell_after_cell_ascending(ragged):
    assert ragged.order.tolist() == [1, 5, 0, 2, 4, 3]
    assert ragged.offsets.tolist() == [0, 2, 5, 6]
    assert ragged.order.dtype == ragged.offsets.dtype == torch.int64
    assert (len(ragged), ragged.num_elements, ragged.largest, ragged.uniform) == (3, 6, 3, False)


def test_it_prints_in_one_line(ragged):
    assert repr(ragged) == "Partition(6 elements, 3 cells of 1 … 3)"


def test_labels_sizes_and_inverse_go_back(ragged):
    x = torch.arange(10, 16)
    assert ragged.labels.tolist() == [1, 0, 1, 2, 1, 0]
    assert ragged.sizes.tolist() == [2, 3, 1]
    assert x[ragged.order][ragged.inverse].equal(x)
    assert type(ragged.largest) is int


def test_table_ends_short_rows_in_minus_one(ragged):
    assert ragged.table.tolist() == [[1, 5, -1], [0, 2, 4], [3, -1, -1]]


def test_mean_is_over_real_members_only(ragged):
    x = torch.tensor([[1.0], [10.0], [3.0], [7.0], [5.0], [20.0]])
    assert ragged.mean(x).tolist() == [[15.0], [3.0], [7.0]]


def test_mean_of_halves_is_added_up_in_float32():
    p = Partition.from_labels(torch.zeros(4096, dtype=torch.int64))
    ragged = Partition.from_labels(torch.tensor([0] * 4096 + [1]))
    x = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)  # bfloat16 alone stops counting at 256
    assert p.mean(x).item() == 1.0
    assert p.mean(x).dtype == torch.bfloat16
    assert ragged.mean(torch.cat([x, x[:1]]))[0].item() == 1.0


def test_then_gives_the_fine_cells(ragged):
    fine = ragged.then(Partition.from_labels(torch.tensor([0, 1, 0])))
    assert fine.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_split_and_join_keep_leading_axes(ragged):
    x = torch.randn(2, 3, 6, 4)
    cells = ragged.split(x)
    assert [cell.shape for cell in cells] == [(2, 3, 2, 4), (2, 3, 3, 4), (2, 3, 1, 4)]
    assert ragged.join(cells).equal(x)


def test_no_elements_make_no_cells():
    empty = Partition.from_labels(torch.zeros(0, dtype=torch.int64))
    assert (len(empty), empty.largest, empty.num_elements) == (0, 0, 0)
    assert empty.mean(torch.zeros(0, 3)).shape == (0, 3)
    assert empty.split(torch.zeros(0, 3)) == ()
    testing.assert_partition(empty, 0)


def test_to_the_same_device_is_itself(ragged):
    assert ragged.to("cpu") is ragged
    assert ragged.to("meta").order.device.type == "meta"


def test_some_elements_may_be_left_out():
    p = Partition.from_labels(torch.tensor([0, 1, 1]), torch.tensor([1, 4, 5]))
    assert p.table.tolist() == [[1, -1], [4, 5]]
    assert not p.covers
    with pytest.raises(ValueError, match="leaves elements out"):
        _ = p.labels
    with pytest.raises(ValueError, match="leaves elements out"):
        p.split(torch.zeros(6, 1))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_any_labels_without_a_gap_make_a_partition(labels):
    labels = torch.tensor(labels).unique(return_inverse=True)[1]
    p = Partition.from_labels(labels)
    testing.assert_partition(p, len(labels))
    assert p.labels.equal(labels)
    x = torch.randn(len(labels), 2, dtype=torch.float64)
    expected = torch.stack([x[labels == cell].mean(0) for cell in range(len(p))])
    assert (p.mean(x) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 2], ValueError, r"labels: .*cannot fill 3 cells"),
        ([0, 0, 2], ValueError, r"labels: .*cell 1 has none"),
        ([-1, 0], ValueError, r"labels: .*from 0 on, got -1"),
        ([[0, 1]], ValueError, r"labels: expected shape \(n,\), got \(1, 2\)"),
        ([False, True], TypeError, r"labels: expected an int64 or int32 tensor, got torch.bool"),
        ([0.0, 1.0], TypeError, r"labels: expected an int64 or int32 tensor, got torch.float32"),
    ],
)
def test_labels_that_are_no_partition(labels, error, message):
    with pytest.raises(error, match=message):
        Partition.from_labels(torch.tensor(labels))


def test_labels_that_are_no_tensor():
    with pytest.raises(TypeError, match="labels: expected an int64 or int32 tensor, got list"):
        Partition.from_labels([0, 1])


@pytest.mark.parametrize(
    ("elements", "message"),
    [([3, 1], "ascending"), ([-1, 1], "ascending"), ([1, 1], "ascending"), ([1], "one per label")],
)
def test_elements_that_are_no_list_of_elements(elements, message):
    with pytest.raises(ValueError, match=f"elements: expected .*{message}"):
        Partition.from_labels(torch.tensor([0, 1]), torch.tensor(elements))


def test_tensors_of_another_size(ragged):
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 6, channels\), got \(5, 1\)"):
        ragged.mean(torch.zeros(5, 1))
    with pytest.raises(TypeError, match=r"x: expected a floating point tensor, got torch.int64"):
        ragged.mean(torch.zeros(6, 1, dtype=torch.int64))
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        ragged.mean([1.0] * 6)
    with pytest.raises(ValueError, match="cells: expected the same leading axes and channels"):
        ragged.join([torch.zeros(2, 1), torch.zeros(3, 2), torch.zeros(1, 1)])
    with pytest.raises(ValueError, match="cells: expected 3 of them, got 1"):
        ragged.join([torch.zeros(6, 1)])
    with pytest.raises(ValueError, match="cells: expected cell 1 to hold 3 elements, got 2"):
        ragged.join([torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 1)])
    with pytest.raises(ValueError, match="cells: expected a partition of 3 elements, got one of 6"):
        ragged.then(ragged)


def test_concat_numbers_elements_and_cells_on(ragged):
    both = Partition.concat([ragged, Partition.from_labels(torch.zeros(0, dtype=torch.int64)), ragged])
    assert both.labels.tolist() == [1, 0, 1, 2, 1, 0, 4, 3, 4, 5, 4, 3]
    assert both.host_offsets.equal(both.offsets)
    testing.assert_partition(both, 12)
    assert Partition.concat([ragged]) is ragged


def test_concat_leaves_room_for_elements_that_are_left_out():
    some = Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 2]))
    both = Partition.concat([some, Partition.from_labels(torch.tensor([0, 0])), some], [4, 2, 3])
    assert both.table.tolist() == [[0, -1], [2, -1], [4, 5], [6, -1], [8, -1]]
    assert not both.covers


@pytest.mark.parametrize(
    ("num_elements", "message"),
    [
        (None, "num_elements: expected the size of each structure"),
        ([4], "num_elements: expected 2 numbers, one for each partition, got 1"),
        ([2, 2], "num_elements: expected more than 2 for partition 0, got 2"),
        ([3, 3], "num_elements: expected 2 for partition 1, got 3"),
    ],
)
def test_concat_of_sizes_that_do_not_fit(num_elements, message):
    some = Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=message):
        Partition.concat([some, Partition.from_labels(torch.tensor([0, 0]))], num_elements)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Partition.from_labels(torch.zeros(2, 2, dtype=torch.int64)),
            ValueError,
            r"labels: expected shape \(n,\)",
        ),
        (
            lambda: Partition.from_labels(torch.zeros(2)),
            TypeError,
            "labels: expected an int64 or int32 tensor, got torch",
        ),
        (lambda: Partition.from_labels([0, 1]), TypeError, "labels: expected an int64 or int32 tensor, got list"),
        (
            lambda: Partition.from_labels(torch.tensor([0, -1])),
            ValueError,
            "labels: expected cell numbers from 0 on, got",
        ),
        (
            lambda: Partition.from_labels(torch.tensor([0, 2, 2])),
            ValueError,
            "labels: expected every cell .* cell 1 has",
        ),
        (lambda: Partition.from_labels(torch.tensor([0, 7])), ValueError, "labels: 2 elements cannot fill 8 cells"),
        (
            lambda: Partition.from_labels(torch.tensor([0, 1]), torch.tensor([3, 3])),
            ValueError,
            "elements: expected distinct, ascending numbers from 0 on",
        ),
        (
            lambda: Partition.from_labels(torch.tensor([0, 1]), torch.tensor([-1, 3])),
            ValueError,
            "elements: expected distinct, ascending numbers from 0 on",
        ),
        (lambda: Partition.concat([]), ValueError, "parts: expected at least one partition, got none"),
        (
            lambda: Partition.concat([PAIRS, PAIRS.to("meta")]),
            ValueError,
            "parts: expected all of them on one device, got cpu and meta",
        ),
        (lambda: Partition.from_labels(PAIRS.labels[:0]).join([]), ValueError, "cells: expected at least one; the"),
        (lambda: SOME.mean(torch.zeros(4, 1)), ValueError, "mean and split: this partition leaves elements out"),
        (lambda: PAIRS.mean("x"), TypeError, "x: expected a .*got str"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
