"""A ready GPA for each kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn
from gpa_nd.engine import Affinity, Backend, Ranking, Unselected
from gpa_nd.nn.gpa import GPA
from gpa_nd.ops.coarsening import coarse_edges
from gpa_nd.ops.graph import GraphDownsampler
from gpa_nd.ops.grid import GridDownsampler, PerAxis, check_per_axis
from gpa_nd.partitioners.graph import GraphPartitioner
from gpa_nd.partitioners.grid import GridPartitioner
from gpa_nd.selection.base import Selection

Operator = TypeVar("Operator")


def audio(
    downsample: PerAxis = 16,
    cells: PerAxis = 64,
    kappa: int | tuple[int, ...] = 8,
    *,
    causal: bool | tuple[bool, ...] = False,
    always: Sequence[AlwaysOn] = (),
    selection: Selection | None = None,
    unselected: Unselected = "ignored",
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> GPA:
    """GPA over sequences (B, H, time, c).

    Args:
        downsample: samples or frames in a group.
        cells: how many cells the time axis of coarse queries is cut into; for cells of one size, compute it from the
            length.
        kappa: relevant coarse keys of each cell; a query attends to kappa · downsample elements. A tuple
            has a number for each level, finest first: Phase 1 is then done by GPA, on groups of groups, with the same
            ``downsample`` and ``cells`` divided by it on every further level.
        causal: see :class:`GPA`.
        always: see :class:`GPA`.
        selection: see :class:`GPA`.
        unselected: see :class:`GPA`.
        scale: see :class:`GPA`.
        affinity: see :class:`GPA`.
        ranking: see :class:`GPA`.
        mass: see :class:`GPA`.
        enable_gqa: see :class:`GPA`.
        backend: see :class:`GPA`.

    Raises:
        TypeError: ``downsample`` or ``cells`` is neither an int nor a tuple of ints.
        ValueError: a number below 1, or not one number for one axis.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> q, k, v = torch.randn(3, 1, 4, 4000, 16)
        >>> gpa_nd.audio()(q, k, v).shape
        torch.Size([1, 4, 4000, 16])
    """
    return _grid(
        1,
        downsample,
        cells,
        kappa=kappa,
        causal=causal,
        always=always,
        selection=selection,
        unselected=unselected,
        scale=scale,
        affinity=affinity,
        ranking=ranking,
        mass=mass,
        enable_gqa=enable_gqa,
        backend=backend,
    )


def image(
    downsample: PerAxis = 4,
    cells: PerAxis = (32, 32),
    kappa: int | tuple[int, ...] = 12,
    *,
    causal: bool | tuple[bool, ...] = False,
    always: Sequence[AlwaysOn] = (),
    selection: Selection | None = None,
    unselected: Unselected = "ignored",
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> GPA:
    """GPA over images (B, H, height, width, c); the defaults are the paper's pivot at 256 × 256 (section 3.1).

    Args:
        downsample: pixels in a group along height and width.
        cells: cells along height and width of coarse queries.
        kappa: relevant coarse keys of each cell; a query attends to kappa · downsample² pixels. A tuple
            has a number for each level, finest first: Phase 1 is then done by GPA, on groups of groups, with the same
            ``downsample`` and ``cells`` divided by it on every further level.
        causal: see :class:`GPA`.
        always: see :class:`GPA`.
        selection: see :class:`GPA`.
        unselected: see :class:`GPA`.
        scale: see :class:`GPA`.
        affinity: see :class:`GPA`.
        ranking: see :class:`GPA`.
        mass: see :class:`GPA`.
        enable_gqa: see :class:`GPA`.
        backend: see :class:`GPA`.

    Raises:
        TypeError: ``downsample`` or ``cells`` is neither an int nor a tuple of ints.
        ValueError: a number below 1, or not one number for each of two axes.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> q, k, v = torch.randn(3, 1, 1, 64, 80, 16)
        >>> gpa_nd.image(cells=(8, 8))(q, k, v).shape
        torch.Size([1, 1, 64, 80, 16])
    """
    return _grid(
        2,
        downsample,
        cells,
        kappa=kappa,
        causal=causal,
        always=always,
        selection=selection,
        unselected=unselected,
        scale=scale,
        affinity=affinity,
        ranking=ranking,
        mass=mass,
        enable_gqa=enable_gqa,
        backend=backend,
    )


def video(
    downsample: PerAxis = (2, 4, 4),
    cells: PerAxis = (8, 16, 16),
    kappa: int | tuple[int, ...] = 32,
    *,
    causal: bool | tuple[bool, ...] = False,
    always: Sequence[AlwaysOn] = (),
    selection: Selection | None = None,
    unselected: Unselected = "ignored",
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> GPA:
    """GPA over video (B, H, time, height, width, c).

    Args:
        downsample: elements in a group along time, height and width.
        cells: cells along time, height and width of coarse queries.
        kappa: relevant coarse keys of each cell; a query attends to kappa · (2 · 4 · 4) elements by default. A tuple
            has a number for each level, finest first: Phase 1 is then done by GPA, on groups of groups, with the same
            ``downsample`` and ``cells`` divided by it on every further level.
        causal: see :class:`GPA`.
        always: see :class:`GPA`.
        selection: see :class:`GPA`.
        unselected: see :class:`GPA`.
        scale: see :class:`GPA`.
        affinity: see :class:`GPA`.
        ranking: see :class:`GPA`.
        mass: see :class:`GPA`.
        enable_gqa: see :class:`GPA`.
        backend: see :class:`GPA`.

    Raises:
        TypeError: ``downsample`` or ``cells`` is neither an int nor a tuple of ints.
        ValueError: a number below 1, or not one number for each of three axes.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> q, k, v = torch.randn(3, 1, 1, 8, 24, 40, 16)
        >>> gpa_nd.video(cells=(2, 3, 5), kappa=4)(q, k, v).shape
        torch.Size([1, 1, 8, 24, 40, 16])
    """
    return _grid(
        3,
        downsample,
        cells,
        kappa=kappa,
        causal=causal,
        always=always,
        selection=selection,
        unselected=unselected,
        scale=scale,
        affinity=affinity,
        ranking=ranking,
        mass=mass,
        enable_gqa=enable_gqa,
        backend=backend,
    )


def graph(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int,
    downsample: int = 16,
    cells: int = 256,
    kappa: int | tuple[int, ...] = 8,
    *,
    edge_weight: Float[Tensor, " e"] | None = None,
    causal: bool = False,
    always: Sequence[AlwaysOn] = (),
    selection: Selection | None = None,
    unselected: Unselected = "ignored",
    scale: float | None = None,
    affinity: Affinity = "dot",
    ranking: Ranking = "mean",
    mass: float | None = None,
    enable_gqa: bool = False,
    backend: Backend = "auto",
) -> GPA:
    """GPA over the nodes of one graph (B, H, nodes, c).

    Groups come from heavy-edge matching, cells from coarsening on; see :meth:`.GraphDownsampler.from_edges` and
    :meth:`.GraphPartitioner.from_edges`. No group joins two components: an isolated node stays alone, a coarse key
    of its own that takes a place among the kappa.

    Args:
        edge_index: (2, e) pairs of nodes, in either or both directions.
        num_nodes: n, how many nodes there are.
        downsample: most nodes in a group.
        cells: cells of coarse nodes.
        kappa: relevant coarse nodes of each cell. A tuple has a number for each level, finest first, with the same
            ``downsample`` and ``cells`` divided by it on every further level.
        edge_weight: (e,) how strongly the nodes of an edge belong together; 1 by default.
        causal: only False, as a graph has no axis to be causal along. :func:`~gpa_nd.causal` takes positions of nodes.
        always: see :class:`GPA`.
        selection: see :class:`GPA`.
        unselected: see :class:`GPA`.
        scale: see :class:`GPA`.
        affinity: see :class:`GPA`.
        ranking: see :class:`GPA`.
        mass: see :class:`GPA`.
        enable_gqa: see :class:`GPA`.
        backend: see :class:`GPA`.

    Raises:
        TypeError: ``edge_index`` is not an integer tensor.
        ValueError: an index outside 0 … n−1, a number below 1, or a graph that is to be causal.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> ring = torch.stack([torch.arange(100), (torch.arange(100) + 1) % 100])
        >>> q, k, v = torch.randn(3, 1, 2, 100, 8)
        >>> gpa_nd.graph(ring, 100, downsample=4, cells=5)(q, k, v).shape
        torch.Size([1, 2, 100, 8])
    """
    if causal is not False:
        raise ValueError(
            f"causal: expected False, as a graph has no axis to be causal along, got {causal!r}; gpa_nd.causal takes "
            f"positions, such as the time of each node"
        )
    levels = len(kappa) if isinstance(kappa, tuple) else 1
    downsamplers, partitioners = [], []
    for level in range(levels):
        downsampler = GraphDownsampler.from_edges(edge_index, num_nodes, downsample, edge_weight)
        cells_here = -(-cells // downsample**level)
        partitioner = GraphPartitioner.from_edges(edge_index, downsampler, cells_here, edge_weight=edge_weight)
        downsamplers.append(downsampler)
        partitioners.append(partitioner)
        if level + 1 < levels:
            edge_index, edge_weight = coarse_edges(edge_index, downsampler.labels, edge_weight)
            num_nodes = downsampler.coarse_shape((num_nodes,))[0]
    return GPA(
        _alone(partitioners),
        _alone(downsamplers),
        kappa=kappa,
        always=always,
        selection=selection,
        unselected=unselected,
        scale=scale,
        affinity=affinity,
        ranking=ranking,
        mass=mass,
        enable_gqa=enable_gqa,
        backend=backend,
    )


def _grid(
    axes: int,
    downsample: PerAxis,
    cells: PerAxis,
    *,
    kappa: int | tuple[int, ...],
    causal: bool | tuple[bool, ...],
    always: Sequence[AlwaysOn],
    selection: Selection | None,
    unselected: Unselected,
    scale: float | None,
    affinity: Affinity,
    ranking: Ranking,
    mass: float | None,
    enable_gqa: bool,
    backend: Backend,
) -> GPA:
    factors, counts = _each("downsample", downsample, axes), _each("cells", cells, axes)
    levels = range(len(kappa) if isinstance(kappa, tuple) else 1)
    return GPA(
        _alone([GridPartitioner(_shrunk(counts, factors, level)) for level in levels]),
        _alone([GridDownsampler(factors) for _ in levels]),
        kappa=kappa,
        causal=causal,
        always=always,
        selection=selection,
        unselected=unselected,
        scale=scale,
        affinity=affinity,
        ranking=ranking,
        mass=mass,
        enable_gqa=enable_gqa,
        backend=backend,
    )


def _alone(operators: Sequence[Operator]) -> Operator | tuple[Operator, ...]:
    """The operators of all levels; of a single one, itself."""
    return operators[0] if len(operators) == 1 else tuple(operators)


def _shrunk(counts: tuple[int, ...], factors: tuple[int, ...], times: int) -> tuple[int, ...]:
    """As many cells as there are groups of cells."""
    return tuple(-(-count // factor**times) for count, factor in zip(counts, factors, strict=True))


def _each(name: str, value: PerAxis, axes: int) -> tuple[int, ...]:
    value = check_per_axis(name, value)
    numbers = (value,) * axes if isinstance(value, int) else value
    if len(numbers) != axes:
        raise ValueError(f"{name}: expected {axes} numbers, one for each axis, got {value}")
    return numbers
