"""The affinities of coarse queries and coarse keys: what the kernels of Phase 1 compute them from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.selection_tiles import Tile, channel_parts

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Scores:
    """The affinities of coarse queries, in the order of their cells, and coarse keys, which no tensor ever holds.

    Batch and heads are one axis throughout; the keys are followed by rows of zeros, to whole tiles.
    """

    q_low: Float[Tensor, "h rows stored"]
    k_low: Float[Tensor, "h_k keys_stored stored"]
    keys: int
    channels: int
    cells: Groups
    ranges: Int[Tensor, "m 2"] | None
    cell_positions: Int[Tensor, "m axes"] | None
    key_positions: Int[Tensor, "keys_stored axes"] | None
    added: Float[Tensor, "h_k keys_stored"] | None
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
    def hides(self) -> bool:
        """Whether coarse keys inside of a range may be hidden."""
        return self.cell_positions is not None or self.added is not None

    @property
    def added_in_base_2(self) -> Tensor | None:
        """The bias beside affinities times log₂ e. What is finite stays so: people hide keys by the lowest number."""
        if self.added is None:
            return None
        most = torch.finfo(self.added.dtype).max
        return torch.where(self.added.isfinite(), (self.added * LOG2_E).clamp(-most, most), self.added)

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
            "AXES": 0 if self.cell_positions is None else self.cell_positions.shape[1],
            "PRECISION": self.chip.precision if self.q_low.dtype == torch.float32 else "ieee",
            "EMULATED": self.chip.is_interpreter,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            # Ranges and what else hides need more registers than the assembler takes by itself.
            **({"maxnreg": 255} if self.chip.is_nvidia and (self.ranges is not None or self.hides) else {}),
        }
