"""The calls that are checked and timed: Phase 1, Phase 2, and both, over the tokens of a row."""

from __future__ import annotations

from torch import Tensor

import gpa_nd
from benchmarks.gpu.rows import Tokens
from gpa_nd.engine import Backend


def select(data: Tokens, kappa: int | tuple[int, ...]) -> Tensor:
    """Phase 1 by the fused backend."""
    q, k = data.q.detach(), data.k.detach()
    bias = None if data.bias is None else data.bias.detach()
    return gpa_nd.select_keys(
        q, k, data.layout, kappa=kappa, key_bias=bias, enable_gqa=data.shares_heads, backend="triton"
    )


def attend(data: Tokens, relevant: Tensor, backend: Backend) -> Tensor:
    """Phase 2."""
    return gpa_nd.attend(
        data.q,
        data.k,
        data.v,
        data.layout,
        relevant,
        logits=data.logits,
        key_bias=data.bias,
        enable_gqa=data.shares_heads,
        backend=backend,
    )


def whole(data: Tokens, kappa: int | tuple[int, ...], backend: Backend) -> Tensor:
    """Both phases."""
    return gpa_nd.gpa_attention(
        data.q,
        data.k,
        data.v,
        data.layout,
        kappa=kappa,
        key_bias=data.bias,
        enable_gqa=data.shares_heads,
        backend=backend,
    )
