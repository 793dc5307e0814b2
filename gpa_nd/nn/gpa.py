"""GPA: attention over a structure, as a module."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from types import SimpleNamespace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gpa_nd.always.base import AlwaysOn
from gpa_nd.engine import Affinity, Backend, Ranking, Unselected, gpa_attention
from gpa_nd.engine.arguments import (
    check_choices,
    check_key_bias,
    check_ranking,
    check_structured,
    check_unselected,
)
from gpa_nd.engine.learned import check_selection
from gpa_nd.global_keys import with_global_keys
from gpa_nd.layout import Layout
from gpa_nd.nn.packing import check_jagged, check_total, checked_pack, jagged
from gpa_nd.nn.structure import Shapes, Structure, check_axes, check_causal, check_operator, checked_levels
from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.partition import lasting
from gpa_nd.partitioners.base import Partitioner
from gpa_nd.selection.base import Selection

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
        causal: whether a query sees nothing that comes after it, for each axis of a grid, or for all of them. Strict:
            changes after a query do not sway its selection either. See :func:`~gpa_nd.causal`.
        always: coarse keys that cells attend to beside the κ: :mod:`gpa_nd.always` has neighbourhoods and sinks.
        selection: how coarse keys are weighed, with a gradient: one of :mod:`gpa_nd.selection`. By default the κ best
            ones are selected, as in the paper, and the choice has no gradient.
        unselected: ``"ignored"``, or ``"pooled"``: coarse keys that a cell may select and does not stand in the same
            softmax, each as the mean of its keys and values that counts for as many. It costs n_q · n_k' affinities.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        ranking: by what coarse keys are ranked for a cell, from cheap to good:

            - ``"mean"``: their means, as in the paper;
            - ``"rms"``: their means, made as long as the root mean square of the group's keys, which costs nothing;
            - ``"moments"``: their means, and how much the keys of a group differ on average over channels;
            - ``"rerank"``: first as ``"rms"``, by smaller groups of queries where groups are large; then the best
              3 · kappa coarse keys of each cell once more, by smaller parts of their groups.

            ``"rms"`` and ``"moments"`` are for ``affinity="dot"``, and backend ``"triton"`` has no ``"moments"``.
        mass: how much of a cell's attention in Phase 1, in (0, 1], its coarse keys shall hold together: the fewest that
            do are kept, at most ``kappa``. Those that are always on are kept, whatever they hold.
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.
        backend: ``"reference"``, ``"torch"``, ``"triton"``, or ``"auto"``, the fastest that can run.

    Raises:
        TypeError: an operator of another kind, or an argument of the wrong type.
        ValueError: ``kappa`` below 1, tuples of different lengths, a causal axis without a grid, a scale that is not
            finite, a mass outside (0, 1], a ranking that the affinity does not have, or an unknown choice.

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
        selection: Selection | None = None,
        unselected: Unselected = "ignored",
        scale: float | None = None,
        affinity: Affinity = "dot",
        ranking: Ranking = "mean",
        mass: float | None = None,
        enable_gqa: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        key_downsampler = downsampler if key_downsampler is None else key_downsampler
        levels = checked_levels(partitioner, downsampler, key_downsampler, kappa)
        key_upsampler = levels[0].key_downsampler.upsampler() if key_upsampler is None else key_upsampler
        check_operator("key_upsampler", key_upsampler, IndexUpsampler)
        check_choices(scale, affinity, backend)
        check_ranking(ranking, affinity, mass)
        check_causal(causal, levels)
        check_unselected(unselected)
        check_selection(selection, kappa[0] if isinstance(kappa, tuple) else kappa)
        if isinstance(always, AlwaysOn):
            raise TypeError(f"always: expected a sequence of them, got one {type(always).__name__}")
        for each in always:
            check_operator("always", each, AlwaysOn)
        self.partitioner, self.downsampler = partitioner, downsampler
        self.key_downsampler, self.key_upsampler = key_downsampler, key_upsampler
        self.kappa, self.scale, self.affinity = kappa, scale, affinity
        self.ranking, self.mass = ranking, mass
        self.enable_gqa, self.backend = enable_gqa, backend
        self.selection, self.unselected = selection, unselected
        self._structure = Structure(levels, key_upsampler, tuple(always), causal, parts=ranking == "rerank")
        self._kept = SimpleNamespace()  # layouts, the one that was asked for last at the end

    @property
    def causal(self) -> bool | tuple[bool, ...]:
        """The axes along which a query sees nothing after it."""
        return self._structure.causal

    @property
    def always(self) -> tuple[AlwaysOn, ...]:
        """What is attended to beside the selected coarse keys."""
        return self._structure.always

    def layout(
        self,
        query_shape: Shape,
        key_shape: Shape | None = None,
        device: torch.device | str = "cpu",
        *,
        global_keys: tuple[int, int] = (0, 0),
    ) -> Layout:
        """The layout for these shapes; the last few are kept.

        Args:
            query_shape: sizes of the axes of q between heads and channels.
            key_shape: those of k and v; as of the queries by default.
            device: where its tensors are to be.
            global_keys: how many keys stand before and after those of the structure, which every cell attends to, as
                :func:`~gpa_nd.with_global_keys` has them.

        Raises:
            TypeError: a shape that is no tuple.
            ValueError: a shape that an operator cannot divide, the message names the operator; or global keys of a
                causal structure.
        """
        key_shape = query_shape if key_shape is None else key_shape
        for name, shape in (("query_shape", query_shape), ("key_shape", key_shape)):
            if not isinstance(shape, tuple | list) or not all(hasattr(size, "__index__") for size in shape):
                raise TypeError(f"{name}: expected a tuple of ints, got {shape!r}")
        return self._layout((tuple(query_shape),), (tuple(key_shape),), device, global_keys)

    def packed_layout(
        self,
        query_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"],
        key_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"] | None = None,
        device: torch.device | str = "cpu",
    ) -> Layout:
        """The layout of several structures side by side, of which none sees another; the last few are kept.

        It says what :meth:`.Layout.concat` of the layouts of each says, but grids are made all at once.

        Args:
            query_shapes: the shape of each structure, or the offsets of sequences, as in :meth:`packed`.
            key_shapes: those of its keys; as of the queries by default.
            device: where its tensors are to be.

        Raises:
            TypeError: shapes that are no tuples of ints, or offsets that are no integers.
            ValueError: offsets that do not ascend from 0, no structure, not as many for keys as for queries, or a
                shape that an operator cannot divide; the message names the operator.

        Example:
            >>> import gpa_nd
            >>> gpa_nd.image(downsample=2, cells=2).packed_layout([(8, 6), (4, 10)])
            Layout(88 queries in 22 groups in 8 cells, 88 keys in 22 groups)
        """
        return self._layout(*checked_pack(query_shapes, key_shapes), device)

    def _layout(
        self,
        query_shapes: Shapes,
        key_shapes: Shapes,
        device: torch.device | str,
        global_keys: tuple[int, int] = (0, 0),
    ) -> Layout:
        return getattr(self._kept, self._keep(query_shapes, key_shapes, device, global_keys))  # type: ignore[no-any-return]

    def _keep(
        self, query_shapes: Shapes, key_shapes: Shapes, device: torch.device | str, global_keys: tuple[int, int]
    ) -> str:
        """Make the layout, unless it is there, and tell its name; forget the one that was not asked for the longest."""
        with lasting():
            device = torch.empty(0, device=device).device  # "cuda" is "cuda:0"
            name = f"{query_shapes} {key_shapes} {global_keys} {device}"
            layout = vars(self._kept).pop(name, None)
            if layout is None:
                layout = with_global_keys(self._structure.layout(query_shapes, key_shapes), *global_keys).to(device)
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
        attn_mask: None = None,
    ) -> Float[Tensor, "b h *query c_v"]:
        """Attend from every query to the keys that are relevant to its cell.

        Args:
            q: ``(B, H, *query_shape, c)`` queries; or, as k and v, a nested tensor of layout ``torch.jagged``, of
                sequences (H, length, c) as :func:`torch.nn.functional.scaled_dot_product_attention` takes them.
            k: ``(B, H, *key_shape, c)`` keys.
            v: ``(B, H, *key_shape, c_v)`` values.
            key_mask: ``(B, *key_shape)`` bool, False for keys that nobody sees, such as padding; padded queries still
                have a say in what their cell selects. Not broadcast.
            key_bias: ``(B, H_k, *key_shape)``, added to the affinities of each key; differentiable. Not broadcast.
            attn_mask: None. GPA has no mask of pairs; the error says what takes which mask.

        Returns:
            ``(B, H, *query_shape, c_v)``; zeros for a query without a visible key, as where k has none. Nested where
            q is.

        Raises:
            TypeError: not tensors of one floating point dtype.
            ValueError: shapes that do not fit one another or the operators.
        """
        if attn_mask is not None:
            raise ValueError(
                f"attn_mask: expected None, got {type(attn_mask).__name__}; which keys are seen goes to key_mask=, and "
                f"what is added to their affinities to key_bias=; causal=True of the GPA hides what comes later; "
                f"gpa_nd.nn.TokenAttention takes an attn_mask"
            )
        if any(isinstance(x, Tensor) and x.is_nested for x in (q, k, v)):
            return self._nested(q, k, v, key_mask, key_bias)
        check_structured({"q": q, "k": k, "v": v}, self.enable_gqa)
        check_axes(self._structure.levels[0], q, k)
        check_key_bias(key_mask, key_bias, k)
        # A layout belongs to these numbers: a compiler must take them for constants.
        query_shape, key_shape = (tuple(index(n) for n in x.shape[2:-1]) for x in (q, k))
        layout = self.layout(query_shape, key_shape, q.device)
        key_mask = None if key_mask is None else key_mask.flatten(1)
        key_bias = None if key_bias is None else key_bias.flatten(2)
        q, k, v = (x.flatten(2, -2) for x in (q, k, v))
        return torch.unflatten(self.by_layout(q, k, v, layout, key_mask=key_mask, key_bias=key_bias), 2, query_shape)

    def packed(
        self,
        q: Float[Tensor, "b h n_q c"],
        k: Float[Tensor, "b h_k n_k c"],
        v: Float[Tensor, "b h_k n_k c_v"],
        query_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"],
        key_shapes: Sequence[Shape] | Int[Tensor, " b_plus_1"] | None = None,
        *,
        key_mask: Bool[Tensor, "b n_k"] | None = None,
        key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    ) -> Float[Tensor, "b h n_q c_v"]:
        """Attend within each of many structures of different sizes, in one call and without padding.

        Elements of the structures stand one after another along one axis, each structure's row-major; in every other
        respect the tensors are those of :func:`~gpa_nd.gpa_attention`, so that heads, masks and biases mean the same. A
        pack is one batch entry (B = 1); with more of them, all are packed alike. κ counts in each structure.

        Args:
            q: (B, H, n_q, c) queries of all structures.
            k: (B, H, n_k, c) keys.
            v: (B, H, n_k, c_v) values.
            query_shapes: the shape of each structure, all with as many axes; or, for sequences, (structures + 1,) the
                offsets at which they start, and the end, as nested jagged tensors have them: 0 first and ascending.
            key_shapes: those of the keys of each structure; as of the queries by default.
            key_mask: (B, n_k) bool, False for keys that nobody sees; their queries still have a say in what their cell
                selects. Not broadcast.
            key_bias: (B, H_k, n_k), added to the affinities of each key; differentiable. Not broadcast.

        Returns:
            (B, H, n_q, c_v); zeros for a query without a visible key, such as those of a structure without keys.

        Raises:
            TypeError: as :meth:`packed_layout`, or not tensors of one floating point dtype.
            ValueError: as :meth:`packed_layout`, or shapes and tensors that do not add up.

        Example:
            >>> import torch
            >>> import gpa_nd
            >>> sequences = gpa_nd.audio(downsample=4, cells=4, kappa=2)
            >>> q, k, v = torch.randn(3, 1, 2, 5 + 30 + 12, 16)
            >>> out = sequences.packed(q, k, v, torch.tensor([0, 5, 35, 47]))
            >>> torch.allclose(out[:, :, 5:35], sequences(*(x[:, :, 5:35] for x in (q, k, v))), atol=1e-6)
            True
            >>> images = gpa_nd.image(downsample=2, cells=2, kappa=2)
            >>> images.packed(q, k, v, [(5, 7), (3, 4)]).shape
            torch.Size([1, 2, 47, 16])
        """
        check_structured({"q": q, "k": k, "v": v}, self.enable_gqa)
        queries, keys = checked_pack(query_shapes, key_shapes)
        check_total("query_shapes", queries, "q", q)
        check_total("query_shapes" if key_shapes is None else "key_shapes", keys, "k", k)
        layout = self._layout(queries, keys, q.device)
        return self.by_layout(q, k, v, layout, key_mask=key_mask, key_bias=key_bias)

    def by_layout(
        self,
        q: Float[Tensor, "b h n_q c"],
        k: Float[Tensor, "b h_k n_k c"],
        v: Float[Tensor, "b h_k n_k c_v"],
        layout: Layout,
        *,
        key_mask: Bool[Tensor, "b n_k"] | None = None,
        key_bias: Float[Tensor, "b h_k n_k"] | None = None,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Float[Tensor, "b h n_q c_v"]:
        """Attend as a layout says, with the settings of this module: :func:`~gpa_nd.gpa_attention` with its κ and all.

        Args:
            q: (B, H, n_q, c) queries along one axis.
            k: (B, H_k, n_k, c) keys.
            v: (B, H_k, n_k, c_v) values.
            layout: of these queries and keys, as :meth:`layout` or :meth:`packed_layout` makes it.
            key_mask: (B, n_k) bool, False for keys that nobody sees. Not broadcast.
            key_bias: (B, H_k, n_k), added to the affinities of each key; differentiable. Not broadcast.
            scale: factor of the affinity of this call; the module's own by default.
            enable_gqa: k and v may have fewer heads, also where the module does not say so.

        Raises:
            TypeError: as :func:`~gpa_nd.gpa_attention`.
            ValueError: as that, where tensors are not those of the layout.

        Example:
            >>> import torch
            >>> import gpa_nd
            >>> gpa = gpa_nd.audio(downsample=2, cells=2, kappa=2)
            >>> layout = gpa.layout((12,), (12,), global_keys=(1, 0))         # a class token among the keys
            >>> q, k, v = torch.randn(3, 1, 2, 13, 8)
            >>> gpa.by_layout(q[:, :, 1:], k, v, layout).shape
            torch.Size([1, 2, 12, 8])
        """
        return gpa_attention(
            q,
            k,
            v,
            layout,
            kappa=self.kappa,
            key_mask=key_mask,
            key_bias=key_bias,
            selection=self.selection,
            unselected=self.unselected,
            scale=self.scale if scale is None else scale,
            affinity=self.affinity,
            ranking=self.ranking,
            mass=self.mass,
            enable_gqa=self.enable_gqa or enable_gqa,
            backend=self.backend,
        )

    def _nested(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """Jagged nested tensors, sequence by sequence."""
        if key_mask is not None or key_bias is not None:
            raise ValueError(
                "key_mask and key_bias: expected None with nested tensors, got one; GPA.packed takes them, with "
                "x.values()[None] for each tensor and x.offsets()"
            )
        check_jagged({"q": q, "k": k, "v": v})
        of_q, of_k, of_v = (x.offsets() for x in (q, k, v))  # type: ignore[attr-defined]
        if not torch.equal(of_k, of_v):
            raise ValueError("v: expected the offsets that k has, got others")
        q, k, v = (x.values()[None] for x in (q, k, v))
        return jagged(self.packed(q, k, v, of_q, of_k), of_q)

    def extra_repr(self) -> str:
        """What the module was made with."""
        more = "" if self.key_downsampler is self.downsampler else f"key_downsampler={self.key_downsampler}, "
        more += f"kappa={self.kappa}, "
        more += f"causal={self.causal}, " if self.causal else ""
        more += f"always={list(self.always)}, " if self.always else ""
        more += f"mass={self.mass}, " if self.mass is not None else ""
        more += f"selection={self.selection}, " if self.selection else ""
        more += f"unselected={self.unselected!r}, " if self.unselected != "ignored" else ""
        more += "enable_gqa=True, " if self.enable_gqa else ""
        return (
            f"{self.partitioner}, {self.downsampler}, {more}scale={self.scale}, affinity={self.affinity!r}, "
            f"ranking={self.ranking!r}, backend={self.backend!r}"
        )

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles make their layouts anew."""
        return {**self.__dict__, "_kept": SimpleNamespace()}
