"""The affinities of coarse queries and coarse keys: what the kernels of Phase 1 compute them from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.pooling import padded, pool
from gpa_nd.engine.fused.selection_tiles import Tile, channel_parts

LOG2_E = math.log2(math.e)
LAST = torch.iinfo(torch.int64).max  # a position later than all others


@dataclass(frozen=True)
class Scores:
    """The affinities of coarse queries, in the order of their cells, and coarse keys, which no tensor ever holds.

    Batch and heads are one axis throughout; the keys are followed by rows of zeros, to whole tiles.

    Attributes:
        q_low: (B·H, rows, stored) coarse queries, cell after cell; those of a cell may be those of others, too. Behind
            the channels stand zeros.
        k_low: (B·H_k, keys stored, stored) coarse keys.
        keys: n_k', how many of them are real.
        channels: how many channels are real.
        cells: which rows rank for each cell.
        ranges: (m, 2) the coarse keys that each cell may see; None for all.
        cell_positions: (m, axes) where each cell stands; None if no axis is causal.
        key_positions: (keys stored, axes) where each coarse key stands.
        added: (B·H_k, keys stored) what is added to the affinities of each coarse key, −∞ where it is hidden; or None.
        scale: factor of the affinity, above zero: the sign of a negative one is in the coarse queries.
        chip: what the kernels run on.
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

    @classmethod
    def of(
        cls,
        q: Float[Tensor, "b h n_q c"],
        k: Float[Tensor, "b h_k n_k c"],
        *,
        queries: Groups,
        cells: Groups,
        groups: Groups,
        tile: Tile,
        scale: float,
        chip: Chip,
        added: Float[Tensor, "b h_k n_k_low"] | None,
        share: Float[Tensor, "b h_k n_k_low"] | None = None,
        ranges: Int[Tensor, "m 2"] | None = None,
        cell_positions: Int[Tensor, "m axes"] | None = None,
        key_positions: Int[Tensor, "n_k_low axes"] | None = None,
    ) -> Scores:
        """Pool queries and keys.

        Args:
            q: (B, H, n_q, c) queries.
            k: (B, H_k, n_k, c) keys.
            queries: which of the queries are in each group.
            cells: which groups rank for each cell.
            groups: which of the keys are in each group.
            tile: how many coarse keys the kernels take at a time.
            scale: factor of the affinity.
            chip: what the kernels run on.
            added: (B, H_k, n_k') what is added to the affinities of each coarse key, −∞ where it is hidden.
            share: (B, H_k, n_k') the part of each group that is visible.
            ranges: (m, 2) the coarse keys that each cell may see.
            cell_positions: (m, axes) where each cell stands.
            key_positions: (n_k', axes) where each coarse key stands.
        """
        q_low = pool(q, queries, chip, len(cells.order), cells.order)
        if scale <= 0:  # the kernels multiply by what is above zero
            q_low *= -1 if scale < 0 else 0
        stored = triton.cdiv(len(groups), tile.keys) * tile.keys
        return cls(
            q_low=q_low,
            k_low=pool(k, groups, chip, stored, share=share),
            keys=len(groups),
            channels=q.shape[-1],
            cells=cells,
            ranges=None if ranges is None else ranges.contiguous(),
            cell_positions=None if cell_positions is None else cell_positions.contiguous(),
            key_positions=None if key_positions is None else padded(key_positions.mT, stored, LAST).mT.contiguous(),
            added=None if added is None else padded(added.flatten(0, 1), stored, -torch.inf),
            scale=abs(scale) or 1.0,
            chip=chip,
        )

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

    @cached_property
    def added_in_base_2(self) -> Float[Tensor, "h_k keys_stored"] | None:
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
