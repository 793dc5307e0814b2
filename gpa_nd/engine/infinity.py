"""Infinity in keys that nobody ranked."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def infinity_to_nan(k: Float[Tensor, "b h_k n_k c"]) -> Float[Tensor, "b h_k n_k c"]:
    """Keys with NaN for infinity, so that whoever attends to one gets NaN; its affinity −∞ would weigh nothing.

    Example:
        >>> import torch
        >>> infinity_to_nan(torch.tensor([[[[1.0, -torch.inf]]]])).tolist()
        [[[[1.0, nan]]]]
    """
    if not torch.compiler.is_compiling() and k.device.type == "cpu" and bool(k.detach().sum().isfinite()):
        return k
    return k.masked_fill(k.isinf(), torch.nan)
