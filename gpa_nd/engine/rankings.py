"""What coarse keys are ranked by, beside their means: how long keys are, and how much they differ within a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gpa_nd.engine.precision import wide

Ranking = Literal["mean", "rms", "moments", "rerank"]


@dataclass(frozen=True)
class Spread:
    """How much the keys of a group differ.

    A query q attends to a group of g keys with weight exp(q·k), summed. If the q·k were normally distributed with
    variance s², the logarithm of the mean of exp would be s²/2 above the mean of q·k, but g numbers do not reach far
    into the tail: their mean of exp is at most that of a Gaussian up to s² = 2 ln g, and from there on their largest
    one decides, which lies s·√(2 ln g) above the mean and is one of g (the freezing of the random energy model, Derrida
    1981). As s counts the deviation of a channel, in the root mean square over channels, times |q|.

    Attributes:
        deviation: (B, H_k, n_k') root of the mean over channels of the variance of visible keys.
        log_size: (B, H_k, n_k') logarithm of the number of visible keys.
    """

    deviation: Float[Tensor, "... n_k_low"]
    log_size: Float[Tensor, "... n_k_low"]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both of them."""
        return self.deviation, self.log_size


def gain(
    lengths: Float[Tensor, "... n_q_low"], deviation: Float[Tensor, "... _one n_k_low"], log_size: Tensor
) -> Float[Tensor, "... n_q_low n_k_low"]:
    """What the spread of a group adds to the affinities of its mean.

    Args:
        lengths: (…, n_q') lengths of coarse queries, times the scale.
        deviation: (…, 1, n_k') as in :class:`Spread`.
        log_size: (…, 1, n_k') as in :class:`Spread`.
    """
    reach = lengths[..., None] * deviation
    edge = (2 * log_size).sqrt()
    return torch.where(reach <= edge, reach.square() / 2, reach * edge - log_size)


def length(x: Float[Tensor, "*rows c"]) -> Float[Tensor, " *rows"]:
    """Euclidean lengths, whose squares may be more than the dtype holds."""
    largest = x.abs().amax(-1, keepdim=True)
    largest = largest.masked_fill(largest == 0, 1)
    return ((x / largest).square().sum(-1, keepdim=True).sqrt() * largest)[..., 0]


def as_long_as_keys(k_low: Float[Tensor, "b h_k n c"], squares: Float[Tensor, "b h_k n"]) -> Tensor:
    """Coarse keys, made as long as the root mean square of their keys: averaging vectors shortens them."""
    low = k_low.to(wide(k_low.dtype))
    longer = (squares / low.square().sum(-1)).sqrt()
    longer = longer.masked_fill(~longer.isfinite(), 1)  # a mean of zero stays one, and NaN stays where it is
    most = torch.finfo(k_low.dtype).max  # a mean that is lengthened may be longer in one channel than any key
    return torch.where(low.isfinite(), (low * longer[..., None]).clamp(-most, most), low).to(k_low.dtype)
