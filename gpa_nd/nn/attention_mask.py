"""What an attention mask says of keys alone."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

from gpa_nd.checks import check_tensor
from gpa_nd.engine.precision import wide


def row_of_mask(
    attn_mask: Shaped[Tensor, "*mask"], query: Shaped[Tensor, "b h n_q c"], key: Shaped[Tensor, "b h_k n_k c"]
) -> Shaped[Tensor, "_b _h 1 _n_k"]:
    """The one row that a mask has for all queries.

    Args:
        attn_mask: broadcast to (B, H, n_q, n_k) and the same for every query: with 1 or nothing in place of n_q, or
            expanded along it.
        query: (B, H, n_q, c).
        key: (B, H_k, n_k, c).

    Raises:
        TypeError: neither a boolean nor a floating point tensor.
        ValueError: a mask that is not broadcast to these shapes, or has a row for each query.

    Example:
        >>> x = torch.zeros(2, 4, 9, 8)
        >>> row_of_mask(torch.ones(2, 1, 1, 9), x, x).shape, row_of_mask(torch.ones(9).expand(9, 9), x, x).shape
        (torch.Size([2, 1, 1, 9]), torch.Size([1, 1, 1, 9]))
    """
    check_tensor("attn_mask", attn_mask)
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise TypeError(f"attn_mask: expected a boolean or floating point tensor, got {attn_mask.dtype}")
    full = (*query.shape[:3], key.shape[2])
    mask = attn_mask[(None,) * max(0, 4 - attn_mask.ndim)]
    if mask.ndim > 4 or any(size not in (1, wanted) for size, wanted in zip(mask.shape, full, strict=True)):
        raise ValueError(
            f"attn_mask: expected a shape that is broadcast to (batch, heads, queries, keys) = {full}, got "
            f"{tuple(attn_mask.shape)}"
        )
    if mask.shape[2] > 1 and mask.stride(2) != 0:
        raise ValueError(
            f"attn_mask: expected one row for all queries, such as padding in the shape ({full[0]}, 1, 1, {full[3]}), "
            f"got {tuple(attn_mask.shape)} with a row for each; GPA can hide keys from everybody, and what comes later "
            f"from a query where it was made with causal=True"
        )
    return mask[:, :, :1]


def mask_and_bias_of(
    row: Shaped[Tensor, "_b _h 1 _n_k"], key: Shaped[Tensor, "b h_k n_k c"]
) -> tuple[Tensor | None, Tensor | None]:
    """The same as the engine takes it: a mask of keys (B, n_k), or a bias (B, H_k, n_k); the other is None.

    Raises:
        ValueError: a row for each head of the queries, several of which share keys.
    """
    batch, heads, n_k = key.shape[:3]
    if row.dtype == torch.bool and row.shape[1] == 1:
        return row[:, 0, 0].expand(batch, n_k), None
    if row.shape[1] not in (1, heads):
        raise ValueError(
            f"attn_mask: expected one row for all heads, or one for each of {heads} that key has, got {row.shape[1]}"
        )
    if row.dtype == torch.bool:
        row = torch.zeros(row.shape, dtype=wide(key.dtype), device=row.device).masked_fill_(~row, -torch.inf)
    return None, row[:, :, 0].expand(batch, heads, n_k)
