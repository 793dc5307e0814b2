"""The selected keys turned round: which cells chose each coarse key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Lists:
    """For every key head, the entries of ``relevant`` sorted by the coarse key that they name.

    Attributes:
        entries: (B · H_k · length,) places in ``relevant``, seen as (B · H_k, length); of one coarse key in ascending
            order, counted through all heads.
        offsets: (B · H_k, n_k' + 1) where the list of each coarse key starts in ``entries``.
        length: how many entries a head has, those that name no key among them: (H / H_k) · m · κ.
    """

    entries: Int[Tensor, " entries"]
    offsets: Int[Tensor, "heads groups_plus_1"]
    length: int


def turned_round(relevant: Int[Tensor, "b h m kappa"], groups: int, key_heads: int) -> Lists:
    """Turn the selection round by one stable sort; nothing waits for a GPU.

    Args:
        relevant: (B, H, m, κ) coarse keys; −1 names none, and no entry of a row with −2 does.
        groups: n_k', how many coarse keys there are.
        key_heads: H_k.
    """
    heads = relevant.shape[0] * key_heads
    nothing = (relevant < 0) | (relevant == -2).any(-1, keepdim=True)
    names = relevant.masked_fill(nothing, groups).view(heads, -1)
    # One sort for all heads: each head's names are past those of the heads before it.
    bases = torch.arange(heads, device=relevant.device)[:, None] * (groups + 1)
    narrow = torch.int32 if heads * (groups + 1) < 2**31 else torch.int64
    ordered, entries = (names + bases).to(narrow).flatten().sort(stable=True)
    wanted = (bases + torch.arange(groups + 1, device=relevant.device)).to(narrow)
    return Lists(entries, torch.searchsorted(ordered, wanted), names.shape[1])
