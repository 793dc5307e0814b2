"""GPA: attention over a structure, as a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from types import SimpleNamespace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gpa_nd.always.base import AlwaysOn, table_of
from gpa_nd.causal import causal
from gpa_nd.checks import check_int
from gpa_nd.engine import Affinity, Backend, gpa_attention
from gpa_nd.engine.arguments import check_choices, check_key_bias, check_structured
from gpa_nd.layout import Layout
from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.ops.grid import GridDownsampler
from gpa_nd.partition import lasting
from gpa_nd.partitioners.base import Partitioner
from gpa_nd.partitioners.grid import GridPartitioner

LAYOUTS_KEPT = 8


class GPA(nn.Module):
    """Grid Partitioned Attention (Algorithm 1) for the geometry of its operators. It has no weights.

    Args:
        partitioner: the cells of coarse queries that share a relevant key set (Definition 3). A tuple has one for each
            level, finest first: Phase 1 is then done by GPA itself, so that the cost grows almost linearly.
        downsampler: the groups of queries, and of keys where ``key_downsampler`` is not given (Definition 1). A tuple
            has one for each level; the second one groups the groups of the first.
        key_downsampler: the groups of keys, where keys live on another structure than queries; a tuple as above.
        key_upsampler: the elements under a coarse key that Phase 2 attends to (Definition 2, line 15); by default
            ``key_downsampler.upsampler()``, which fills densely.
        kappa: relevant coarse keys of each cell; at or above their number, the result is dense attention exactly. A
            tuple has a number for each level, finest first; an int means the same at every level.
        causal: whether a query sees only what does not stand behind it, for each axis of a grid, or for all of them.
            Strict: changes behind a query do not sway its selection either. See :func:`~gpa_nd.causal`.
        always: coarse keys that cells attend to beside the κ: :mod:`gpa_nd.always` has neighbourhoods and sinks.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Raises:
        TypeError: an operator of another kind, or an argument of the wrong type.
        ValueError: ``kappa`` below 1, tuples of different lengths, a causal axis without a grid, a scale that is not
            finite, an unknown affinity or backend.

    Example:
        >>> import torch
        >>> from gpa_nd import GPA
        >>> from gpa_nd.ops import GridDownsampler
        >>> from gpa_nd.partitioners import GridPartitioner
        >>> gpa = GPA(GridPartitioner((8, 8)), GridDownsampler(4), kappa=12)
        >>> q, k, v = torch.randn(3, 1, 1, 64, 48, 32)      # (batch, heads, height, width, channels)
        >>> gpa(q, k, v).shape
        torch.Size([1, 1, 64, 48, 32])
    """

    def __init__(
        self,
        partitioner: Partitioner | tuple[Partitioner, ...],
        downsampler: Downsampler | tuple[Downsampler, ...],
        *,
        key_downsampler: Downsampler | tuple[Downsampler, ...] | None = None,
        key_upsampler: IndexUpsampler | None = None,
        kappa: int | tuple[int, ...],
        causal: bool | tuple[bool, ...] = False,
        always: Sequence[AlwaysOn] = (),
        scale: float | None = None,
        affinity: Affinity = "dot",
        enable_gqa: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        key_downsampler = downsampler if key_downsampler is None else key_downsampler
        self._levels = _levels(partitioner, downsampler, key_downsampler, kappa)
        finest = self._levels[0]
        key_upsampler = finest.key_downsampler.upsampler() if key_upsampler is None else key_upsampler
        _check_operator("key_upsampler", key_upsampler, IndexUpsampler)
        check_choices(scale, affinity, backend)
        _check_causal(causal, self._levels)
        for each in always:
            _check_operator("always", each, AlwaysOn)
        self.partitioner, self.downsampler = partitioner, downsampler
        self.key_downsampler, self.key_upsampler = key_downsampler, key_upsampler
        self.kappa, self.causal, self.always = kappa, causal, tuple(always)
        self.scale, self.affinity = scale, affinity
        self.enable_gqa, self.backend = enable_gqa, backend
        self._kept = SimpleNamespace()  # layouts, the one that was asked for last at the end

    def layout(self, query_shape: Shape, key_shape: Shape, device: torch.device | str = "cpu") -> Layout:
        """The layout for these shapes; the last few are kept.

        Args:
            query_shape: sizes of the axes of q between heads and channels.
            key_shape: those of k and v.
            device: where its tensors are to be.

        Raises:
            TypeError: a shape that is no tuple.
            ValueError: a shape that an operator cannot divide; the message names the operator.
        """
        return getattr(self._kept, self._keep(query_shape, key_shape, device))  # type: ignore[no-any-return]

    def _keep(self, query_shape: Shape, key_shape: Shape, device: torch.device | str) -> str:
        """Make the layout, unless it is there, and tell its name; forget the one that was not asked for the longest."""
        for name, shape in (("query_shape", query_shape), ("key_shape", key_shape)):
            if not isinstance(shape, tuple | list):
                raise TypeError(f"{name}: expected a tuple of ints, got {shape!r}")
        with lasting():
            device = torch.empty(0, device=device).device  # "cuda" is "cuda:0"
            name = f"{tuple(query_shape)} {tuple(key_shape)} {device}"
            layout = vars(self._kept).pop(name, None) or self._make_layout(tuple(query_shape), tuple(key_shape), device)
            setattr(self._kept, name, layout)
        if len(names := list(vars(self._kept))) > LAYOUTS_KEPT:
            delattr(self._kept, names[0])
        return name

    # To a compiler the name is a constant, and the layout an attribute. The mark is what torch.compiler's decorator
    # assume_constant_result leaves; the decorator itself takes a second to import the compiler.
    _keep._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def forward(
        self,
        q: Float[Tensor, "b h *query c"],
        k: Float[Tensor, "b h_k *key c"],
        v: Float[Tensor, "b h_k *key c_v"],
        *,
        key_mask: Bool[Tensor, " b *key"] | None = None,
        key_bias: Float[Tensor, "b h_k *key"] | None = None,
    ) -> Float[Tensor, "b h *query c_v"]:
        """Attend from every query to the keys that are relevant to its cell.

        Args:
            q: ``(B, H, *query_shape, c)`` queries.
            k: ``(B, H, *key_shape, c)`` keys.
            v: ``(B, H, *key_shape, c_v)`` values.
            key_mask: ``(B, *key_shape)`` bool, False for keys that nobody sees, such as padding.
            key_bias: ``(B, H_k, *key_shape)``, added to the affinities of each key; differentiable.

        Returns:
            ``(B, H, *query_shape, c_v)``; zeros for a query without a visible key.

        Raises:
            TypeError: not tensors of one floating point dtype.
            ValueError: shapes that do not fit one another or the operators.
        """
        check_structured({"q": q, "k": k, "v": v}, self.enable_gqa)
        check_key_bias(key_mask, key_bias, k)
        # A layout belongs to these numbers: a compiler must take them for constants.
        query_shape, key_shape = (tuple(index(n) for n in x.shape[2:-1]) for x in (q, k))
        layout = self.layout(query_shape, key_shape, q.device)
        q, k, v = (x.flatten(2, -2) for x in (q, k, v))
        out = gpa_attention(
            q,
            k,
            v,
            layout,
            kappa=self.kappa,
            key_mask=None if key_mask is None else key_mask.flatten(1),
            key_bias=None if key_bias is None else key_bias.flatten(2),
            scale=self.scale,
            affinity=self.affinity,
            enable_gqa=self.enable_gqa,
            backend=self.backend,
        )
        return torch.unflatten(out, 2, query_shape)

    def extra_repr(self) -> str:
        """What the module was made with."""
        more = "" if self.key_downsampler is self.downsampler else f"key_downsampler={self.key_downsampler}, "
        more += f"kappa={self.kappa}, "
        more += f"causal={self.causal}, " if any(_per_axis(self.causal, 1)) else ""
        more += f"always={list(self.always)}, " if self.always else ""
        return (
            f"{self.partitioner}, {self.downsampler}, {more}scale={self.scale}, affinity={self.affinity!r}, "
            f"backend={self.backend!r}"
        )

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles make their layouts anew."""
        return {**self.__dict__, "_kept": SimpleNamespace()}

    def _make_layout(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: torch.device) -> Layout:
        layout = self._level(0, query_shape, key_shape)
        if self.always:
            layout = replace(layout, always=self._always_on(layout, query_shape, key_shape))
        axes = [axis for axis, is_causal in enumerate(_per_axis(self.causal, len(query_shape))) if is_causal]
        if axes:
            layout = self._causal(layout, query_shape, key_shape, axes)
        return layout.to(device)

    def _level(self, level: int, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Layout:
        """The layout of a level, with those above it."""
        operators, operator = self._levels[level], "downsampler"
        upsampler = self.key_upsampler if level == 0 else operators.key_downsampler.upsampler()
        try:
            query_groups = operators.downsampler.groups(query_shape)
            coarse_queries = operators.downsampler.coarse_shape(query_shape)
            operator = "partitioner"
            query_cells = operators.partitioner.cells(coarse_queries)
            operator = "key_downsampler"
            key_groups = operators.key_downsampler.groups(key_shape)
            coarse_keys = operators.key_downsampler.coarse_shape(key_shape)
            operator = "key_upsampler"
            key_members = upsampler.members(key_shape)
        except ValueError as error:
            where = "which are the axes of q and k between (batch, heads) and channels"
            if level:
                where = f"which is what level {level} leaves of them"
            raise ValueError(
                f"{operator}: does not fit queries of shape {query_shape} and keys of shape {key_shape}, {where}: "
                f"{error}"
            ) from error
        device = query_groups.order.device
        coarser = None if level + 1 == len(self._levels) else self._level(level + 1, coarse_queries, coarse_keys)
        return Layout(
            query_groups,
            query_cells.to(device),
            key_groups.to(device),
            key_members.to(device),
            fine_cells=query_groups.then(query_cells.to(device)),
            coarser=None if coarser is None else coarser.to(device),
        )

    def _always_on(self, layout: Layout, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Tensor:
        """The coarse keys that any of ``always`` names, (m, a)."""
        cells, keys = layout.fine_cells, self._levels[0].key_downsampler
        tables = [each.keys(cells, query_shape, keys, key_shape).to(layout.device) for each in self.always]
        table = torch.cat(tables, dim=-1)
        cell, place = (table >= 0).nonzero(as_tuple=True)
        return table_of(cell, table[cell, place], len(cells))

    def _causal(
        self, layout: Layout, query_shape: tuple[int, ...], key_shape: tuple[int, ...], axes: list[int]
    ) -> Layout:
        """The layout in which no query sees a key behind it along these axes."""
        if any(key_shape[axis : axis + 1] != query_shape[axis : axis + 1] for axis in axes):
            raise ValueError(
                f"causal: expected keys as long as queries along axes {axes}, got queries of shape {query_shape} and "
                f"keys of shape {key_shape}; gpa_nd.causal takes positions"
            )
        before, shape = [], query_shape
        for level in self._levels:
            shape = level.downsampler.coarse_shape(shape)
            assert isinstance(level.partitioner, GridPartitioner)
            before.append(level.partitioner.cells_before(shape, axes))
        of_queries, of_keys = (
            torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"), dim=-1)
            .view(-1, len(shape))[:, axes]
            .to(layout.device)
            for shape in (query_shape, key_shape)
        )
        return causal(layout, of_queries, of_keys, before)


@dataclass(frozen=True)
class _Level:
    """The operators of one level."""

    partitioner: Partitioner
    downsampler: Downsampler
    key_downsampler: Downsampler


def _levels(partitioner: object, downsampler: object, key_downsampler: object, kappa: object) -> tuple[_Level, ...]:
    """The operators level by level, checked."""
    given = {"partitioner": partitioner, "downsampler": downsampler, "key_downsampler": key_downsampler}
    kinds = {"partitioner": Partitioner, "downsampler": Downsampler, "key_downsampler": Downsampler}
    each = {name: value if isinstance(value, tuple) else (value,) for name, value in given.items()}
    for name, values in each.items():
        for value in values:
            _check_operator(name, value, kinds[name])
    levels = len(each["partitioner"])
    kappas = kappa if isinstance(kappa, tuple) else (kappa,) * levels
    for number in kappas:
        check_int("kappa", number, at_least=1)
    for name, count in ((name, len(values)) for name, values in (*each.items(), ("kappa", kappas))):
        if count != levels or not count:
            raise ValueError(f"{name}: expected one for each of {levels} levels, as partitioner has, got {count}")
    return tuple(_Level(*operators) for operators in zip(*each.values(), strict=True))


def _check_causal(causal: object, levels: tuple[_Level, ...]) -> None:
    each = causal if isinstance(causal, tuple) else (causal,)
    if not each or not all(isinstance(is_causal, bool) for is_causal in each):
        raise TypeError(f"causal: expected a bool or a tuple of bools, one per axis, got {causal!r}")
    if not any(each):
        return
    for level in levels:
        for operator in (level.partitioner, level.downsampler, level.key_downsampler):
            if not isinstance(operator, GridPartitioner | GridDownsampler):
                raise ValueError(
                    f"causal: expected operators of a grid, whose axes have an order, got "
                    f"{type(operator).__name__}; gpa_nd.causal takes positions"
                )


def _per_axis(causal: bool | tuple[bool, ...], axes: int) -> tuple[bool, ...]:
    if isinstance(causal, bool):
        return (causal,) * axes
    if axes != len(causal) and axes > 1:
        raise ValueError(f"causal: expected one bool for each of {axes} axes, got {causal}")
    return causal


def _check_operator(name: str, operator: object, kind: type) -> None:
    if not isinstance(operator, kind):
        raise TypeError(f"{name}: expected an instance of {kind.__name__}, got {type(operator).__name__}")
