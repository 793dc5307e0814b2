"""GPA and what it is compared with: each takes q, k and v (1, 1, n, c) of a problem and attends.

The peers are the packages that their users install (the extra ``bench``), taken without the projections around them:
where a package has only a layer, q, k and v are handed to it side by side and its first and last linear map are left
out, so that attention alone is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpa_nd
from benchmarks import geometries
from benchmarks.clock import Run
from benchmarks.geometries import Problem
from gpa_nd import Layout

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Skipped(Exception):
    """Why a contestant does not take part."""


@dataclass(frozen=True)
class Contestant:
    """One way to attend.

    Attributes:
        name: what tables call it.
        make: what attends, for a problem; raises :class:`Skipped`.
        largest: most elements that it is asked for on a CPU, forward and with backward.
        why: what keeps it from more.
    """

    name: str
    make: Callable[[Problem], Attend]
    largest: tuple[int, int] = (2**31, 2**31)
    why: str = ""

    def check(self, problem: Problem, *, backward: bool) -> None:
        """See whether it takes part.

        Raises:
            Skipped: it has no gradients, or would take minutes.
        """
        largest = self.largest[backward]
        if problem.device.type == "cpu" and problem.geometry.elements > largest:
            raise Skipped(f"above {largest:,} elements {self.why}" if largest else "it has no backward on a CPU")

    def attend(self, problem: Problem, *, backward: bool = False) -> Attend:
        """What attends.

        Raises:
            Skipped: it does not take part, or is not installed.
        """
        self.check(problem, backward=backward)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.make(problem)


def passes(attend: Attend, tokens: list[Tensor], *, backward: bool) -> Run:
    """Forward alone, without a graph, or forward and backward from a gradient of ones."""
    gradient = torch.ones_like(tokens[0])

    def forward() -> object:
        with torch.no_grad():
            return attend(*tokens)

    def both() -> object:
        out = attend(*tokens)
        return out, torch.autograd.grad(out, tokens, gradient)

    return both if backward else forward


# Those that take part -------------------------------------------------------------------------------------------------


def gpa(problem: Problem, backend: str = "auto") -> Attend:
    """Both phases of the library; the layout, which a module keeps, is made before."""
    geometry, layout = problem.geometry, geometries.layout(problem.geometry, problem.device)
    return lambda q, k, v: gpa_nd.gpa_attention(q, k, v, layout, kappa=geometry.kappa, backend=backend)  # type: ignore[arg-type]


def reference(problem: Problem) -> Attend:
    """Algorithm 1 line by line."""
    return gpa(problem, "reference")


def dense(problem: Problem) -> Attend:
    """What PyTorch has."""
    return F.scaled_dot_product_attention


def flex(problem: Problem) -> Attend:
    """FlexAttention given the blocks that Phase 1 found."""
    geometry, layout = problem.geometry, geometries.layout(problem.geometry, problem.device)
    q, k, _ = (x.detach() for x in problem.tokens())
    relevant = gpa_nd.select_keys(q, k, layout, kappa=geometry.kappa)
    attend = flex_over(layout, relevant)
    try:
        with torch.no_grad():
            found, right = attend(*problem.tokens()), gpa_nd.attend(*problem.tokens(), layout, relevant)
    except Exception as error:
        raise Skipped(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from error
    if not torch.allclose(found, right, atol=1e-2):
        raise Skipped("it attends to other blocks than it was given")
    return attend


def flex_over(layout: Layout, relevant: Tensor, *, enable_gqa: bool = False) -> Attend:
    """FlexAttention, compiled, over the blocks of a selection; putting tokens into blocks and back is counted.

    Raises:
        Skipped: cells or groups are no blocks.
    """
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    cells, members = layout.fine_cells, layout.members
    if not (cells.uniform and members.uniform and members.covers):
        raise Skipped("cells or groups differ in size, so that they are no blocks")
    rows, columns = cells.largest, members.largest
    chosen = torch.zeros(*relevant.shape[:3], len(members), dtype=torch.int32, device=relevant.device)
    chosen.scatter_add_(-1, relevant.clamp_min(0), (relevant >= 0).int())
    listed = chosen.argsort(dim=-1, descending=True, stable=True).int()
    count = chosen.sum(-1, dtype=torch.int32)
    if relevant.device.type == "cpu":
        options, blocks = None, BlockMask.from_kv_blocks(count, listed, BLOCK_SIZE=(rows, columns))
    else:
        options = _flex_tiles(rows, columns)
        nothing = torch.zeros_like(count), torch.zeros_like(listed)
        blocks = BlockMask.from_kv_blocks(*nothing, count, listed, BLOCK_SIZE=(rows, columns))
    torch.compiler.reset()  # each mask is a new program, and it gives up after a few
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.index_select(2, cells.order), k.index_select(2, members.order), v.index_select(2, members.order)
        out = compiled(q, k, v, block_mask=blocks, enable_gqa=enable_gqa, kernel_options=options)
        return out.index_select(2, cells.inverse)

    return attend


def _flex_tiles(rows: int, columns: int) -> dict[str, int] | None:
    """Sizes of its kernel's tiles that divide such blocks; None where its own do."""
    if any(size < 16 or size & (size - 1) for size in (rows, columns)):
        raise Skipped(f"blocks of {rows} queries and {columns} keys: its tiles are powers of two from 16 on")
    if rows % 128 == 0 and columns % 128 == 0:
        return None
    tiles = {"BLOCK_M": min(rows, 128), "BLOCK_N": min(columns, 64)}
    tiles |= {"BLOCK_M1": min(rows, columns, 64), "BLOCK_N1": min(columns, 64)}
    return tiles | {"BLOCK_M2": min(rows, 64), "BLOCK_N2": min(rows, columns, 64)}


def nystrom(problem: Problem, landmarks: int = 256) -> Attend:
    """nystrom-attention, without its convolution beside the attention."""
    try:
        from nystrom_attention import NystromAttention
    except ImportError as error:
        raise Skipped("nystrom-attention is not installed (extra 'bench')") from error
    c = problem.channels
    layer = NystromAttention(3 * c, c, heads=1, num_landmarks=landmarks, residual=False)
    layer.to_qkv, layer.to_out = nn.Identity(), nn.Identity()
    return _side_by_side(layer.to(problem.device, problem.dtype))


def performer(problem: Problem, features: int | None = None) -> Attend:
    """performer-pytorch; by default with as many random features as it takes by itself, c · ln c."""
    try:
        from performer_pytorch import FastAttention
    except ImportError as error:
        raise Skipped("performer-pytorch is not installed (extra 'bench')") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FastAttention(problem.channels, nb_features=features).to(problem.device, problem.dtype)


def native_sparse(problem: Problem) -> Attend:
    """native-sparse-attention-pytorch, not causal: windows of 64, and 12 blocks of 16 for every query."""
    try:
        from native_sparse_attention_pytorch import SparseAttention
    except ImportError as error:
        raise Skipped("native-sparse-attention-pytorch is not installed (extra 'bench')") from error
    c = problem.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = SparseAttention(
            3 * c, c, heads=1, sliding_window_size=64, compress_block_size=16, compress_block_sliding_stride=16,
            selection_block_size=16, num_selected_blocks=12, norm=False,
        )  # fmt: skip
    layer.to_qkv, layer.combine_heads = nn.Identity(), nn.Identity()
    layer.qkv_split = (c, c, c)
    return _side_by_side(layer.to(problem.device, problem.dtype))


def _side_by_side(layer: nn.Module) -> Attend:
    return lambda q, k, v: layer(torch.cat([q, k, v], -1)[:, 0])[:, None]


GPA = Contestant("GPA", gpa)
DENSE = Contestant("dense", dense, (2**16, 2**16), "it takes minutes")
FLEX = Contestant("FlexAttention", flex, (2**31, 0))
REFERENCE = Contestant("reference backend", reference, (2**16, 2**16), "it takes minutes")
NYSTROM = Contestant("Nyström", nystrom, (2**18, 2**18), "it is left out to keep this short")
PERFORMER = Contestant("Performer", performer, (2**18, 2**18), "it is left out to keep this short")
NATIVE_SPARSE = Contestant("native sparse", native_sparse, (2**14, 2**10), "every query's own keys need gigabytes")
EVERYBODY = (GPA, DENSE, FLEX, REFERENCE, NYSTROM, PERFORMER, NATIVE_SPARSE)
