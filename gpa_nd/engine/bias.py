"""Key masks and key biases: what is added to the affinities of a key, −∞ where it is masked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.engine.precision import wide
from gpa_nd.partition import Partition

SMALL = 2.0**-32  # so that sums of finite numbers, were they the largest or the lowest, stay finite


@dataclass(frozen=True)
class CoarseBias:
    """What Phase 1 knows of a key bias.

    Attributes:
        added: (B, H_k, n_k') the mean over the visible keys of each group, finite if these are; −∞ where none is
            visible.
        share: (B, H_k, n_k') the part of each group that is visible; 1 where none is, so that one can divide by it.
    """

    added: Float[Tensor, "b h_k n_k_low"]
    share: Float[Tensor, "b h_k n_k_low"]


def key_bias_of(key_mask: Tensor | None, key_bias: Tensor | None, k: Tensor) -> Float[Tensor, "b h_k n_k"] | None:
    """A mask (B, n_k) and a bias (B, H_k, n_k) as one bias, in the dtype that scores are computed in."""
    if key_bias is not None:
        key_bias = key_bias.to(wide(k.dtype))
    if key_mask is None:
        return key_bias
    hidden = ~key_mask[:, None]
    if key_bias is None:  # one for all heads
        return (
            torch.zeros(hidden.shape, dtype=wide(k.dtype), device=k.device)
            .masked_fill_(hidden, -torch.inf)
            .expand(k.shape[:3])
        )
    return key_bias.masked_fill(hidden, -torch.inf)


def hide(x: Tensor, bias: Tensor | None) -> Tensor:
    """Keys or values, zero where they are masked, so that they count for nothing, were they not numbers."""
    return x if bias is None else x.masked_fill(bias.isneginf()[..., None], 0)


def coarse_bias(bias: Float[Tensor, "b h_k n_k"], groups: Partition) -> CoarseBias:
    """The bias of coarse keys: masked keys do not enter the means."""
    if bias.stride(1) == 0 and bias.shape[1] > 1:  # one for all heads
        alone = coarse_bias(bias[:, :1], groups)
        return CoarseBias(*(x.expand(-1, bias.shape[1], -1) for x in (alone.added, alone.share)))
    seen = ~bias.isneginf()
    share = groups.mean(seen.to(bias.dtype)[..., None])[..., 0]
    nothing = share == 0
    share = share.masked_fill(nothing, 1)
    small = groups.mean(bias.masked_fill(~seen, 0)[..., None] * SMALL)[..., 0] / share
    most = torch.finfo(bias.dtype).max
    added = torch.where(small.isfinite(), (small / SMALL).clamp(-most, most), small)
    return CoarseBias(added.masked_fill(nothing, -torch.inf), share)
