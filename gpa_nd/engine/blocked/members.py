"""Line 15: from the coarse keys that a cell chose to the elements under them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gpa_nd.engine.blocked.blocks import possible
from gpa_nd.partition import Partition


class Members:
    """The elements under coarse keys, in as many columns for every cell.

    The number of columns comes from the partition and κ alone, with room for the κ largest groups: nothing that a
    tensor holds may sway the rounding of what is computed over them.

    Args:
        members: the elements under each coarse key.
        relevant: (..., κ) the coarse keys that each cell names.
    """

    def __init__(self, members: Partition, relevant: Int[Tensor, "*cells kappa"]) -> None:
        self.members, self.kappa = members, (kappa := relevant.shape[-1])
        sizes = members.host_offsets.diff()
        self.complete = kappa > 0 and members.uniform and not possible(relevant < 0)
        self.columns = max(1, int(sizes.topk(min(kappa, len(sizes))).values.sum()))
        self.aligned = 0 < kappa <= len(sizes) and self.columns == kappa * members.largest

    def of(
        self, chosen: Int[Tensor, "p kappa"]
    ) -> tuple[Int[Tensor, "p r"], Int[Tensor, "p r"], Bool[Tensor, "p r"] | None]:
        """The elements, which of the κ each comes from, and which of them are real; None if all are.

        The others repeat a real one of the same cell, so that what is computed over them stays within the cell; where a
        cell has none, they are element 0.
        """
        place = torch.arange(self.columns, device=chosen.device)
        if self.complete:
            elements = self.members.table.index_select(0, chosen.flatten()).view(len(chosen), -1)
            return elements, (place // self.members.largest).expand_as(elements), None
        named = chosen.clamp_min(0)
        if self.aligned:
            elements = torch.where(chosen[..., None] >= 0, self.members.table[named], -1).flatten(-2)
            seen, slot = elements >= 0, (place // self.members.largest).expand_as(elements)
            some = elements.gather(-1, seen.int().argmax(-1, keepdim=True)).clamp_min(0)
            return torch.where(seen, elements, some), slot, seen
        place = place.expand(len(chosen), -1).contiguous()
        if not chosen.shape[-1]:
            return torch.zeros_like(place), place, torch.zeros_like(place, dtype=torch.bool)
        stops = torch.where(chosen >= 0, self.members.sizes[named], 0).cumsum(-1)
        slot = torch.searchsorted(stops, place, right=True).clamp_max(chosen.shape[-1] - 1)
        group = named.gather(-1, slot)
        within = place - (stops.gather(-1, slot) - self.members.sizes[group])
        elements = self.members.order[(self.members.offsets[group] + within).clamp(0, self.members.num_elements - 1)]
        seen = place < stops[..., -1:]
        return torch.where(seen, elements, torch.where(seen, elements, 0)[:, :1]), slot, seen
