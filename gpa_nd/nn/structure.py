"""What the operators of a GPA make of its structures: the layout, for one of them or for several side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn, check_table, table_of
from gpa_nd.causal import causal
from gpa_nd.checks import check_int, kind_of
from gpa_nd.layout import Layout
from gpa_nd.ops.asked import coarse_shapes_of
from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.ops.grid import GridDownsampler, PackedPlaces, PerAxis
from gpa_nd.partition import Partition
from gpa_nd.partitioners.base import Partitioner
from gpa_nd.partitioners.grid import GridPartitioner

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Level:
    """The operators of one level."""

    partitioner: Partitioner
    downsampler: Downsampler
    key_downsampler: Downsampler


@dataclass(frozen=True)
class Structure:
    """The operators of all levels, finest first, and what else decides who sees whom.

    Attributes:
        levels: partitioner and downsamplers of each level.
        key_upsampler: the elements under a coarse key of the finest level.
        always: what is attended to beside the selected coarse keys.
        causal: the axes along which a query sees nothing after it, as :class:`~gpa_nd.GPA` takes them.
        parts: whether layouts have parts of groups, which ``ranking="rerank"`` compares.
    """

    levels: tuple[Level, ...]
    key_upsampler: IndexUpsampler
    always: tuple[AlwaysOn, ...]
    causal: bool | tuple[bool, ...]
    parts: bool

    def layout(self, query_shapes: Shapes, key_shapes: Shapes) -> Layout:
        """The layout of structures of these shapes side by side; no structure sees another.

        Raises:
            ValueError: a shape that an operator cannot divide; the message names the operator.
        """
        layout = self._level(0, query_shapes, key_shapes)
        if self.always:
            layout = replace(layout, always=self._always_on(layout, query_shapes, key_shapes))
        axes = [axis for axis, is_causal in enumerate(per_axis(self.causal, len(query_shapes[0]))) if is_causal]
        return self._causal(layout, query_shapes, key_shapes, axes) if axes else layout

    def _level(self, level: int, query_shapes: Shapes, key_shapes: Shapes) -> Layout:
        """The layout of a level, with those above it."""
        operators, operator = self.levels[level], "downsampler"
        upsampler = self.key_upsampler if level == 0 else operators.key_downsampler.upsampler()
        try:
            query_groups = operators.downsampler.packed_groups(query_shapes)
            coarse_queries = coarse_shapes_of(operators.downsampler.coarse_shape, query_shapes, len(query_groups))
            operator = "partitioner"
            query_cells = operators.partitioner.packed_cells(coarse_queries)
            operator = "key_downsampler"
            key_groups = query_groups
            if (operators.key_downsampler, key_shapes) != (operators.downsampler, query_shapes):
                key_groups = operators.key_downsampler.packed_groups(key_shapes)
            coarse_keys = coarse_shapes_of(operators.key_downsampler.coarse_shape, key_shapes, len(key_groups))
            operator = "key_upsampler"
            key_members = upsampler.packed_members(key_shapes)
            operator, query_parts, key_parts = "downsampler", None, None
            if self.parts:
                query_parts = operators.downsampler.packed_parts(query_shapes)
                key_parts = operators.key_downsampler.packed_parts(key_shapes)
        except ValueError as error:
            where = "sizes without batch, heads and channels"
            if level:
                where = f"which is what level {level} leaves of them"
            raise ValueError(
                f"{operator}: does not fit queries of shape {_short(query_shapes)} and keys of shape "
                f"{_short(key_shapes)}, {where}: {error}"
            ) from error
        device = query_groups.order.device
        coarser = None if level + 1 == len(self.levels) else self._level(level + 1, coarse_queries, coarse_keys)
        query_cells = query_cells.to(device)
        return Layout(
            query_groups,
            query_cells,
            key_groups.to(device),
            key_members.to(device),
            None if len(query_shapes) == 1 else _own_keys(query_cells, coarse_queries, coarse_keys),
            query_groups.then(query_cells),
            coarser=None if coarser is None else coarser.to(device),
            query_parts=None if query_parts is None else query_parts.to(device),
            key_parts=None if key_parts is None else key_parts.to(device),
        )

    def _always_on(self, layout: Layout, query_shapes: Shapes, key_shapes: Shapes) -> Int[Tensor, "m a"]:
        """The coarse keys that any of ``always`` names."""
        cells, keys = layout.fine_cells, self.levels[0].key_downsampler
        tables = [each.packed_keys(cells, query_shapes, keys, key_shapes) for each in self.always]
        for each, table in zip(self.always, tables, strict=True):
            check_table(each, table, len(cells), len(layout.key_groups))
        table = torch.cat([table.to(layout.device) for table in tables], dim=-1)
        cell, place = (table >= 0).nonzero(as_tuple=True)
        return table_of(cell, table[cell, place], len(cells))

    def _causal(self, layout: Layout, query_shapes: Shapes, key_shapes: Shapes, axes: list[int]) -> Layout:
        """The layout in which no query sees a key after it along these axes."""
        for query_shape, key_shape in zip(query_shapes, key_shapes, strict=True):
            if any(key_shape[axis : axis + 1] != query_shape[axis : axis + 1] for axis in axes):
                raise ValueError(
                    f"causal: expected keys as long as queries along axes {axes}, got queries of shape {query_shape} "
                    f"and keys of shape {key_shape}; gpa_nd.causal takes positions"
                )
        before, shapes = [], query_shapes
        for level in self.levels:
            shapes = _each(level.downsampler.coarse_shape, shapes)
            assert isinstance(level.partitioner, GridPartitioner)
            before.append(level.partitioner.cells_before(shapes, axes))
        of_queries, of_keys = (_positions(shapes, axes).to(layout.device) for shapes in (query_shapes, key_shapes))
        return causal(layout, of_queries, of_keys, before)


def checked_levels(
    partitioner: object, downsampler: object, key_downsampler: object, kappa: object
) -> tuple[Level, ...]:
    """The operators level by level.

    Raises:
        TypeError: an operator of another kind, or a kappa that is no int.
        ValueError: tuples of different lengths, or a kappa below 1.
    """
    if not isinstance(kappa, int | tuple) or kappa == ():
        raise TypeError(f"kappa: expected an int or a tuple of ints, one for each level, got {kappa!r}")
    given = {"partitioner": partitioner, "downsampler": downsampler, "key_downsampler": key_downsampler}
    kinds = {"partitioner": Partitioner, "downsampler": Downsampler, "key_downsampler": Downsampler}
    each = {name: value if isinstance(value, tuple) else (value,) for name, value in given.items()}
    for name, values in each.items():
        for value in values:
            check_operator(name, value, kinds[name])
    levels = len(each["partitioner"])
    kappas = kappa if isinstance(kappa, tuple) else (kappa,) * levels
    for number in kappas:
        check_int("kappa", number, at_least=1)
    for name, count in ((name, len(values)) for name, values in (*each.items(), ("kappa", kappas))):
        if count != levels or not count:
            expected = f"one for each of {levels} levels, as partitioner has" if levels else "at least one"
            raise ValueError(f"{name}: expected {expected}, got {count}")
    return tuple(Level(*operators) for operators in zip(*each.values(), strict=True))


def check_causal(causal: object, levels: tuple[Level, ...]) -> None:
    """Which axes are causal, all of them those of a grid.

    Raises:
        TypeError: neither a bool nor a tuple of bools.
        ValueError: a causal axis without a grid, or another number of axes than an operator of the queries has.
    """
    each = causal if isinstance(causal, tuple) else (causal,)
    if not each or not all(isinstance(is_causal, bool) for is_causal in each):
        raise TypeError(f"causal: expected a bool or a tuple of bools, one per axis, got {causal!r}")
    if isinstance(causal, tuple):
        operators = (operator for level in levels for operator in (level.partitioner, level.downsampler))
        for axes in filter(None, map(axes_of, operators)):
            per_axis(causal, axes)
    if not any(each):
        return
    for level in levels:
        for operator in (level.partitioner, level.downsampler, level.key_downsampler):
            if not isinstance(operator, GridPartitioner | GridDownsampler):
                raise ValueError(
                    f"causal: expected operators of a grid, got {type(operator).__name__}, which has no axis to be "
                    f"causal along; gpa_nd.causal takes positions"
                )


def axes_of(operator: Partitioner | Downsampler) -> int | None:
    """How many axes an operator is for, as far as one of a grid tells."""
    told: PerAxis = 1
    if isinstance(operator, GridPartitioner):
        told = operator.cells_per_axis
    elif isinstance(operator, GridDownsampler):
        told = operator.factor
    return len(told) if isinstance(told, tuple) else None


def check_axes(level: Level, q: Tensor, k: Tensor) -> None:
    """Tensors (B, H, *shape, channels) with as many axes as the operators of a level are for, as far as these tell.

    Raises:
        ValueError: another number of axes, as where heads are missing.
    """
    of_queries = axes_of(level.downsampler) or axes_of(level.partitioner)
    for name, x, axes in (("q", q, of_queries), ("k", k, axes_of(level.key_downsampler))):
        if axes is not None and x.ndim != axes + 3:
            of = "1 axis" if axes == 1 else f"{axes} axes"
            sizes = {1: "length", 2: "height, width", 3: "time, height, width"}.get(axes, f"{axes} sizes")
            raise ValueError(
                f"{name}: expected (batch, heads, {sizes}, channels) for a grid of {of}, got shape {tuple(x.shape)}"
            )


def per_axis(causal: bool | tuple[bool, ...], axes: int) -> tuple[bool, ...]:
    """Whether each axis is causal.

    Raises:
        ValueError: another number of axes.
    """
    if isinstance(causal, bool):
        return (causal,) * axes
    if axes != len(causal):
        raise ValueError(f"causal: expected one bool for each of {axes} axes, got {causal}")
    return causal


def check_operator(name: str, operator: object, kind: type) -> None:
    """An operator of this kind.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(operator, kind):
        raise TypeError(f"{name}: expected an instance of {kind.__name__}, got {kind_of(operator)}")


def _each(coarse_shape: Callable[[Shape], tuple[int, ...]], shapes: Shapes) -> Shapes:
    coarse = {shape: coarse_shape(shape) for shape in set(shapes)}
    return tuple(coarse[shape] for shape in shapes)


def _own_keys(query_cells: Partition, coarse_queries: Shapes, coarse_keys: Shapes) -> Int[Tensor, "m 2"]:
    """The coarse keys of the structure that each cell belongs to."""
    queries, keys = (torch.tensor([prod(shape) for shape in shapes]) for shapes in (coarse_queries, coarse_keys))
    ranges = torch.stack([keys.cumsum(0) - keys, keys.cumsum(0)], dim=1).to(query_cells.order.device)
    structure = torch.arange(len(queries)).repeat_interleave(queries).to(ranges.device)
    return ranges[structure[query_cells.order[query_cells.offsets[:-1]]]]


def _positions(shapes: Shapes, axes: list[int]) -> Int[Tensor, "n axes"]:
    along = PackedPlaces(shapes).along
    return torch.stack([along[axis] for axis in axes], dim=-1)


def _short(shapes: Shapes) -> str:
    """The shapes in an error message."""
    return " and ".join(map(str, shapes)) if len(shapes) < 4 else f"{shapes[0]} and {len(shapes) - 1} more"
