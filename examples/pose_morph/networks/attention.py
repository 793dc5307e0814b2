"""The attention of one decoder level, of any kind, and any of them under cosine similarity."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.networks.low_rank import NystromAttention, PerformerAttention, landmarks_of
from examples.pose_morph.networks.settings import Attention, Full, Grid, Nystromformer, Performer
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

SHARPEST_PERFORMER = 3.0
"""Cosine attention starts no sharper than this around Performer.

512 random features follow dense attention at 3 (correlation 0.93 on smooth fields), hardly at 5 (0.7), and not at 10
(0.3), where they pass no gradient either, and nothing would ever be learnt.
"""


class FullAttention(nn.Module):
    """Dense attention over all keys of a grid, in one call of PyTorch's fused attention."""

    def __init__(self, *, scale: float | None = None) -> None:
        """Use ``scale``, or 1/sqrt(c) if None."""
        super().__init__()
        self.scale = scale

    def forward(
        self,
        q: Float[Tensor, "b heads h w c"],
        k: Float[Tensor, "b heads h2 w2 c"],
        v: Float[Tensor, "b heads h2 w2 d"],
    ) -> Float[Tensor, "b heads h w d"]:
        """Attend."""
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        # The fused call wants one width for q, k and v; zeros change nothing.
        width = max(q.shape[-1], v.shape[-1])
        flat_q, flat_k, flat_v = (F.pad(x.flatten(2, -2), (0, width - x.shape[-1])).contiguous() for x in (q, k, v))
        out = F.scaled_dot_product_attention(flat_q, flat_k, flat_v, scale=scale)[..., : v.shape[-1]]
        return out.unflatten(2, q.shape[2:-1])


class CosineAttention(nn.Module):
    """Attention on normalised queries and keys under a learned temperature.

    Ours, not the paper's: a copy must be sharp, and dot products take long to grow that far.
    """

    def __init__(self, attention: Callable[[Tensor, Tensor, Tensor], Tensor], *, sharpness: float) -> None:
        """Wrap ``attention``, which must use scale 1; ``sharpness`` is the first value of 1 / temperature."""
        super().__init__()
        self.attention = attention
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))

    def forward(
        self,
        q: Float[Tensor, "b heads h w c"],
        k: Float[Tensor, "b heads h2 w2 c"],
        v: Float[Tensor, "b heads h2 w2 d"],
    ) -> Float[Tensor, "b heads h w d"]:
        """Attend."""
        q = F.normalize(q, dim=-1) * self.log_sharpness.exp()
        return self.attention(q, F.normalize(k, dim=-1), v)


def make_attention(
    kind: Attention, *, size: tuple[int, int], key_channels: int, sharpness: float = 0.0
) -> nn.Module | None:
    """Build the attention of a level on ``(b, heads, h, w, c)``; None where the level has none.

    Args:
        kind: What to build.
        size: Height and width of the level.
        key_channels: Channels of queries and keys.
        sharpness: Of cosine attention; 0 means plain dot products over sqrt(c).
    """
    scale = 1.0 if sharpness else None
    attention: nn.Module
    match kind:
        case None:
            return None
        case Full():
            attention = FullAttention(scale=scale)
        case Grid(downsample, cells, kappa):
            attention = GPA(GridPartitioner(cells), GridDownsampler(downsample), kappa=kappa, scale=scale)
        case Nystromformer(rank):
            attention = NystromAttention(landmarks_of(rank, math.prod(size)), scale=scale)
        case Performer(rank):
            attention = PerformerAttention(rank, key_channels=key_channels, scale=scale)
            sharpness = min(sharpness, SHARPEST_PERFORMER)
    return CosineAttention(attention, sharpness=sharpness) if sharpness else attention
