"""What is checked and timed: geometries, head sizes and arguments that matter, and tokens like real features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import gpa_nd
from benchmarks import geometries
from benchmarks.geometries import CPU, Geometry
from gpa_nd import GPA, Layout
from gpa_nd.always import GridNeighbourhood
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner

HALF = (torch.bfloat16,)
ALL = (torch.bfloat16, torch.float16, torch.float32)
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Row:
    """One geometry with everything that a call needs beside it.

    Attributes:
        name: what it is called in the tables.
        make: the layout, on the CPU.
        shape: the grid of queries and keys; ``(n,)`` for a graph, whose tokens are noise.
        kappa: coarse keys of a cell; a number for each level where there are several.
        extra: ``"logits"``, ``"positions"``, ``"bias"`` (a key bias that hides a tenth of the keys) or ``"popular"``
            (one coarse key that every cell chooses), or nothing.
        timed: whether it is timed, or only checked.
        dense: whether dense attention over as many tokens is timed beside it.
    """

    name: str
    make: Callable[[], Layout]
    shape: tuple[int, ...]
    kappa: int | tuple[int, ...]
    dtypes: tuple[torch.dtype, ...] = HALF
    heads: int = 8
    key_heads: int = 8
    c: int = 64
    c_v: int = 64
    extra: str = ""
    timed: bool = False
    dense: bool = True
    noise: bool = False


@dataclass
class Tokens:
    """The tensors of a call, and the gradient that its result gets."""

    layout: Layout
    q: Tensor
    k: Tensor
    v: Tensor
    logits: Tensor | None
    bias: Tensor | None
    gradient: Tensor

    @property
    def names(self) -> list[str]:
        """What has a gradient."""
        return [name for name in ("q", "k", "v", "logits", "bias") if getattr(self, name) is not None]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors of these names."""
        return [getattr(self, name) for name in self.names]

    def leaves(self, dtype: torch.dtype | None = None) -> Tokens:
        """The same without a history, in another dtype or each in its own."""
        fresh = (x.detach().to(dtype or x.dtype).requires_grad_() for x in self.inputs)
        return replace(self, **dict(zip(self.names, fresh, strict=True)))

    @property
    def shares_heads(self) -> bool:
        """Whether several heads of q share one of k and v."""
        return self.q.shape[1] != self.k.shape[1]


PIVOT = "image 256×256, d=4, m=32×32, κ=12"
VIDEO = "video 32×48×80, d=4×4×4, m=8×12×10, κ=96 (95 % sparse)"


def rows() -> list[Row]:
    """What matters, at full size; the paper's pivot first."""
    image, pivot = (256, 256), grid((256, 256), (4, 4), (32, 32))
    video = grid((32, 48, 80), (4, 4, 4), (8, 12, 10))
    nodes = partial(geometries.layout, geometries.nodes(65536), CPU)
    few, small = {"heads": 2, "key_heads": 2}, grid((64, 64), (4, 4), (8, 8))
    near = [GridNeighbourhood(1)]
    return [
        Row(PIVOT, pivot, image, 12, ALL, timed=True),
        Row(f"{PIVOT}, one key for all", pivot, image, 12, extra="popular", timed=True),
        Row(f"{PIVOT}, heads of 128", pivot, image, 12, c=128, c_v=128, timed=True),
        Row(f"{PIVOT}, 8 heads share 2", pivot, image, 12, key_heads=2, timed=True),
        Row("image 256×256, d=2, m=64×64, κ=48", grid(image, (2, 2), (64, 64)), image, 48, timed=True),
        Row("image 128×128, d=4, m=16×16, κ=12", grid((128, 128), (4, 4), (16, 16)), (128, 128), 12, timed=True),
        Row("audio 65,536, d=16, m=1,024, κ=12", grid((65536,), (16,), (1024,)), (65536,), 12, timed=True),
        Row("audio 65,536, d=128, m=512, κ=16", grid((65536,), (128,), (512,)), (65536,), 16, timed=True),
        Row(VIDEO, video, (32, 48, 80), 96, timed=True),
        Row("graph of 65,536 nodes, d=16, m=1,024, κ=12", nodes, (65536,), 12, timed=True, noise=True),
        Row("odd image 125×93, heads of 80 and 48", grid((125, 93), (4, 4), (10, 10)), (125, 93), 7, ALL, c=80, c_v=48),
        Row("ragged groups and cells", ragged(400), (0,), 9, ALL, noise=True, **few),
        Row("points, one to a cell", grid((1024,), (1,), (1024,)), (1024,), 32, **few),
        Row("heads of 256", small, (64, 64), 12, ALL, c=256, c_v=256, **few),
        Row("heads of 17 and 24", small, (64, 64), 12, ALL, c=17, c_v=24, **few),
        Row("with logits", small, (64, 64), 12, ALL, extra="logits"),
        Row("with positions", grid((4096,), (16,), (64,)), (4096,), 12, ALL, extra="positions"),
        Row("with key ranges", with_ranges(grid((4096,), (16,), (64,))), (4096,), 12, ALL),
        Row("with a key bias", small, (64, 64), 12, ALL, extra="bias"),
        Row("causal audio", of(gpa_nd.audio(16, 64, causal=True), (4096,)), (4096,), 12, ALL, extra="bias"),
        Row("causal audio, cells of 4", of(gpa_nd.audio(2, 512, causal=True), (2048,)), (2048,), 12, **few),
        Row("image causal on both axes", of(gpa_nd.image(4, 8, causal=True), (60, 64)), (60, 64), 12, ALL, **few),
        Row("image in two levels", of(gpa_nd.image(2, 16, (12, 6), always=near), (128, 96)), (128, 96), (12, 6), ALL),
        Row("three causal levels", of(gpa_nd.audio(4, 32, (8, 6, 4), causal=True), (4000,)), (4000,), (8, 6, 4), ALL),
    ]


def tiny_rows() -> list[Row]:
    """The same kinds, small enough for Triton's interpreter."""
    few, audio = {"heads": 2, "key_heads": 2, "c": 16, "c_v": 16}, grid((24,), (4,), (3,))
    odd = {"heads": 2, "key_heads": 1, "c": 17, "c_v": 20}
    return [
        Row("tiny image", grid((12, 12), (4, 4), (2, 2)), (12, 12), 3, ALL, timed=True, **few),
        Row("tiny odd image, 2 heads share 1", grid((9, 7), (2, 2), (2, 2)), (9, 7), 3, **odd),
        Row("tiny graph", ragged(8), (0,), 3, noise=True, **few),
        Row("tiny audio, one key for all", grid((48,), (4,), (6,)), (48,), 2, extra="popular", **few),
        Row("tiny audio with logits", audio, (24,), 2, extra="logits", **few),
        Row("tiny audio with positions", audio, (24,), 2, extra="positions", **few),
        Row("tiny audio with key ranges", with_ranges(audio), (24,), 3, **few),
        Row(
            "tiny causal audio with a key bias",
            of(gpa_nd.audio(4, 3, causal=True), (22,)),
            (22,),
            2,
            extra="bias",
            **few,
        ),
        Row("tiny causal levels", of(gpa_nd.image(2, 2, (3, 2), causal=True), (7, 8)), (7, 8), (3, 2), **few),
    ]


def grid(shape: tuple[int, ...], factor: tuple[int, ...], cells: tuple[int, ...]) -> Callable[[], Layout]:
    """A grid of any dimension."""
    return partial(geometries.layout, Geometry(shape, factor, cells, kappa=1), CPU)


def of(gpa: GPA, shape: tuple[int, ...]) -> Callable[[], Layout]:
    """The layout of a module."""
    return partial(gpa.layout, shape, shape, CPU)


def with_ranges(make: Callable[[], Layout]) -> Callable[[], Layout]:
    """Each cell sees the coarse keys before its own: the first none, the next ones fewer than they could choose."""

    def made() -> Layout:
        layout = make()
        cells, keys = len(layout.query_cells), len(layout.key_groups)
        ends = torch.arange(cells) * keys // cells
        return replace(layout, key_ranges=torch.stack([torch.zeros_like(ends), ends], dim=1))

    return made


def ragged(groups: int) -> Callable[[], Layout]:
    """So many groups of 1 to 40 elements, one of them twenty times as large, in cells of 1 to 12 groups."""

    def make() -> Layout:
        rng = torch.Generator().manual_seed(0)
        sizes = torch.randint(1, 41, (groups,), generator=rng)
        sizes[groups // 2] = 20 * sizes.max() if groups > 100 else 1
        labels = torch.arange(groups).repeat_interleave(sizes)[torch.randperm(int(sizes.sum()), generator=rng)]
        cells = torch.arange(groups).repeat_interleave(torch.randint(1, 13, (groups,), generator=rng))[:groups]
        gpa = GPA(GraphPartitioner(cells), GraphDownsampler(labels), kappa=1)
        return gpa.layout((len(labels),), (len(labels),))

    return make


def tokens(row: Row, dtype: torch.dtype, device: torch.device, *, seed: int = 0) -> Tokens:
    """Smooth random fields with noise, keys and queries alike, so that cells choose as they do in features."""
    layout = row.make()
    n = layout.query_groups.num_elements
    rng = torch.Generator(device).manual_seed(seed)
    k = _field(row, row.key_heads, row.c, n, rng, device)
    q = k.repeat_interleave(row.heads // row.key_heads, 1) + 0.7 * _noise((1, row.heads, n, row.c), rng, device)
    v = _field(row, row.key_heads, row.c_v, n, rng, device)
    if row.extra == "popular":
        q[..., 0] = 2.0
        k[:, :, layout.members.table[len(layout.key_groups) // 2].to(device), 0] = 30.0
    layout = layout.to(device)
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v))
    logits, bias = None, None
    if row.extra == "logits":
        assert isinstance(row.kappa, int)
        chosen = (1, row.heads, len(layout.query_cells), min(row.kappa, len(layout.key_groups)))
        logits = _noise(chosen, rng, device).requires_grad_()
    if row.extra == "bias":
        bias = _noise((1, row.key_heads, n), rng, device)
        bias = bias.masked_fill(bias < -1.3, -torch.inf).requires_grad_()
    if row.extra == "positions":
        place = torch.arange(n, device=device)
        layout = replace(layout, positions=(place, place))
    return Tokens(layout, q, k, v, logits, bias, _noise((1, row.heads, n, row.c_v), rng, device).to(dtype))


def _field(row: Row, heads: int, channels: int, n: int, rng: torch.Generator, device: torch.device) -> Tensor:
    noise = _noise((1, heads, n, channels), rng, device)
    if row.noise:
        return noise
    coarse = _noise((heads, channels, *(max(2, size // 8) for size in row.shape)), rng, device)
    smooth = F.interpolate(coarse, size=row.shape, mode=INTERPOLATION[len(row.shape)], align_corners=False)
    field = smooth.flatten(2).mT[None] * 1.5 + 0.5 * noise
    return field.contiguous()


def _noise(shape: tuple[int, ...], rng: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=rng, device=device)
