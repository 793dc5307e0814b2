"""The laws of a geometry, and of what is always on, as assertions: three lines test your own.

Example:
    >>> from gpa_nd import testing
    >>> from gpa_nd.always import GridNeighbourhood
    >>> from gpa_nd.ops import GridDownsampler
    >>> from gpa_nd.partitioners import GridPartitioner
    >>> testing.assert_partition(GridDownsampler((2, 2)).groups((5, 7)), num_elements=35)
    >>> testing.assert_consistent(GridPartitioner((2, 3)), GridDownsampler((2, 2)), (5, 7))
    >>> testing.assert_always_on(GridNeighbourhood(1), GridPartitioner((2, 3)), GridDownsampler((2, 2)), (5, 7))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn
from gpa_nd.checks import kind_of
from gpa_nd.engine import gpa_attention
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.ops.asked import named, partition_of
from gpa_nd.ops.base import Downsampler, Shape, packed
from gpa_nd.partition import Partition
from gpa_nd.partitioners.base import Partitioner


def assert_partition(partition: Partition, num_elements: int) -> None:
    """Cells are non-empty, disjoint, cover all elements, and compose to what was divided (Definitions 3 and 4).

    Args:
        partition: what a downsampler's ``groups`` or a partitioner's ``cells`` returned.
        num_elements: n, how many elements there are.

    Raises:
        AssertionError: the law that is broken.

    Example:
        >>> assert_partition(Partition.from_labels(torch.tensor([1, 0, 1])), num_elements=3)
    """
    assert isinstance(partition, Partition), (
        f"expected a Partition, got {type(partition).__name__}; Partition.from_labels makes one"
    )
    order, offsets = partition.order.cpu(), partition.offsets.cpu()
    assert order.sort().values.equal(torch.arange(num_elements)), (
        f"the cells do not hold each of 0 … {num_elements - 1} once, but {len(order)} entries"
    )
    assert int(offsets[0]) == 0, f"offsets start at {int(offsets[0])}, not at 0"
    assert int(offsets[-1]) == num_elements, f"offsets end at {int(offsets[-1])}, not at {num_elements}"
    assert bool((offsets.diff() > 0).all()), f"cell {int((offsets.diff() <= 0).nonzero()[0])} is empty"
    assert offsets.equal(partition.host_offsets), "offsets on the device and on the host differ"
    for cell, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        assert bool((order[start:stop].diff() > 0).all()), f"the elements of cell {cell} do not ascend"
    x = torch.randn(2, num_elements, 3, device=partition.order.device)
    if num_elements:
        assert partition.join(partition.split(x)).equal(x), "join(split(x)) is not x (Definition 4)"


def assert_consistent(partitioner: Partitioner, downsampler: Downsampler, shape: Shape) -> None:
    """U_d(J'^(l)) = J^(l): the fine cells are the elements under the coarse cells (Definition 5).

    Parts of groups lie within them. Structures side by side, of this shape and of some that are longer along one axis
    as far as the geometry has them, are divided as each of them is, numbered on from each to the next.

    Args:
        partitioner: cells of the coarse structure.
        downsampler: groups of the fine structure.
        shape: the fine shape, ``(n,)`` where elements are only numbered.

    Raises:
        AssertionError: the law that is broken.

    Example:
        >>> from gpa_nd.ops import GridDownsampler
        >>> from gpa_nd.partitioners import GridPartitioner
        >>> assert_consistent(GridPartitioner((2, 3)), GridDownsampler((2, 2)), (5, 7))
    """
    for operator, kind in ((partitioner, Partitioner), (downsampler, Downsampler)):
        assert isinstance(operator, kind), f"expected a {kind.__name__}, got {kind_of(operator)}"
    groups = downsampler.groups(shape)
    assert_partition(groups, torch.Size(shape).numel())
    coarse_shape = downsampler.coarse_shape(shape)
    assert torch.Size(coarse_shape).numel() == len(groups), (
        f"coarse_shape is {coarse_shape}, but there are {len(groups)} groups"
    )
    cells = partitioner.cells(coarse_shape)
    assert_partition(cells, len(groups))
    fine_cells = Layout(groups, cells, groups).fine_cells
    assert_partition(fine_cells, groups.num_elements)
    upsampler = downsampler.upsampler()
    coarse = torch.arange(len(groups), device=groups.order.device)[:, None]
    fine = torch.arange(groups.num_elements, device=groups.order.device)[:, None]
    for number, (coarse_cell, fine_cell) in enumerate(zip(cells.split(coarse), fine_cells.split(fine), strict=True)):
        under = upsampler(coarse_cell[:, 0], shape)
        assert under[under >= 0].sort().values.equal(fine_cell[:, 0]), (
            f"the elements under cell {number} are not those of its fine cell (Definition 5)"
        )
    _assert_within(named(downsampler.parts, shape), _answer(downsampler.parts, shape), groups)
    _assert_side_by_side(downsampler.packed_groups, downsampler.groups, shape)
    _assert_side_by_side(downsampler.packed_parts, downsampler.parts, shape)
    _assert_side_by_side(upsampler.packed_members, upsampler.members, shape)
    _assert_side_by_side(partitioner.packed_cells, partitioner.cells, coarse_shape)


def _answer(method: Callable[[Any], Partition], asked: Sequence[Any]) -> Partition:
    """The partition that a method of a geometry returns."""
    try:
        answer = method(asked)
    except Exception as error:
        raise AssertionError(f"{named(method, asked)} raised {type(error).__name__}: {error}") from error
    assert isinstance(answer, Partition), (
        f"{named(method, asked)}: expected a Partition, got {type(answer).__name__}; Partition.from_labels makes one"
    )
    return answer


def _assert_within(name: str, parts: Partition, groups: Partition) -> None:
    """Each part lies within one group."""
    try:
        assert_partition(parts, groups.num_elements)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    for number, part in enumerate(parts.split(groups.labels.to(parts.order.device)[:, None])):
        assert len(found := part.unique()) == 1, (
            f"{name}: expected every part within one group, got part {number} in groups {found.tolist()}"
        )


def _assert_side_by_side(
    together: Callable[[Sequence[Shape]], Partition], alone: Callable[[Shape], Partition], shape: Shape
) -> None:
    """A method ``packed_…`` says what ``Partition.concat`` makes of the partitions of each structure."""
    shape = tuple(shape)
    for shapes in ((shape,), (shape, *_near(alone, shape), shape, shape)):  # backwards it is another pack
        name, got, expected = named(together, shapes), _answer(together, shapes), packed(alone, shapes)
        law = f"{name}: expected what Partition.concat makes of {alone.__name__} of each"
        assert (len(got), got.num_elements) == (len(expected), expected.num_elements), f"{law}, {expected}, got {got}"
        assert got.offsets.equal(got.host_offsets.to(got.offsets.device)), (
            f"{name}: offsets on the device and on the host differ"
        )
        for cell, (own, wanted) in enumerate(zip(_cells(got), _cells(expected), strict=True)):
            assert own == wanted, f"{law}, where cell {cell} holds {_short(wanted)}, got {_short(own)}"


def _near(method: Callable[[Shape], Partition], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes with one element more along an axis, or twice as many: the first of both that the method divides."""
    found = []
    for axis, size in enumerate(shape):
        for longer in (size + 1, 2 * size):
            other = (*shape[:axis], longer, *shape[axis + 1 :])
            try:
                partition_of(method, other)
            except (TypeError, ValueError):
                continue  # labels are for one shape only
            found.append(other)
            break
    return found


def _cells(partition: Partition) -> list[list[int]]:
    return [cell.tolist() for cell in partition.order.split(partition.host_offsets.diff().tolist())]


def _short(elements: list[int]) -> str:
    return str(elements) if len(elements) <= 8 else f"{str(elements[:8])[:-1]}, …]"


def assert_always_on(
    rule: AlwaysOn,
    partitioner: Partitioner,
    downsampler: Downsampler,
    shape: Shape,
    *,
    key_downsampler: Downsampler | None = None,
    key_shape: Shape | None = None,
) -> None:
    """Each cell's coarse keys are distinct, −1 after the last; the same each time; and attended to, beside κ others.

    Structures side by side have the same, numbered on from each to the next.

    Args:
        rule: what is always on.
        partitioner: cells of the coarse queries.
        downsampler: groups of the queries, and of the keys where these have none of their own.
        shape: the fine shape of the queries, ``(n,)`` where elements are only numbered.
        key_downsampler: groups of the keys.
        key_shape: the fine shape of the keys; that of the queries by default.

    Raises:
        AssertionError: the law that is broken.

    Example:
        >>> from gpa_nd.always import GridNeighbourhood
        >>> from gpa_nd.ops import GridDownsampler
        >>> from gpa_nd.partitioners import GridPartitioner
        >>> assert_always_on(GridNeighbourhood(1), GridPartitioner((2, 3)), GridDownsampler((2, 2)), (5, 7))
    """
    assert isinstance(rule, AlwaysOn), f"expected an AlwaysOn, got {type(rule).__name__}"
    gpa = GPA(partitioner, downsampler, key_downsampler=key_downsampler, kappa=1)
    key_downsampler, key_shape = key_downsampler or downsampler, shape if key_shape is None else key_shape
    plain = gpa.layout(shape, key_shape)
    cells, num_keys = plain.fine_cells, len(plain.key_groups)
    table = rule.keys(cells, shape, key_downsampler, key_shape)
    _assert_table(f"{type(rule).__name__}.keys", table, len(cells), num_keys)
    two = Partition.concat([cells, cells])
    packed = rule.packed_keys(two, (shape, shape), key_downsampler, (key_shape, key_shape))
    _assert_table(f"{type(rule).__name__}.packed_keys", packed, 2 * len(cells), 2 * num_keys)
    again = rule.keys(cells, shape, key_downsampler, key_shape)
    assert table.equal(again), f"{type(rule).__name__}.keys returned something else for the same arguments"
    for cell, keys in enumerate(packed.tolist()):
        own = [key + cell // len(cells) * num_keys for key in table[cell % len(cells)].tolist() if key >= 0]
        assert {key for key in keys if key >= 0} == set(own), (
            f"{type(rule).__name__}.packed_keys names {keys} for cell {cell} of two structures side by side, where "
            f"keys names {own}"
        )

    gpa = GPA(partitioner, downsampler, key_downsampler=key_downsampler, kappa=1, always=[rule])
    layout = gpa.layout(shape, key_shape)
    q, k = (torch.zeros(1, 1, part.num_elements, 1) for part in (layout.query_groups, layout.key_groups))
    group = F.one_hot(layout.key_groups.labels, num_keys).float()  # all queries attend alike
    attended = gpa_attention(q, k, group[None, None], layout, kappa=1, backend="reference")[0, 0] > 0
    for cell, queries in enumerate(layout.fine_cells.split(attended)):
        named = {key for key in table[cell].tolist() if key >= 0}
        for found in queries.unique(dim=0):
            keys = set(found.nonzero()[:, 0].tolist())
            assert named <= keys, f"cell {cell} does not attend to {sorted(named - keys)}, which are always on for it"
            assert len(keys) == min(num_keys, len(named) + 1), (
                f"cell {cell} attends to coarse keys {sorted(keys)}, where it should to one beside {sorted(named)}"
            )


def _assert_table(name: str, table: Int[Tensor, "m a"], num_cells: int, num_keys: int) -> None:
    """Rows of distinct coarse keys, −1 after the last."""
    assert isinstance(table, Tensor), f"{name}: expected a tensor, got {type(table).__name__}"
    assert table.dtype in (torch.int64, torch.int32), f"{name}: expected int64 or int32, got {table.dtype}"
    assert table.ndim == 2, f"{name}: expected shape ({num_cells}, any), a row for each cell, got {tuple(table.shape)}"
    assert len(table) == num_cells, f"{name}: expected a row for each of {num_cells} cells, got {len(table)}"
    for cell, row in enumerate(table.tolist()):
        keys = [key for key in row if key != -1]
        for key in keys:
            assert 0 <= key < num_keys, (
                f"{name}: cell {cell} names {key}, expected −1 or coarse keys 0 … {num_keys - 1}"
            )
            assert keys.count(key) == 1, f"{name}: cell {cell} names {key} {keys.count(key)} times"
        assert row[: len(keys)] == keys, f"{name}: cell {cell} has keys after a −1, got {row}"


def assert_within_budget(
    fast: Float[Tensor, "*shape"], plain: Float[Tensor, "*shape"], exact: Float[Tensor, "*shape"], factor: float = 2.0
) -> None:
    """A fast result errs at most ``factor`` times as much as plain PyTorch does in the same dtype, plus one eps.

    Args:
        fast: what a fast backend computed.
        plain: what the reference backend computed in the same dtype.
        exact: what the reference backend computed in float64 from the same numbers.
        factor: 2 for results, 3 for gradients.

    Raises:
        AssertionError: dtypes or shapes differ, or the error is larger.

    Example:
        >>> exact = torch.tensor([1.0, 3.0], dtype=torch.float64)
        >>> assert_within_budget(torch.tensor([1.0, 3.1]), plain=torch.tensor([1.0, 2.9]), exact=exact)
    """
    assert fast.dtype == plain.dtype, f"dtypes differ: {fast.dtype} and {plain.dtype}"
    assert fast.shape == plain.shape == exact.shape, f"shapes differ: {fast.shape}, {plain.shape}, {exact.shape}"
    assert exact.dtype == torch.float64, f"exact: expected float64, got {exact.dtype}"
    if not exact.numel():
        return
    error, allowed = ((x.double() - exact).abs().max() for x in (fast, plain))
    bound = factor * allowed + torch.finfo(fast.dtype).eps * exact.abs().max()
    assert bool(error <= bound), f"error {error:.3e} is over {factor} times plain PyTorch's {allowed:.3e} plus one eps"
