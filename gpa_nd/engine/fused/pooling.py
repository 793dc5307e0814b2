"""Means of groups, as the kernels of Phase 1 want them."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from gpa_nd.engine.fused import pooling_kernels
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip, launch, with_whole_rows
from gpa_nd.engine.fused.selection_tiles import channel_parts, pool_tile


def pool(
    x: Tensor, groups: Groups, chip: Chip, stored: int, places: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """(B·H, stored, channels) means of groups: row i is group ``places[i]``, or i; zeros after the last."""
    batch, heads, _, c = x.shape
    x = with_whole_rows(x)
    channels = sum(channel_parts(c))
    low = torch.empty(batch * heads, stored, channels, dtype=x.dtype, device=x.device)
    tile = pool_tile(channels, groups.largest)
    launch(
        pooling_kernels.pool,
        (batch * heads * triton.cdiv(stored, tile.groups),),
        *(x, groups.order, groups.offsets_if_ragged, places, None if share is None else share.contiguous(), low),
        *(heads, len(groups) if places is None else len(places), stored, groups.largest),
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


def groups_of_one(x: Tensor) -> Groups:
    """Every element as a group of its own."""
    places = torch.arange(x.shape[2] + 1, device=x.device)
    return Groups(places[:-1], places, 1)


def padded(x: Tensor, width: int, value: float) -> Tensor:
    """Rows of so many numbers, this one after those that are there."""
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value)
