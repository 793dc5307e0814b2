"""GPA: attention over a structure, as a module."""

from __future__ import annotations

from operator import index
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gpa_nd.checks import check_int
from gpa_nd.engine import Affinity, Backend, gpa_attention
from gpa_nd.engine.arguments import check_choices, check_structured
from gpa_nd.layout import Layout
from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.partition import lasting
from gpa_nd.partitioners.base import Partitioner

LAYOUTS_KEPT = 8


class GPA(nn.Module):
    """Grid Partitioned Attention (Algorithm 1) for the geometry of its operators. It has no weights.

    Args:
        partitioner: the cells of coarse queries that share a relevant key set (Definition 3).
        downsampler: the groups of queries, and of keys where ``key_downsampler`` is not given (Definition 1).
        key_downsampler: the groups of keys, where keys live on another structure than queries.
        key_upsampler: the elements under a coarse key that Phase 2 attends to (Definition 2, line 15); by default
            ``key_downsampler.upsampler()``, which fills densely.
        kappa: relevant coarse keys of each cell; at or above their number, the result is dense attention exactly.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Raises:
        TypeError: an operator of another kind, or an argument of the wrong type.
        ValueError: ``kappa`` below 1, a scale that is not finite, an unknown affinity or backend.

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
        partitioner: Partitioner,
        downsampler: Downsampler,
        *,
        key_downsampler: Downsampler | None = None,
        key_upsampler: IndexUpsampler | None = None,
        kappa: int,
        scale: float | None = None,
        affinity: Affinity = "dot",
        enable_gqa: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        _check_operator("partitioner", partitioner, Partitioner)
        _check_operator("downsampler", downsampler, Downsampler)
        key_downsampler = downsampler if key_downsampler is None else key_downsampler
        _check_operator("key_downsampler", key_downsampler, Downsampler)
        key_upsampler = key_downsampler.upsampler() if key_upsampler is None else key_upsampler
        _check_operator("key_upsampler", key_upsampler, IndexUpsampler)
        check_int("kappa", kappa, at_least=1)
        check_choices(scale, affinity, backend)
        self.partitioner, self.downsampler = partitioner, downsampler
        self.key_downsampler, self.key_upsampler = key_downsampler, key_upsampler
        self.kappa, self.scale, self.affinity = kappa, scale, affinity
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
        self, q: Float[Tensor, "b h *query c"], k: Float[Tensor, "b h_k *key c"], v: Float[Tensor, "b h_k *key c_v"]
    ) -> Float[Tensor, "b h *query c_v"]:
        """Attend from every query to the keys that are relevant to its cell.

        Args:
            q: ``(B, H, *query_shape, c)`` queries.
            k: ``(B, H, *key_shape, c)`` keys.
            v: ``(B, H, *key_shape, c_v)`` values.

        Returns:
            ``(B, H, *query_shape, c_v)``.

        Raises:
            TypeError: not tensors of one floating point dtype.
            ValueError: shapes that do not fit one another or the operators.
        """
        check_structured({"q": q, "k": k, "v": v}, self.enable_gqa)
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
            scale=self.scale,
            affinity=self.affinity,
            enable_gqa=self.enable_gqa,
            backend=self.backend,
        )
        return torch.unflatten(out, 2, query_shape)

    def extra_repr(self) -> str:
        """What the module was made with."""
        keys = "" if self.key_downsampler is self.downsampler else f"key_downsampler={self.key_downsampler}, "
        return (
            f"{self.partitioner}, {self.downsampler}, {keys}kappa={self.kappa}, scale={self.scale}, "
            f"affinity={self.affinity!r}, backend={self.backend!r}"
        )

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles make their layouts anew."""
        return {**self.__dict__, "_kept": SimpleNamespace()}

    def _make_layout(self, query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: torch.device) -> Layout:
        operator = "downsampler"
        try:
            query_groups = self.downsampler.groups(query_shape)
            coarse_shape = self.downsampler.coarse_shape(query_shape)
            operator = "partitioner"
            query_cells = self.partitioner.cells(coarse_shape)
            operator = "key_downsampler"
            key_groups = self.key_downsampler.groups(key_shape)
            operator = "key_upsampler"
            key_members = self.key_upsampler.members(key_shape)
        except ValueError as error:
            raise ValueError(
                f"{operator}: does not fit queries of shape {query_shape} and keys of shape {key_shape}, which are the "
                f"axes of q and k between (batch, heads) and channels: {error}"
            ) from error
        fine_cells = query_groups.then(query_cells.to(query_groups.order.device))
        return Layout(
            query_groups.to(device),
            query_cells.to(device),
            key_groups.to(device),
            key_members.to(device),
            fine_cells=fine_cells.to(device),
        )


def _check_operator(name: str, operator: object, kind: type) -> None:
    if not isinstance(operator, kind):
        raise TypeError(f"{name}: expected an instance of {kind.__name__}, got {type(operator).__name__}")
