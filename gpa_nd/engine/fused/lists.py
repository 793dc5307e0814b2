"""The selected keys turned round: which cells chose each coarse key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.engine.fused.packs import merged


@dataclass(frozen=True)
class Lists:
    """For every key head, the entries of ``relevant`` sorted by the coarse key, or pack of coarse keys, that they name.

    Attributes:
        entries: (B · H_k · length,) places in ``relevant``, seen as (B · H_k, length); of one coarse key in ascending
            order, counted through all heads.
        offsets: (B · H_k, n_k' / pack + 1) where the list of each coarse key (pack) starts in ``entries``.
        length: how much room for entries a head has: (H / H_k) · m · κ.
        takers: (B · H_k · length,): bit i says that the entry's cell chose coarse key i of the pack; of no meaning
            where nothing is packed.
    """

    entries: Int[Tensor, " entries"]
    offsets: Int[Tensor, "heads groups_plus_1"]
    length: int
    takers: Int[Tensor, " entries"]


def turned_round(relevant: Int[Tensor, "b h m kappa"], groups: int, key_heads: int, pack: int = 1) -> Lists:
    """Turn the selection round by one sort; nothing waits for a GPU.

    Args:
        relevant: (B, H, m, κ) coarse keys; −1 names none, and no entry of a row with −2 does.
        groups: n_k', how many coarse keys there are.
        key_heads: H_k.
        pack: how many coarse keys share a list; divides ``groups``.
    """
    heads, kappa = relevant.shape[0] * key_heads, relevant.shape[-1]
    nothing = (relevant < 0) | (relevant == -2).any(-1, keepdim=True)
    names = relevant.masked_fill(nothing, groups).view(heads, -1)
    length = names.shape[1]
    # One sort for all heads: each head's ranks are past those of the heads before it.
    if pack == 1:
        each, ranks = 1, names
    else:  # by pack, then by cell, then by coarse key
        each = length // max(kappa, 1) * pack
        cell = torch.arange(length, device=names.device) // max(kappa, 1)
        ranks = names // pack * each + cell * pack + names % pack
    bases = torch.arange(heads, device=names.device)[:, None] * ((groups // pack + 1) * each)
    narrow = torch.int32 if heads * (groups // pack + 1) * each < 2**31 else torch.int64
    ordered, entries = (ranks + bases).to(narrow).flatten().sort(stable=True)
    firsts = bases + torch.arange(groups // pack + 1, device=names.device) * each
    offsets = torch.searchsorted(ordered, firsts.to(narrow))
    if pack == 1:
        return Lists(entries, offsets, length, entries)

    ordered = ordered.view(heads, length).long()
    target, takers = merged(ordered // pack, ordered % pack)
    starts = torch.arange(heads, device=names.device)[:, None] * length
    before = torch.cat([target.new_zeros(heads, 1), target + 1], dim=1)  # entries that are kept, up to each
    # Of entries that become one any may stay: all are of one cell, and only logits ask which of its κ they were.
    return Lists(
        torch.zeros_like(target).scatter_(1, target, entries.view(heads, length)).flatten(),
        starts + before.gather(1, offsets - starts),
        length,
        takers.flatten(),
    )
