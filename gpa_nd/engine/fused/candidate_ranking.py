"""The candidates of each cell alone ranked, by their means or by their members."""

from __future__ import annotations

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused import candidate_kernels
from gpa_nd.engine.fused.best import Best, take
from gpa_nd.engine.fused.chunks import chunks, room
from gpa_nd.engine.fused.launch import launch
from gpa_nd.engine.fused.pooling import padded
from gpa_nd.engine.fused.scores import LOG2_E, Scores
from gpa_nd.engine.fused.selection_tiles import Tile, candidate_tile_of


def rank_candidates(
    scores: Scores,
    tile: Tile,
    candidates: Int[Tensor, "h m count"],
    best: Best,
    members: Int[Tensor, "n_k_low most"] | None = None,
) -> None:
    """The best of the candidates of each cell alone; −1 is none.

    With ``members``, which say what keys each candidate has, it is these that are scored, and their sums are added up.
    """
    if not candidates.shape[-1]:
        candidates = candidates.new_full((*candidates.shape[:2], 1), -1)
    if members is None:
        nothing = torch.iinfo(torch.int32).max
        ordered = candidates.int().masked_fill(candidates < 0, nothing).sort(dim=-1).values
        named = names = ordered.masked_fill(ordered == nothing, -1)  # ties go to the lower number
    else:
        named = candidates.int().contiguous()
        names = members.int()[candidates.clamp_min(0)].masked_fill_(candidates[..., None] < 0, -1).flatten(2)
    count, cells, k_low = names.shape[2], scores.cells, scores.k_low
    tile = candidate_tile_of(tile, cells.largest, count)
    lse = None
    if cells.largest > 1 or members is not None or best.sums is not None:
        lse = torch.empty(scores.heads, 2, scores.rows, dtype=torch.float32, device=names.device)
        tiles, cell_of_tile = cells.tiles(tile.rows)
        launch(
            candidate_kernels.candidate_log_sum_exp,
            (scores.heads * tiles,),
            *(scores.q_low, k_low, names, cells.offsets, cell_of_tile),
            *(scores.ranges, scores.cell_positions, scores.key_positions, scores.added_in_base_2, lse),
            *(scores.shared, scores.rows, scores.keys_stored, len(cells), tiles, count, scores.scale * LOG2_E),
            CELL=cells.size,
            **scores.constants(tile),
        )
    scale = scores.scale if lse is None else scores.scale * LOG2_E
    added = scores.added if lse is None else scores.added_in_base_2
    per_cell = triton.cdiv(count, tile.keys) * tile.keys
    parts = chunks(scores, per_cell=per_cell, together=1)
    sums, maxima = room(scores, tile, parts, per_cell)
    for chunk in parts:
        launch(
            candidate_kernels.candidate_sums,
            (chunk.heads * chunk.cells * triton.cdiv(count, tile.keys),),
            *(scores.q_low, k_low, lse, names, cells.offsets),
            *(scores.ranges, scores.cell_positions, scores.key_positions, added, sums, maxima),
            *(scores.shared, scores.rows, scores.keys_stored),
            *(chunk.first_head, chunk.first_cell, chunk.cells, len(cells), count, scale),
            **scores.constants(tile),
        )
        if members is None:
            take(tile, chunk, count, None, names, True, sums, maxima, best)
        else:
            together = _added_up(sums[: chunk.heads * chunk.cells, :count], members.shape[1], tile)
            take(tile, chunk, named.shape[2], None, named, True, *together, best)


def _added_up(sums: Float[Tensor, "rows count"], members: int, tile: Tile) -> tuple[Tensor, Tensor]:
    """The sums of so many neighbours each, in whole tiles, and the largest of each tile; −∞ is what is not seen."""
    each = sums.unflatten(1, (-1, members))
    unseen = each == -torch.inf
    totals = each.masked_fill(unseen, 0).sum(-1).masked_fill(unseen.all(-1), -torch.inf)
    tiles = triton.cdiv(totals.shape[1], tile.keys)
    totals = padded(totals, tiles * tile.keys, -torch.inf).contiguous()
    return totals, totals.view(len(totals), tiles, tile.keys).amax(-1)
