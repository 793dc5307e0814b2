"""All coarse keys ranked for every cell: log-sum-exp, sums over each cell chunk by chunk, the κ best of each."""

from __future__ import annotations

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from gpa_nd.engine.fused import selection_kernels as kernels
from gpa_nd.engine.fused.best import Best, take
from gpa_nd.engine.fused.chunks import Chunk, chunks, key_splits, room
from gpa_nd.engine.fused.launch import launch
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.scores import LOG2_E, Scores
from gpa_nd.engine.fused.selection_tiles import Tile, sum_tile_of


def rank(scores: Scores, tile: Tile, best: Best) -> None:
    """Fill ``best`` from all coarse keys that cells may see."""
    lse = None
    if scores.cells.largest > 1 or best.sums is not None:  # one row ranks as its softmax does
        lse = log_sum_exp(scores, tile)
    tile = sum_tile_of(tile, scores.cells.largest, scores.keys_stored)
    together = max(1, tile.rows // power_of_two(scores.cells.largest))
    parts = chunks(scores, per_cell=scores.keys_stored, together=together)
    sums, maxima = room(scores, tile, parts, scores.keys_stored)
    for chunk in parts:
        cell_sums(scores, tile, chunk, lse, sums, maxima)
        take(tile, chunk, scores.keys, scores.ranges, None, scores.hides, sums, maxima, best)


def log_sum_exp(scores: Scores, tile: Tile) -> Float[Tensor, "h splits 2 rows"]:
    """Base-2 log-sum-exp of each coarse query, in as many parts as its keys are divided into: largest, and the rest."""
    row_tiles = triton.cdiv(scores.rows, tile.rows)
    splits, per_split = key_splits(scores.chip, scores.heads * row_tiles, scores.keys_stored // tile.keys)
    ranges, positions = (
        None if x is None else x.repeat_interleave(scores.cells.offsets.diff(), 0, output_size=scores.rows)
        for x in (scores.ranges, scores.cell_positions)
    )
    lse = torch.empty(scores.heads, splits, 2, scores.rows, dtype=torch.float32, device=scores.q_low.device)
    launch(
        kernels.log_sum_exp,
        (scores.heads * splits * row_tiles,),
        *(scores.q_low, scores.k_low, ranges, positions, scores.key_positions, scores.added_in_base_2, lse),
        *(scores.shared, scores.rows, scores.keys, scores.keys_stored),
        *(splits, per_split, scores.scale * LOG2_E),
        EVEN=scores.keys % tile.keys == 0,
        **scores.constants(tile),
    )
    return lse


def cell_sums(scores: Scores, tile: Tile, chunk: Chunk, lse: Tensor | None, sums: Tensor, maxima: Tensor) -> None:
    """Fill ``sums`` (heads, cells, keys_stored) and ``maxima`` (heads, cells, tiles of keys) for a chunk."""
    where = (chunk.first_head, chunk.first_cell, chunk.cells)
    shape = (scores.shared, scores.rows, scores.keys, scores.keys_stored)
    tiles, cells = scores.keys_stored // tile.keys, scores.cells
    splits = 1 if lse is None else lse.shape[1]
    scale = scores.scale if lse is None else scores.scale * LOG2_E
    added = scores.added if lse is None else scores.added_in_base_2
    hiding = (scores.ranges, scores.cell_positions, scores.key_positions, added)
    if cells.largest > tile.rows:
        launch(
            kernels.large_cell_sums,
            (chunk.heads * chunk.cells * tiles,),
            *(scores.q_low, scores.k_low, lse, cells.offsets, *hiding, sums, maxima),
            *(*shape, *where, splits, scale),
            **scores.constants(tile),
        )
        return
    slots = power_of_two(cells.largest)
    programs = chunk.heads * triton.cdiv(chunk.cells, tile.rows // slots)
    splits_of_keys, per_split = key_splits(scores.chip, programs, tiles)
    launch(
        kernels.cell_sums,
        (programs * splits_of_keys,),
        *(scores.q_low, scores.k_low, lse, cells.offsets_if_ragged, *hiding, sums, maxima),
        *(*shape, *where, splits, scale, cells.largest, splits_of_keys, per_split),
        SLOTS=slots,
        **scores.constants(tile),
    )
