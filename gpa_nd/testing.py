"""The laws of a geometry as assertions: three lines test your own.

Example:
    >>> from gpa_nd import testing
    >>> from gpa_nd.ops import GridDownsampler
    >>> from gpa_nd.partitioners import GridPartitioner
    >>> testing.assert_partition(GridDownsampler((2, 2)).groups((5, 7)), num_elements=35)
    >>> testing.assert_consistent(GridPartitioner((2, 3)), GridDownsampler((2, 2)), (5, 7))
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.layout import Layout
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.partition import Partition
from gpa_nd.partitioners.base import Partitioner


def assert_partition(partition: Partition, num_elements: int) -> None:
    """Cells are non-empty, disjoint, cover all elements, and compose to what was divided (Definitions 3 and 4).

    Args:
        partition: what a downsampler's ``groups`` or a partitioner's ``cells`` returned.
        num_elements: n, how many elements there are.

    Raises:
        AssertionError: the law that is broken.
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

    Args:
        partitioner: cells of the coarse structure.
        downsampler: groups of the fine structure.
        shape: the fine shape, ``(n,)`` where elements are only numbered.

    Raises:
        AssertionError: the law that is broken.
    """
    for operator, kind in ((partitioner, Partitioner), (downsampler, Downsampler)):
        assert isinstance(operator, kind), f"expected a {kind.__name__}, got {type(operator).__name__}"
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
    """
    assert fast.dtype == plain.dtype, f"dtypes differ: {fast.dtype} and {plain.dtype}"
    assert fast.shape == plain.shape == exact.shape, f"shapes differ: {fast.shape}, {plain.shape}, {exact.shape}"
    assert exact.dtype == torch.float64, f"exact: expected float64, got {exact.dtype}"
    if not exact.numel():
        return
    error, allowed = ((x.double() - exact).abs().max() for x in (fast, plain))
    bound = factor * allowed + torch.finfo(fast.dtype).eps * exact.abs().max()
    assert bool(error <= bound), f"error {error:.3e} is over {factor} times plain PyTorch's {allowed:.3e} plus one eps"
