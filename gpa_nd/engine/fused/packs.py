"""Small cells (groups) packed: neighbours share a tile and go through the union of their lists, each seeing its own.

A tile has at least 16 rows. Where neighbours choose alike, as on images, that saves most of what padding would cost.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

SPOILT = 32  # of a pack's first entry, the bits from here on say which of its cells are spoilt


def unions(
    relevant: Int[Tensor, "b h m kappa"], pack: int
) -> tuple[Int[Tensor, "b h packs width"], Int[Tensor, "b h packs width"]]:
    """The keys that each pack of cells names together, and for each of them the cells that do.

    Args:
        relevant: (B, H, m, κ); −1 names nothing, and neither does a row with −2, which is spoilt.
        pack: how many cells share a list; divides m.

    Returns:
        Names (B, H, m / pack, pack · κ) in ascending order, −1 last; and as many int64 of which bit i says that cell i
        of the pack names it. Bit 32 + i of a pack's first says that cell i is spoilt.
    """
    nothing = torch.iinfo(relevant.dtype).max
    spoilt = (relevant == -2).any(-1)
    names = relevant.masked_fill((relevant < 0) | spoilt[..., None], nothing).unflatten(2, (-1, pack)).flatten(-2)
    names, places = names.sort(dim=-1, stable=True)
    target, takers = merged(names, places // relevant.shape[-1])
    names = torch.full_like(names, nothing).scatter_(-1, target, names)
    bits = torch.ones_like(names[..., :pack]).cumsum(-1) - 1 + SPOILT
    takers[..., 0] += (spoilt.unflatten(2, (-1, pack)).long() << bits).sum(-1)
    return names.masked_fill(names == nothing, -1), takers


def merged(
    names: Int[Tensor, "*rows n"], numbers: Int[Tensor, "*rows n"]
) -> tuple[Int[Tensor, "*rows n"], Int[Tensor, "*rows n"]]:
    """Where each entry goes when neighbours of one name become one, and the bits of the numbers that came together.

    Entries of one name and one number stay apart.

    Example:
        >>> merged(torch.tensor([4, 4, 4, 9]), torch.tensor([0, 1, 1, 3]))
        (tensor([0, 0, 1, 2]), tensor([3, 2, 8, 0]))
    """
    joins = torch.zeros_like(names)
    joins[..., 1:] = (names[..., 1:] == names[..., :-1]) & (numbers[..., 1:] != numbers[..., :-1])
    target = (1 - joins).cumsum(-1) - 1
    return target, torch.zeros_like(names).scatter_add_(-1, target, 1 << numbers)
