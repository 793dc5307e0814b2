"""How many cells hold the sums of their coarse keys at the same time, and who computes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.scores import Scores
from gpa_nd.engine.fused.selection_tiles import PROGRAMS_PER_PROCESSOR, SUMS_AT_ONCE, Tile


@dataclass(frozen=True)
class Chunk:
    """Cells of heads whose sums are held at the same time.

    Attributes:
        first_head: the first head, counted over batch entries, too.
        heads: how many there are.
        first_cell: the first cell of each of these.
        cells: how many there are.
    """

    first_head: int
    heads: int
    first_cell: int
    cells: int


def chunks(scores: Scores, *, per_cell: int, together: int) -> list[Chunk]:
    """As many cells at a time as may hold their sums: those of whole heads, or else of one head.

    Args:
        scores: whose heads and cells are divided.
        per_cell: how many sums each cell has.
        together: how many neighbouring cells of a head are not to be parted, as they share a tile.
    """
    heads, cells = scores.heads, len(scores.cells)
    heads_step = _even_step(heads, SUMS_AT_ONCE // (cells * per_cell))
    tiles_step = _even_step(triton.cdiv(cells, together), SUMS_AT_ONCE // (heads_step * together * per_cell))
    return [
        Chunk(head, min(heads_step, heads - head), cell, min(tiles_step * together, cells - cell))
        for head in range(0, heads, heads_step)
        for cell in range(0, cells, tiles_step * together)
    ]


def room(scores: Scores, tile: Tile, chunks: list[Chunk], per_cell: int) -> tuple[Tensor, Tensor]:
    """For the sums of the largest chunk, and for the largest of each tile of keys."""
    held = max(chunk.heads * chunk.cells for chunk in chunks)
    sums = torch.empty(held, per_cell, dtype=torch.float32, device=scores.q_low.device)
    return sums, torch.empty(held, per_cell // tile.keys, dtype=torch.float32, device=scores.q_low.device)


def key_splits(chip: Chip, programs: int, tiles: int) -> tuple[int, int]:
    """Among how many programs the tiles of keys are divided so that no processor idles, and how many each has."""
    per_split = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS_PER_PROCESSOR * chip.processors, programs)))
    return triton.cdiv(tiles, per_split), per_split


def _even_step(count: int, at_most: int) -> int:
    """A step that divides ``count`` evenly into as few parts as steps of ``at_most``, or of 1, need."""
    step: int = triton.cdiv(count, triton.cdiv(count, max(1, at_most)))
    return step
