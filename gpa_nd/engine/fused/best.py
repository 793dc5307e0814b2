"""The κ best coarse keys of each cell, from their sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused import best_kernels
from gpa_nd.engine.fused.chunks import Chunk
from gpa_nd.engine.fused.launch import launch
from gpa_nd.engine.fused.selection_tiles import Tile, select_tile


@dataclass(frozen=True)
class Best:
    """What is chosen.

    Attributes:
        keys: (B·H, m, κ) coarse keys.
        sums: (B·H, m, κ) their sums; None where nobody asks.
    """

    keys: Int[Tensor, "h m kappa"]
    sums: Float[Tensor, "h m kappa"] | None

    @classmethod
    def empty(cls, heads: int, cells: int, kappa: int, wants_sums: bool, device: torch.device) -> Best:
        """Room for the κ best of each cell, and for their sums if these are wanted."""
        sums = torch.zeros(heads, cells, kappa, dtype=torch.float32, device=device) if wants_sums else None
        return cls(torch.empty(heads, cells, kappa, dtype=torch.int64, device=device), sums)

    def of_heads(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both, (B, H, m, κ); no sums where nobody asks."""
        sums = self.keys.new_empty(len(self.keys), 0, 0, dtype=torch.float32) if self.sums is None else self.sums
        return self.keys.unflatten(0, q.shape[:2]), sums.clamp_min(0).unflatten(0, q.shape[:2])


def take(
    tile: Tile,
    chunk: Chunk,
    keys: int,
    ranges: Tensor | None,
    names: Tensor | None,
    hides: bool,
    sums: Tensor,
    maxima: Tensor,
    best: Best,
) -> None:
    """The κ best of so many, by their names, for a chunk of cells."""
    tiles = triton.cdiv(keys, tile.keys)
    blocks = select_tile(tiles)
    launch(
        best_kernels.select,
        (chunk.heads * chunk.cells,),
        *(sums, maxima, ranges, names, best.keys, best.sums),
        *(keys, tiles, chunk.first_head, chunk.first_cell, chunk.cells, *best.keys.shape[1:]),
        KEYS=tile.keys,
        TILES=blocks.tiles,
        BLOCKS=blocks.blocks,
        HIDES=hides,
        num_warps=1,
    )
