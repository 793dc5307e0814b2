"""Rows for the laws of attention that does not see everything: other domains, packed, causal, masked, with keys that
are always on, with several levels. To test a structure of your own, add a row: its layout, and who sees whom.

Layouts have parts of groups, so that every ranking can be tested on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import gpa_nd
from gpa_nd import GPA, Layout
from gpa_nd.always import GlobalElements, GraphNeighbourhood, GridNeighbourhood
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner

BATCH, KEY_HEADS = 2, 2


@dataclass(frozen=True)
class Row:
    """Attention between two structures.

    Attributes:
        name: What the test is called.
        layout: Makes the layout.
        seen: (n_q, n_k) who sees whom, said without the library.
        levels: How many times keys are selected.
        mask: Whether some keys are masked: a whole group, all keys of one batch entry, and others.
        bias: Whether keys have a bias.
        heads: Query heads; twice as many as key heads where they share.
        shapes: Those of structures side by side, where queries and keys lie on the same grids.
        causal: The axes along which nothing later is seen.
    """

    name: str
    layout: Callable[[], Layout]
    seen: Callable[[], Tensor]
    levels: int = 1
    mask: bool = False
    bias: bool = False
    heads: int = KEY_HEADS
    shapes: tuple[tuple[int, ...], ...] = ()
    causal: tuple[int, ...] = ()

    def places(self) -> Tensor:
        """(n, axes) where elements stand along the causal axes, each in its own structure."""
        return torch.cat([places(shape) for shape in self.shapes])[:, list(self.causal)]

    def tokens(self, c: int = 4, c_v: int = 3, seed: int = 0, batch: int = BATCH) -> dict[str, Tensor]:
        """Random q, k, v in float64, and key_mask and key_bias where the row has them."""
        layout, rng = self.layout(), torch.Generator().manual_seed(seed)
        n_q, n_k = layout.query_groups.num_elements, layout.key_groups.num_elements

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        tokens = {"q": draw(batch, self.heads, n_q, c), "k": draw(batch, KEY_HEADS, n_k, c)}
        tokens["v"] = draw(batch, KEY_HEADS, n_k, c_v)
        if self.mask:
            mask = torch.rand(batch, n_k, generator=rng) > 0.3
            mask[0, layout.key_groups.labels == 1] = False
            mask[1:] = False
            tokens["key_mask"] = mask
        if self.bias:
            tokens["key_bias"] = draw(batch, KEY_HEADS, n_k)
        return tokens

    def dense(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None, key_bias: Tensor | None = None):
        """Dense attention with this row's mask; zeros for a query that sees nothing."""
        k, v = (x.repeat_interleave(self.heads // KEY_HEADS, dim=1) for x in (k, v))
        scores, seen = q @ k.mT * q.shape[-1] ** -0.5, self.seen()[None, None]
        if key_bias is not None:
            scores = scores + key_bias.repeat_interleave(self.heads // KEY_HEADS, dim=1)[:, :, None]
        if key_mask is not None:
            seen = seen & key_mask[:, None, None]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return weights.masked_fill(~seen.any(-1, keepdim=True), 0) @ v


def places(shape: tuple[int, ...]) -> Tensor:
    """(n, axes) coordinates of the elements of a grid."""
    return torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"), -1).flatten(0, -2)


def not_later(shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """(n, n): whether the key is later than the query along none of the axes."""
    place = places(shape)[:, list(axes)]
    return (place[None] <= place[:, None]).all(-1)


def on_grid(shape, factor, cells, causal=(), levels=1, **more) -> Row:
    always = more.pop("always", [])
    flags = tuple(axis in causal for axis in range(len(shape)))

    def layout() -> Layout:
        operators = [
            (
                GridPartitioner(tuple(-(-c // f**level) for c, f in zip(cells, factor, strict=True))),
                GridDownsampler(factor),
            )
            for level in range(levels)
        ]
        cut, down = zip(*operators, strict=True)
        return GPA(cut, down, kappa=1, causal=flags, always=always, ranking="rerank").layout(shape, shape)

    name = f"{len(shape)}-D {shape} d={factor} cells={cells}"
    name += f" causal={causal}" * bool(causal) + f" levels={levels}" * (levels > 1) + f" {always}" * bool(always)
    name += "".join(f" {key}" for key in more)
    return Row(name, layout, lambda: not_later(shape, causal), levels, shapes=(shape,), causal=causal, **more)


def between(name, query_shape, key_shape, cut, down, key_down) -> Row:
    def layout() -> Layout:
        return GPA(cut, down, key_downsampler=key_down, kappa=1, ranking="rerank").layout(query_shape, key_shape)

    counts = torch.Size(query_shape).numel(), torch.Size(key_shape).numel()
    return Row(name, layout, lambda: torch.ones(counts, dtype=torch.bool))


def packed(name, make: Callable[..., GPA], shapes, causal=(), levels=1, **more) -> Row:
    def layout() -> Layout:
        gpa = make(ranking="rerank")
        return Layout.concat([gpa.layout(shape, shape) for shape in shapes])

    def seen() -> Tensor:
        return torch.block_diag(*(not_later(shape, causal) for shape in shapes)).bool()

    return Row(name, layout, seen, levels, shapes=tuple(shapes), causal=causal, **more)


def on_graph(name, num_nodes, num_edges, levels=1, neighbours=False) -> Row:
    edges = torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(num_nodes))

    def layout() -> Layout:
        always = [GraphNeighbourhood(edges)] if neighbours else []
        gpa = gpa_nd.graph(
            edges, num_nodes, downsample=3, cells=6, kappa=(1,) * levels, always=always, ranking="rerank"
        )
        return gpa.layout((num_nodes,), (num_nodes,))

    return Row(name, layout, lambda: torch.ones(num_nodes, num_nodes, dtype=torch.bool), levels)


EVERYTHING = packed(
    "everything together",
    partial(*(gpa_nd.audio, 2, 6, (1, 1)), causal=True, always=[GridNeighbourhood(2), GlobalElements(torch.arange(2))]),
    [(31,), (2,), (22,)],
    causal=(0,),
    levels=2,
    mask=True,
    bias=True,
    heads=4,
)

ROWS = [
    # between domains
    between("an image looks at audio", (10, 14), (33,),
            GridPartitioner((2, 3)), GridDownsampler((4, 3)), GridDownsampler(5)),
    between("video looks at an image", (3, 5, 4), (9, 7),
            GridPartitioner((3, 2, 2)), GridDownsampler((1, 2, 2)), GridDownsampler((2, 3))),
    between("a graph looks at an image", (12,), (7, 6), GraphPartitioner(torch.tensor([0, 1, 1, 0, 2])),
            GraphDownsampler(torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4])), GridDownsampler(2)),
    # packed
    packed("audio of five lengths", partial(gpa_nd.audio, 4, 3, 1), [(9,), (31,), (1,), (4,), (17,)]),
    packed("causal audio of three lengths", partial(gpa_nd.audio, 4, 3, 1, causal=True),
           [(9,), (31,), (2,)], causal=(0,)),
    packed("images of three sizes", partial(gpa_nd.image, 2, (2, 3), 1), [(5, 7), (2, 2), (9, 4)]),
    packed("audio of three lengths on two levels", partial(gpa_nd.audio, 3, 4, (1, 1)), [(9,), (31,), (2,)], levels=2),
    # causal
    on_grid((23,), (4,), (3,), causal=(0,)),
    on_grid((16,), (2,), (8,), causal=(0,)),  # a cell of one coarse query
    on_grid((11,), (1,), (11,), causal=(0,)),  # a cell of one query, which ranks for itself
    on_grid((9, 8), (2, 3), (3, 2), causal=(0,)),
    on_grid((9, 8), (2, 3), (3, 2), causal=(1,)),
    on_grid((8, 9), (2, 2), (4, 3), causal=(0, 1)),
    on_grid((6, 4, 5), (1, 2, 2), (6, 2, 2), causal=(0,)),  # groups and cells of one point in time: none always on
    on_grid((5, 4, 4), (2, 2, 2), (2, 2, 1), causal=(0,)),
    # masked
    on_grid((23,), (4,), (3,), mask=True),
    on_grid((9, 8), (2, 3), (3, 2), mask=True, bias=True, heads=4),
    on_grid((23,), (4,), (3,), causal=(0,), mask=True, bias=True),
    on_grid((4, 5, 4), (2, 2, 2), (2, 2, 1), bias=True),
    # always on
    on_grid((23,), (2,), (4,), always=[GridNeighbourhood(3)]),
    on_grid((9, 8), (2, 2), (3, 3), always=[GridNeighbourhood((1, 2)), GlobalElements(torch.tensor([0, 71]))]),
    on_grid((24,), (2,), (6,), causal=(0,), always=[GridNeighbourhood(4), GlobalElements(torch.arange(3))]),
    on_grid((9, 8), (2, 2), (3, 3), always=[GlobalElements(torch.arange(5))], mask=True),
    on_graph("graph with its neighbours", 30, 40, neighbours=True),
    # several levels
    on_grid((50,), (3,), (6,), levels=2),
    on_grid((50,), (2,), (9,), levels=3),
    on_grid((13, 10), (2, 2), (4, 3), levels=2),
    on_grid((6, 7, 5), (2, 2, 1), (2, 3, 2), levels=2),
    on_grid((40,), (2,), (10,), levels=2, causal=(0,), mask=True),
    on_grid((40,), (2,), (10,), levels=3, always=[GridNeighbourhood(2)], bias=True),
    on_graph("graph on two levels", 60, 150, levels=2),
    EVERYTHING,
]  # fmt: skip
