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
    1981). As variance counts that of a channel, in the mean over channels, times |q|².

    Attributes:
        variance: (B, H_k, n_k') mean over channels of the variance of visible keys.
        log_size: (B, H_k, n_k') logarithm of the number of visible keys.
    """

    variance: Float[Tensor, "b h_k n_k_low"]
    log_size: Float[Tensor, "b h_k n_k_low"]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both of them."""
        return self.variance, self.log_size


def gain(
    lengths: Float[Tensor, "*b_h n_q_low"], variance: Float[Tensor, "*b_h _n_q n_k_low"], log_size: Tensor
) -> Float[Tensor, "*b_h n_q_low n_k_low"]:
    """What the spread of a group adds to the affinities of its mean.

    Args:
        lengths: (…, n_q') squared lengths of coarse queries, times the squared scale.
        variance: (…, 1, n_k') as in :class:`Spread`.
        log_size: (…, 1, n_k') as in :class:`Spread`.
    """
    variance, most = lengths[..., None] * variance, 2 * log_size
    return torch.where(variance <= most, variance / 2, (most * variance).sqrt() - most / 2)


def spread_of(k_low: Tensor, squares: Float[Tensor, "b h_k n_k_low"], sizes: Tensor) -> Spread:
    """The spread of keys from their pooled vectors, the means of their squared lengths, and how many are visible."""
    of_mean = k_low.to(squares.dtype).square().sum(-1)
    variance = ((squares - of_mean) / k_low.shape[-1]).clamp_min(0)
    return Spread(variance.nan_to_num(0, 0), sizes.clamp_min(1).log().expand(variance.shape))


def as_long_as_keys(k_low: Float[Tensor, "b h_k n c"], squares: Float[Tensor, "b h_k n"]) -> Tensor:
    """Coarse keys, made as long as the root mean square of their keys: averaging vectors shortens them."""
    low = k_low.to(wide(k_low.dtype))
    longer = (squares / low.square().sum(-1)).sqrt()
    longer = longer.masked_fill(~longer.isfinite(), 1)  # a mean of zero stays one, and NaN stays where it is
    return (low * longer[..., None]).to(k_low.dtype)
