"""What attention is measured on: grids of one, two and three axes and graphs, and tokens that live there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

import gpa_nd
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Geometry:
    """Elements and how GPA divides them: plain numbers, which another process can be handed.

    Attributes:
        shape: the grid; ``(n,)`` for the nodes of a graph.
        downsample: elements in a group along each axis, or most nodes in a group.
        cells: cells along each axis, or of the graph.
        kappa: coarse keys that each cell chooses.
        graph: whether it is a graph: the triangles of a square grid, n being a square.
    """

    shape: tuple[int, ...]
    downsample: tuple[int, ...]
    cells: tuple[int, ...]
    kappa: int
    graph: bool = False

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """1-D, 2-D, 3-D or graph."""
        return "graph" if self.graph else f"{len(self.shape)}-D"

    def __str__(self) -> str:
        shape, d, m = ("×".join(f"{x:,}" for x in numbers) for numbers in (self.shape, self.downsample, self.cells))
        return f"{self.kind} {shape}, d={d}, m={m}, κ={self.kappa}"

    def gpa(self) -> GPA:
        """The module."""
        if self.graph:
            edges = triangles(math.isqrt(self.elements))
            return gpa_nd.graph(edges, self.elements, self.downsample[0], self.cells[0], kappa=self.kappa)
        return GPA(GridPartitioner(self.cells), GridDownsampler(self.downsample), kappa=self.kappa)

    def smaller(self) -> Geometry:
        """At most 4,096 elements of the same kind, to warm up with."""
        sides = {1: (4096,), 2: (64, 64), 3: (16, 16, 16)}[len(self.shape)]
        return replace(self, shape=tuple(map(min, self.shape, sides)), kappa=min(self.kappa, 4))


@lru_cache(maxsize=8)
def layout(geometry: Geometry, device: torch.device) -> gpa_nd.Layout:
    """GPA's layout, of which coarsening a large graph takes seconds; the last few are kept."""
    return geometry.gpa().layout(geometry.shape, geometry.shape, device)


def audio(n: int, downsample: int = 16, cells: int = 1024, kappa: int = 12) -> Geometry:
    """A sequence."""
    return Geometry((n,), (downsample,), (cells,), kappa)


def image(side: int, downsample: int = 4, cells: int = 32, kappa: int = 12) -> Geometry:
    """A square image; by default with the paper's pivot's numbers."""
    return Geometry((side, side), (downsample,) * 2, (cells,) * 2, kappa)


def video(shape: tuple[int, ...], downsample: tuple[int, ...], cells: tuple[int, ...], kappa: int = 12) -> Geometry:
    """Time, height and width."""
    return Geometry(shape, downsample, cells, kappa)


def nodes(n: int, downsample: int = 16, cells: int = 1024, kappa: int = 12) -> Geometry:
    """The nodes of a graph; n is a square."""
    return Geometry((n,), (downsample,), (cells,), kappa, graph=True)


def of_size(n: int) -> list[Geometry]:
    """1-D, 2-D, 3-D and a graph of n = 4^e elements, whose groups grow with the cube root of n."""
    e, group = int(math.log2(n)) // 2, n ** (1 / 3) / 2.52  # 16 elements where n is 65,536
    deep, high = 2 ** (e // 2), 2 ** ((2 * e - e // 2) // 2)
    wide, rounded, cells = n // (deep * high), 2 ** round(math.log2(group)), min(1024, n // 16)
    across = max(2, round((group / 2) ** 0.5))
    return [
        audio(n, rounded, cells),
        image(2**e, round(group**0.5), math.isqrt(cells)),
        video((deep, high, wide), (2, across, across), (min(4, deep // 2), min(16, high // 4), min(16, wide // 4))),
        nodes(n, rounded, cells),
    ]


def triangles(high: int, wide: int | None = None) -> Tensor:
    """Edges (2, 3 · high · wide) of a triangulated rectangle whose opposite sides are joined, nodes shuffled."""
    rng, wide = torch.Generator().manual_seed(0), high if wide is None else wide
    node = torch.randperm(high * wide, generator=rng).view(high, wide)
    neighbours = [node.roll(-1, 0), node.roll(-1, 1), node.roll((-1, -1), (0, 1))]
    return torch.stack([node.expand(3, -1, -1).flatten(), torch.stack(neighbours).flatten()])


@dataclass(frozen=True)
class Problem:
    """Attention to be computed: a geometry, and the tensors that its tokens are."""

    geometry: Geometry
    channels: int = 64
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    @property
    def token_bytes(self) -> int:
        """Bytes of q, k, v and out together."""
        return 4 * self.geometry.elements * self.channels * self.dtype.itemsize

    def tokens(self) -> list[Tensor]:
        """q, k and v (1, 1, n, channels), random; they require gradients."""
        rng = torch.Generator(self.device).manual_seed(0)
        shape = (1, 1, self.geometry.elements, self.channels)
        made = (torch.randn(shape, generator=rng, device=self.device).to(self.dtype) for _ in range(3))
        return [x.requires_grad_() for x in made]

    def smaller(self) -> Problem:
        """The same of at most 4,096 elements."""
        return replace(self, geometry=self.geometry.smaller())
