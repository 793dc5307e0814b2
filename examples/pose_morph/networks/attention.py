"""The attention of one decoder level: GPA, full attention, or either under cosine similarity."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from examples.pose_morph.presets import Level, ModelSettings
from gpa_nd import GPA
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner


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


def make_attention(level: Level, settings: ModelSettings) -> nn.Module | None:
    """Build the attention of ``level``; None where ``settings.attention`` is "no" and the level would use GPA."""
    scale = 1.0 if settings.sharpness else None
    attention: nn.Module
    if level.downsample is None or settings.attention == "full":
        attention = FullAttention(scale=scale)
    elif settings.attention == "no":
        return None
    else:
        assert level.cells is not None
        assert level.kappa is not None
        attention = GPA(GridPartitioner(level.cells), GridDownsampler(level.downsample), kappa=level.kappa, scale=scale)
    return CosineAttention(attention, sharpness=settings.sharpness) if settings.sharpness else attention
