"""The assertions that the library ships fail where a law is broken."""

import dataclasses

import pytest
import torch

from gpa_nd import Partition, testing
from gpa_nd.always import AlwaysOn, GlobalElements, GraphNeighbourhood, GridNeighbourhood
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.ops.base import Downsampler, IndexUpsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner, Partitioner

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
    with pytest.raises(AssertionError, match="expected a Partitioner, got the class Halves; make one"):
        testing.assert_consistent(Halves, Strides(), (4,))


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


class Strides(Downsampler):
    """As many groups as :class:`Pairs` has, of elements that are half of all apart."""

    def groups(self, shape):
        return Partition.from_labels(torch.arange(shape[0]) % -(-shape[0] // 2))


class Nines(Strides):
    """Of one size only."""

    def groups(self, shape):
        if shape[0] != 9:
            raise KeyError(shape[0])
        return super().groups(shape)


class Halves(Partitioner):
    def cells(self, shape):
        return Partition.from_labels(torch.arange(shape[0]) * 2 // shape[0])


class EachGroup(IndexUpsampler):
    def members(self, shape):
        return Strides().groups(shape)


def numbered_from_the_first(self, shapes):
    """Right for two structures, and for any number of one size."""
    first = self.groups(shapes[0])
    labels = [self.groups(shape).labels + place * len(first) for place, shape in enumerate(shapes)]
    return Partition.from_labels(torch.cat(labels).unique(return_inverse=True)[1])


def wrong(kind, method, answer):
    """An operator with a hook of its own."""
    answer.__name__ = method
    return type(f"Wrong{kind.__name__}", (kind,), {method: answer})()


def upsampled_by(wrong_upsampler):
    return wrong(Strides, "upsampler", lambda self: wrong_upsampler)


def test_hooks_that_keep_their_laws_pass():
    for downsampler in (Strides(), upsampled_by(EachGroup()), Nines()):
        testing.assert_consistent(Halves(), downsampler, (9,))
    by_labels = wrong(Strides, "parts", lambda self, shape: Partition.from_labels(torch.arange(shape[0])))
    testing.assert_consistent(Halves(), by_labels, (9,))


@pytest.mark.parametrize(
    ("downsampler", "message"),
    [
        (
            wrong(Strides, "packed_groups", lambda self, shapes: Pairs().packed_groups(shapes)),
            r"WrongStrides.packed_groups\(\(\(9,\),\)\): expected what Partition.concat makes of groups of each, where "
            r"cell 0 holds \[0, 5\], got \[0, 1\]",
        ),
        (
            wrong(Strides, "packed_groups", lambda self, shapes: self.groups((sum(shape[0] for shape in shapes),))),
            r"packed_groups\(\(\(9,\), \(10,\), \(9,\), \(9,\)\)\): .* 20 cells .* got .* 19 cells",
        ),
        (
            wrong(Nines, "packed_groups", lambda self, shapes: self.groups(shapes[0])),
            r"WrongNines.packed_groups\(\(\(9,\), \(9,\), \(9,\)\)\): .*\(27 elements, .* got .*\(9 elements",
        ),
        (
            wrong(Pairs, "packed_groups", numbered_from_the_first),
            r"packed_groups\(\(\(12,\), \(13,\), \(12,\), \(12,\)\)\): .* 25 cells .* got .* 24 cells",
        ),
        (
            wrong(Strides, "packed_groups", lambda self, shapes: self.groups(shapes[0]).labels),
            "WrongStrides.packed_groups.*: expected a Partition, got Tensor",
        ),
        (
            wrong(Strides, "packed_groups", lambda self, shapes: self.groups(shapes)),
            r"WrongStrides.packed_groups\(\(\(9,\),\)\) raised TypeError: ",
        ),
        (
            wrong(Strides, "parts", lambda self, shape: Pairs().groups(shape)),
            r"WrongStrides.parts\(\(9,\)\): expected every part within one group, got part 0 in groups \[0, 1\]",
        ),
        (
            wrong(Strides, "parts", lambda self, shape: self.groups(shape).labels),
            r"WrongStrides.parts\(\(9,\)\): expected a Partition, got Tensor",
        ),
        (
            wrong(Strides, "packed_parts", lambda self, shapes: self.packed_groups(shapes)),
            r"WrongStrides.packed_parts\(.*Partition.concat makes of parts of each, Partition\(9 elements, 9 cells",
        ),
        (
            upsampled_by(wrong(EachGroup, "packed_members", lambda self, shapes: Pairs().packed_groups(shapes))),
            r"WrongEachGroup.packed_members\(.*of members of each, where cell 0 holds \[0, 5\], got \[0, 1\]",
        ),
    ],
)
def test_a_hook_that_breaks_its_law_is_named(downsampler, message):
    with pytest.raises(AssertionError, match=message):
        testing.assert_consistent(Halves(), downsampler, (12,) if isinstance(downsampler, Pairs) else (9,))


def test_packed_cells_that_break_their_law_are_named():
    cut = wrong(Halves, "packed_cells", lambda self, shapes: Partition.concat([self.cells(s) for s in shapes[::-1]]))
    with pytest.raises(AssertionError, match=r"WrongHalves.packed_cells\(\(\(5,\), .* where cell"):
        testing.assert_consistent(cut, Strides(), (9,))


class OwnGroup(AlwaysOn):
    """The group of each cell's first query, as a table that is then changed."""

    def __init__(self, change=lambda table: table):
        self.change = change

    def keys(self, cells, query_shape, key_downsampler, key_shape):
        return self.change(key_downsampler.groups(key_shape).labels[cells.order[cells.offsets[:-1]]][:, None])


class NotNumberedOn(OwnGroup):
    def packed_keys(self, *arguments):
        return super().packed_keys(*arguments) % 6


class InPacksAlone(OwnGroup):
    def packed_keys(self, cells, query_shapes, *others):
        table = super().packed_keys(cells, query_shapes, *others)
        return table if len(query_shapes) > 1 else torch.full_like(table, -1)


@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        (OwnGroup(), (12,)),
        (OwnGroup(lambda table: table[:, :0]), (12,)),
        (GridNeighbourhood(2), (11,)),
        (GridNeighbourhood((1, 0)), (5, 7)),
        (GlobalElements(torch.tensor([0, 1, 9])), (5, 7)),
    ],
)
def test_a_rule_for_what_is_always_on_passes(rule, shape):
    testing.assert_always_on(rule, GridPartitioner(3), GridDownsampler(2), shape)


def test_a_rule_for_what_is_always_on_passes_on_a_graph_and_between_domains():
    path, pairs = torch.stack([torch.arange(9), torch.arange(1, 10)]), GraphDownsampler(torch.arange(10) // 2)
    cut = GraphPartitioner(torch.tensor([0, 0, 1, 1, 2]))
    testing.assert_always_on(GraphNeighbourhood(path), cut, pairs, (10,))
    keys = {"key_downsampler": GridDownsampler((2, 3)), "key_shape": (7, 8)}
    testing.assert_always_on(GlobalElements(torch.tensor([0, 55])), cut, pairs, (10,), **keys)
    testing.assert_always_on(GridNeighbourhood(1), GridPartitioner(2), GridDownsampler(3), (9, 5), **keys)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (OwnGroup(lambda table: table.tolist()), "OwnGroup.keys: expected a tensor, got list"),
        (OwnGroup(lambda table: table.float()), "OwnGroup.keys: expected int64 or int32, got torch.float32"),
        (OwnGroup(lambda table: table[:, 0]), r"OwnGroup.keys: expected shape \(3, any\), .* got \(3,\)"),
        (OwnGroup(lambda table: table[:1]), "OwnGroup.keys: expected a row for each of 3 cells, got 1"),
        (OwnGroup(lambda table: table + 2), "OwnGroup.keys: cell 2 names 6, expected −1 or coarse keys 0 … 5"),
        (OwnGroup(lambda table: table - 2), "OwnGroup.keys: cell 0 names -2, expected −1 or"),
        (OwnGroup(lambda table: table.expand(-1, 2)), "OwnGroup.keys: cell 0 names 0 2 times"),
        (
            OwnGroup(lambda table: table % 4 - torch.tensor([1, 0])),
            r"OwnGroup.keys: cell 0 has keys after a −1, got \[",
        ),
        (OwnGroup(lambda table: torch.randint_like(table, 6)), "for cell 0 of two structures|for the same arguments"),
        (NotNumberedOn(), r"packed_keys names \[0\] for cell 3 of two structures .*, where keys names \[6\]"),
        (InPacksAlone(lambda table: table + 1), r"cell 0 does not attend to \[1\], which are always on for it"),
        (GridPartitioner(2), "expected an AlwaysOn, got GridPartitioner"),
    ],
)
def test_a_rule_that_breaks_its_law_fails(rule, message):
    with pytest.raises(AssertionError, match=message):
        testing.assert_always_on(rule, GridPartitioner(3), GridDownsampler(2), (12,))
