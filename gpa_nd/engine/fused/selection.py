"""Phase 1 of backend "triton": pool, log-sum-exp, sums over each cell chunk by chunk, the κ best of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused import selection_kernels as kernels
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip, chip_of, launch, with_whole_rows
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.selection_tiles import (
    PROGRAMS_PER_PROCESSOR,
    SUMS_AT_ONCE,
    Tile,
    channel_parts,
    pool_tile,
    select_tile,
    sum_tile_of,
    tile_of,
)
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

LOG2_E = math.log2(math.e)
MOST_QUERIES = 2**27  # coarse ones: inside a tile, numbers are int32
MOST_KEYS = 2**21  # coarse ones: the select kernel holds a block of their sums


def select_keys(q: Tensor, k: Tensor, layout: Layout, kappa: int, scale: float) -> Int[Tensor, "b h m kappa"]:
    """Phase 1 with the affinity ``"dot"`` on checked arguments."""
    with torch.no_grad():
        chosen: Tensor = fused_select_keys(
            q,
            k,
            *_tensors_and_size(layout.query_groups),
            *_tensors_and_size(layout.query_cells),
            *_tensors_and_size(layout.key_groups),
            layout.key_ranges,
            kappa,
            scale,
        )
    return chosen


def _tensors_and_size(part: Partition) -> tuple[Tensor, Tensor, int]:
    return part.order, part.offsets, part.largest


@torch.library.custom_op("gpa_nd::fused_select_keys", mutates_args=())
def fused_select_keys(
    q: Tensor,
    k: Tensor,
    query_order: Tensor,
    query_offsets: Tensor,
    largest_query_group: int,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    key_order: Tensor,
    key_offsets: Tensor,
    largest_key_group: int,
    key_ranges: Tensor | None,
    kappa: int,
    scale: float,
) -> Tensor:
    """:func:`select_keys` on the tensors of a layout; the largest sizes are known on the host."""
    queries = Groups(query_order, query_offsets, largest_query_group)
    cells = Groups(cell_order, cell_offsets, largest_cell)
    groups = Groups(key_order, key_offsets, largest_key_group)
    if len(queries) > MOST_QUERIES or len(groups) > MOST_KEYS:
        raise ValueError(
            f"q, k: backend 'triton' takes up to {MOST_QUERIES:,} coarse queries and {MOST_KEYS:,} coarse keys, "
            f"got {len(queries):,} and {len(groups):,}"
        )
    if max(q.shape[2], k.shape[2]) >= 2**31:
        raise ValueError(f"q, k: backend 'triton' takes fewer than 2³¹ elements, got {q.shape[2]} and {k.shape[2]}")
    chip, c = chip_of(q.device), q.shape[-1]
    tile = tile_of(c, q.dtype, chip)
    q_low = _pool(q, queries, chip, len(queries), cells.order)
    if scale <= 0:  # the kernels multiply by what is above zero
        q_low *= -1 if scale < 0 else 0
    scores = _Scores(
        q_low=q_low,
        k_low=_pool(k, groups, chip, triton.cdiv(len(groups), tile.keys) * tile.keys),
        keys=len(groups),
        channels=c,
        cells=cells,
        ranges=None if key_ranges is None else key_ranges.contiguous(),
        scale=abs(scale) or 1.0,
        chip=chip,
    )
    lse = None if cells.largest == 1 else _log_sum_exp(scores, tile)  # one row ranks as its softmax does
    chosen = torch.empty(scores.heads, len(cells), min(kappa, len(groups)), dtype=torch.int64, device=q.device)
    tile = sum_tile_of(tile, cells.largest, scores.keys_stored)
    chunks = _chunks(scores, tile)
    held = max(chunk.heads * chunk.cells for chunk in chunks)
    sums = torch.empty(held, scores.keys_stored, dtype=torch.float32, device=q.device)
    maxima = torch.empty(held, scores.keys_stored // tile.keys, dtype=torch.float32, device=q.device)
    for chunk in chunks:
        _cell_sums(scores, tile, chunk, lse, sums, maxima)
        _select(scores, tile, chunk, sums, maxima, chosen)
    return chosen.view(*q.shape[:2], *chosen.shape[1:])


@fused_select_keys.register_fake
def _(
    q: Tensor,
    k: Tensor,
    query_order: Tensor,
    query_offsets: Tensor,
    largest_query_group: int,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    key_order: Tensor,
    key_offsets: Tensor,
    largest_key_group: int,
    key_ranges: Tensor | None,
    kappa: int,
    scale: float,
) -> Tensor:
    chosen = min(kappa, key_offsets.shape[0] - 1)
    return q.new_empty(*q.shape[:2], cell_offsets.shape[0] - 1, chosen, dtype=torch.int64)


@dataclass(frozen=True)
class _Scores:
    """The affinities of coarse queries, in the order of their cells, and coarse keys, which no tensor ever holds.

    Batch and heads are one axis throughout; the keys are followed by rows of zeros, to whole tiles.
    """

    q_low: Float[Tensor, "h rows stored"]
    k_low: Float[Tensor, "h_k keys_stored stored"]
    keys: int
    channels: int
    cells: Groups
    ranges: Int[Tensor, "m 2"] | None
    scale: float
    chip: Chip

    @property
    def heads(self) -> int:
        """B·H."""
        return self.q_low.shape[0]

    @property
    def shared(self) -> int:
        """How many query heads look at one key head."""
        return self.heads // self.k_low.shape[0]

    @property
    def rows(self) -> int:
        """n_q'."""
        return self.q_low.shape[1]

    @property
    def keys_stored(self) -> int:
        """n_k', rounded up to whole tiles."""
        return self.k_low.shape[1]

    def constants(self, tile: Tile) -> dict[str, object]:
        """The settings that all kernels which compute affinities share."""
        stored = self.q_low.shape[2]
        main, rest = channel_parts(self.channels, tile.channels)
        return {
            "STORED": stored,
            "MAIN": main,
            "REST": rest,
            "ROWS": tile.rows,
            "KEYS": tile.keys,
            "PRECISION": self.chip.precision if self.q_low.dtype == torch.float32 else "ieee",
            "EMULATED": self.chip.is_interpreter,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            # Ranges need more registers than the assembler takes by itself.
            **({"maxnreg": 255} if self.chip.is_nvidia and self.ranges is not None else {}),
        }


@dataclass(frozen=True)
class _Chunk:
    """Cells of heads whose sums are held at the same time."""

    first_head: int
    heads: int
    first_cell: int
    cells: int


def _pool(x: Tensor, groups: Groups, chip: Chip, stored: int, places: Tensor | None = None) -> Tensor:
    """(B·H, stored, channels) means of groups: row i is group ``places[i]``, or i; zeros after the last."""
    batch, heads, _, c = x.shape
    x = with_whole_rows(x)
    channels = sum(channel_parts(c))
    low = torch.empty(batch * heads, stored, channels, dtype=x.dtype, device=x.device)
    tile = pool_tile(channels, groups.largest)
    launch(
        kernels.pool,
        (batch * heads * triton.cdiv(stored, tile.groups),),
        *(x, groups.order, groups.offsets_if_ragged, places, low),
        *(heads, len(groups), stored, groups.largest),
        *x.stride()[:3],
        CHANNELS=c,
        STORED=channels,
        WIDTH=tile.width,
        GROUPS=tile.groups,
        MEMBERS=tile.members,
        FAR=x.shape[2] * x.stride(2) >= 2**31,
        EMULATED=chip.is_interpreter,
        num_warps=tile.warps,
    )
    return low


def _log_sum_exp(scores: _Scores, tile: Tile) -> Float[Tensor, "h splits 2 rows"]:
    """Base-2 log-sum-exp of each coarse query, in as many parts as its keys are divided into: largest, and the rest."""
    row_tiles = triton.cdiv(scores.rows, tile.rows)
    splits, per_split = _key_splits(scores.chip, scores.heads * row_tiles, scores.keys_stored // tile.keys)
    ranges = scores.ranges
    if ranges is not None:
        sizes = scores.cells.offsets.diff()
        ranges = ranges.repeat_interleave(sizes, 0, output_size=scores.rows)
    lse = torch.empty(scores.heads, splits, 2, scores.rows, dtype=torch.float32, device=scores.q_low.device)
    launch(
        kernels.log_sum_exp,
        (scores.heads * splits * row_tiles,),
        *(scores.q_low, scores.k_low, ranges, lse),
        *(scores.shared, scores.rows, scores.keys, scores.keys_stored),
        *(splits, per_split, scores.scale * LOG2_E),
        EVEN=scores.keys % tile.keys == 0,
        **scores.constants(tile),
    )
    return lse


def _cell_sums(scores: _Scores, tile: Tile, chunk: _Chunk, lse: Tensor | None, sums: Tensor, maxima: Tensor) -> None:
    """Fill ``sums`` (heads, cells, keys_stored) and ``maxima`` (heads, cells, tiles of keys) for a chunk."""
    where = (chunk.first_head, chunk.first_cell, chunk.cells)
    shape = (scores.shared, scores.rows, scores.keys, scores.keys_stored)
    tiles, cells = scores.keys_stored // tile.keys, scores.cells
    splits = 1 if lse is None else lse.shape[1]
    scale = scores.scale if lse is None else scores.scale * LOG2_E
    if cells.largest > tile.rows:
        launch(
            kernels.large_cell_sums,
            (chunk.heads * chunk.cells * tiles,),
            *(scores.q_low, scores.k_low, lse, cells.offsets, scores.ranges, sums, maxima),
            *(*shape, *where, splits, scale),
            **scores.constants(tile),
        )
        return
    slots = power_of_two(cells.largest)
    programs = chunk.heads * triton.cdiv(chunk.cells, tile.rows // slots)
    key_splits, per_split = _key_splits(scores.chip, programs, tiles)
    launch(
        kernels.cell_sums,
        (programs * key_splits,),
        *(scores.q_low, scores.k_low, lse, cells.offsets_if_ragged, scores.ranges, sums, maxima),
        *(*shape, *where, splits, scale, cells.largest, key_splits, per_split),
        SLOTS=slots,
        **scores.constants(tile),
    )


def _select(scores: _Scores, tile: Tile, chunk: _Chunk, sums: Tensor, maxima: Tensor, chosen: Tensor) -> None:
    """Fill the chunk's part of ``chosen`` (B·H, m, κ)."""
    tiles = scores.keys_stored // tile.keys
    blocks = select_tile(tiles)
    launch(
        kernels.select,
        (chunk.heads * chunk.cells,),
        *(sums, maxima, scores.ranges, chosen),
        *(scores.keys, tiles, chunk.first_head, chunk.first_cell, chunk.cells, *chosen.shape[1:]),
        KEYS=tile.keys,
        TILES=blocks.tiles,
        BLOCKS=blocks.blocks,
        num_warps=1,
    )


def _chunks(scores: _Scores, tile: Tile) -> list[_Chunk]:
    """As many cells at a time as may hold their sums: those of whole heads, or else whole tiles of one head."""
    heads, cells, per_cell = scores.heads, len(scores.cells), scores.keys_stored
    together = max(1, tile.rows // power_of_two(scores.cells.largest))
    heads_step = _even_step(heads, SUMS_AT_ONCE // (cells * per_cell))
    tiles_step = _even_step(triton.cdiv(cells, together), SUMS_AT_ONCE // (heads_step * together * per_cell))
    return [
        _Chunk(head, min(heads_step, heads - head), cell, min(tiles_step * together, cells - cell))
        for head in range(0, heads, heads_step)
        for cell in range(0, cells, tiles_step * together)
    ]


def _key_splits(chip: Chip, programs: int, tiles: int) -> tuple[int, int]:
    """Among how many programs the tiles of keys are divided so that no processor idles, and how many each has."""
    per_split = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS_PER_PROCESSOR * chip.processors, programs)))
    return triton.cdiv(tiles, per_split), per_split


def _even_step(count: int, at_most: int) -> int:
    """A step that divides ``count`` evenly into as few parts as steps of ``at_most``, or of 1, need."""
    step: int = triton.cdiv(count, triton.cdiv(count, max(1, at_most)))
    return step
