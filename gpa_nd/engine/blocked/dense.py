"""Dense attention, where every key is selected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Float[Tensor, "b h n_q c_v"]:
    """What both phases give when every coarse key is selected: dense attention, and NaN where they answer NaN."""
    c_v = v.shape[-1]
    widest = max(q.shape[-1], c_v)  # PyTorch's fused path wants as many channels in v as in q and k
    q_padded, k_padded, v = (x if x.shape[-1] == widest else F.pad(x, (0, widest - x.shape[-1])) for x in (q, k, v))
    shared = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q_padded, k_padded, v, scale=scale, enable_gqa=shared)[..., :c_v]
    rankable = q.isfinite().all(-1, keepdim=True) & _of_query_heads(k.isfinite().all(-1).all(-1), q)[..., None, None]
    return out.masked_fill(~rankable, torch.nan)


def _of_query_heads(x: Tensor, q: Tensor) -> Tensor:
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)
