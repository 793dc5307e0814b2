"""In which precision the engine computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 for float16 and bfloat16; otherwise the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def own_precision(q: Tensor) -> AbstractContextManager[object]:
    """Autocast would round the coarse logits of float32 inputs to half precision; the dtype of q, k and v decides."""
    kind = q.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
