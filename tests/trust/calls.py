"""Calls of every kind, drawn by hypothesis: a row of `seeing.py` with random numbers, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from hypothesis import strategies as st
from torch import Tensor

import gpa_nd
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK, StraightThrough
from tests.seeing import KEY_HEADS, Row, between, on_graph, on_grid, packed

ALL = 10**6
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MOST = 160  # elements of a structure
FEW = 12  # for Triton's interpreter

flags = st.booleans()
seldom = st.sampled_from([False] * 7 + [True])


@dataclass(frozen=True)
class Call:
    """What :func:`~gpa_nd.gpa_attention` is called with.

    Attributes:
        row: a geometry, masks, biases, and who sees whom.
        settings: the keyword arguments that are not tensors.
        dtype: of q, k and v.
        batch: how many entries; perhaps none.
        channels: of q and k, and of v.
        strides: how the numbers of q, k and v lie in memory, by name.
        seed: that of the numbers.
    """

    row: Row
    settings: dict
    dtype: torch.dtype = torch.float64
    batch: int = 2
    channels: tuple[int, int] = (4, 3)
    strides: str = "contiguous"
    seed: int = 0

    def tokens(self) -> dict[str, Tensor]:
        """q, k, v, and key_mask and key_bias where the row has them."""
        tokens = self.row.tokens(*self.channels, seed=self.seed, batch=max(1, self.batch))
        tokens = {name: x[: self.batch] for name, x in tokens.items()}
        for name in ("q", "k", "v"):
            tokens[name] = STRIDES[self.strides](tokens[name].to(self.dtype))
        return tokens

    def selecting(self) -> dict:
        """The settings that Phase 1 takes."""
        return {name: x for name, x in self.settings.items() if name not in ("selection", "unselected")}

    def attending(self) -> dict:
        """Those that Phase 2 takes."""
        return {name: self.settings[name] for name in ("scale", "affinity", "enable_gqa", "backend")}

    def with_backend(self, backend: str) -> Call:
        return replace(self, settings=self.settings | {"backend": backend})


def heads_after_elements(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def every_second_channel(x: Tensor) -> Tensor:
    room = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan, dtype=x.dtype)
    room[..., ::2] = x
    return room[..., ::2]


def channels_first(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def inside_of_more(x: Tensor) -> Tensor:
    room = torch.full((x.shape[0] + 1, x.shape[1] + 2, x.shape[2] + 3, x.shape[3] + 1), torch.nan, dtype=x.dtype)
    inside = room[1:, 1:-1, 2:-1, :-1]
    return inside.copy_(x)


def the_same_in_all_heads(x: Tensor) -> Tensor:
    return x[:, :1].expand_as(x)


STRIDES = {
    "contiguous": lambda x: x,
    "heads after elements": heads_after_elements,
    "every second channel": every_second_channel,
    "channels first": channels_first,
    "inside of more": inside_of_more,
    "the same in all heads": the_same_in_all_heads,
}


# Rows


def shapes(axes: int, most: int, least: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    longest = {1: 64, 2: 13, 3: 7, 4: 4}[axes]
    return st.tuples(*(st.integers(least, longest) for _ in range(axes))).filter(lambda shape: prod(shape) <= most)


def numbers(axes: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    """A factor or a number of cells for each axis."""
    return st.tuples(*(st.integers(1, most) for _ in range(axes)))


@st.composite
def grids(draw, levels: int, most: int, empty: bool) -> Row:
    axes = draw(st.integers(1, 4))
    shape = draw(shapes(axes, most, least=0 if empty else 1))
    factor, cells = draw(numbers(axes, 4)), draw(numbers(axes, 5))
    causal = tuple(axis for axis in range(axes) if draw(flags)) if draw(flags) else ()
    always = []
    if draw(seldom):
        always.append(GridNeighbourhood(draw(st.integers(0, 3))))
    if prod(shape) and draw(seldom):
        always.append(GlobalElements(torch.arange(draw(st.integers(1, min(4, prod(shape)))))))
    return on_grid(shape, factor, cells, causal, levels, always=always)


@st.composite
def pairs(draw, most: int, empty: bool) -> Row:
    axes = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    of_queries, of_keys = (draw(shapes(n, most, least=0 if empty else 1)) for n in axes)
    cut, down = GridPartitioner(draw(numbers(axes[0], 5))), GridDownsampler(draw(numbers(axes[0], 4)))
    name = f"{of_queries} looks at {of_keys}"
    return between(name, of_queries, of_keys, cut, down, GridDownsampler(draw(numbers(axes[1], 4))))


@st.composite
def packs(draw, levels: int, most: int) -> Row:
    make, axes = draw(st.sampled_from([(gpa_nd.audio, 1), (gpa_nd.image, 2), (gpa_nd.video, 3)]))
    sizes = draw(st.lists(shapes(axes, most // 3), min_size=1, max_size=3))
    causal = tuple(axis for axis in range(axes) if draw(seldom))
    along = tuple(axis in causal for axis in range(axes))
    factor, cells = draw(numbers(axes, 4)), draw(numbers(axes, 4))
    kappa = (1,) * levels if levels > 1 else 1
    return packed(f"{sizes}", partial(make, factor, cells, kappa, causal=along), sizes, causal, levels)


@st.composite
def graphs(draw, levels: int, most: int) -> Row:
    nodes, edges = draw(st.integers(2, min(60, most))), draw(st.integers(0, 150))
    return on_graph(f"graph of {nodes}", nodes, edges, levels, neighbours=draw(seldom) and edges > 0)


@st.composite
def rows(draw, levels: bool = True, masks: bool = True, empty: bool = False, most: int = MOST) -> Row:
    """A geometry; with ``levels`` perhaps several, with ``masks`` perhaps masked, with ``empty`` perhaps of nothing."""
    count = draw(st.sampled_from([1, 1, 1, 2, 3])) if levels else 1
    kind = draw(st.sampled_from(["grid", "grid", "grid", "pair", "pack", "graph"]))
    nothing = empty and draw(seldom)
    match kind:
        case "grid":
            row = draw(grids(count, most, nothing))
        case "pair":
            row = draw(pairs(most, nothing))
        case "pack":
            row = draw(packs(count, most))
        case "graph":
            row = draw(graphs(count, most))
    if not masks:
        return row
    return replace(row, mask=draw(flags), bias=draw(flags), heads=KEY_HEADS * draw(st.sampled_from([1, 1, 2, 3])))


# Calls


@st.composite
def calls(draw, backends=("reference", "torch", "auto"), empty: bool = False, learned: bool = True) -> Call:
    """A valid call; with ``empty`` perhaps of nothing, with ``learned`` perhaps with weights or pooled keys."""
    backend = draw(st.sampled_from(backends))
    row = draw(rows(empty=empty, most=FEW if backend == "triton" else MOST))
    dtype = draw(st.sampled_from(DTYPES if backend != "triton" else [x for x in DTYPES if x != torch.float64]))
    affinity = draw(st.sampled_from(["dot", "dot", "euclidean"])) if backend != "triton" else "dot"
    rankings = ["mean", "mean", "rerank"] + ["rms", "moments"] * (affinity == "dot")
    kappas = [draw(st.sampled_from([1, 1, 2, 3, 5, ALL])) for _ in range(row.layout().levels)]
    settings = {
        "kappa": tuple(kappas) if draw(flags) else min(kappas),
        "affinity": affinity,
        "ranking": draw(st.sampled_from([x for x in rankings if backend != "triton" or x != "moments"])),
        "mass": draw(st.sampled_from([None, None, None, 0.3, 0.9, 1.0])),
        "scale": draw(st.sampled_from([None, None, 0.3, 1, -0.5])),
        "enable_gqa": row.heads > KEY_HEADS,
        "backend": backend,
    }
    if learned and draw(seldom):
        settings["selection"] = draw(st.sampled_from([SoftTopK(0.7), StraightThrough(SoftTopK(0.7))]))
    if learned and draw(seldom):
        settings["unselected"] = "pooled"
    return Call(
        row,
        settings,
        dtype,
        batch=draw(st.sampled_from([2, 2, 1, 3] + [0] * empty)) if backend != "triton" else 1,
        channels=(draw(st.integers(1, 17)), draw(st.integers(1, 9))),
        strides=draw(st.sampled_from(list(STRIDES))),
        seed=draw(st.integers(0, 2**31 - 1)),
    )
