"""GatedCoarse: GPA, and beside it a coarse view of everything, through a gate that is learned."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gpa_nd.checks import check_int, check_positive
from gpa_nd.engine.coarse import coarse_attention
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.structure import check_operator


class GatedCoarse(nn.Module):
    """GPA(q, k, v) + gate(q) · :func:`~gpa_nd.coarse_attention`, as in VSA and NSA.

    The coarse branch sees every group, so that queries and keys get gradients from groups that were not selected. The
    gate is a sigmoid of a linear map of each query. It begins at one small number for all of them, so that the result
    begins near that of the GPA alone.

    Args:
        gpa: what attends; its affinity, scale and shared heads are those of the coarse branch.
        channels: c, those of a query.
        initial: where the gate begins, between 0 and 1.

    Raises:
        TypeError: ``gpa`` is no :class:`~gpa_nd.GPA`, or a number is none.
        ValueError: ``channels`` below 1, or ``initial`` not between 0 and 1.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.nn import GatedCoarse
        >>> attention = GatedCoarse(gpa_nd.image(downsample=4, cells=(4, 4), kappa=2), channels=16)
        >>> q, k, v = torch.randn(3, 1, 2, 32, 48, 16)
        >>> attention(q, k, v).shape
        torch.Size([1, 2, 32, 48, 16])
    """

    def __init__(self, gpa: GPA, channels: int, initial: float = 0.05) -> None:
        super().__init__()
        check_operator("gpa", gpa, GPA)
        check_int("channels", channels, at_least=1)
        check_positive("initial", initial)
        if initial >= 1:
            raise ValueError(f"initial: expected a number below 1, got {initial}")
        self.gpa, self.gate = gpa, nn.Linear(channels, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, math.log(initial / (1 - initial)))

    def forward(
        self,
        q: Float[Tensor, "b h *query c"],
        k: Float[Tensor, "b h_k *key c"],
        v: Float[Tensor, "b h_k *key c_v"],
        *,
        key_mask: Bool[Tensor, " b *key"] | None = None,
        key_bias: Float[Tensor, "b h_k *key"] | None = None,
    ) -> Float[Tensor, "b h *query c_v"]:
        """Attend at full resolution to what is relevant, and at low resolution to everything.

        Args:
            q: ``(B, H, *query_shape, c)`` queries; not nested.
            k: ``(B, H, *key_shape, c)`` keys.
            v: ``(B, H, *key_shape, c_v)`` values.
            key_mask: ``(B, *key_shape)`` bool, False for keys that nobody sees.
            key_bias: ``(B, H_k, *key_shape)``, added to the affinities of each key.

        Returns:
            ``(B, H, *query_shape, c_v)``.

        Raises:
            TypeError: not tensors of one floating point dtype.
            ValueError: shapes that do not fit one another, the operators or the gate.
        """
        out: Tensor = self.gpa(q, k, v, key_mask=key_mask, key_bias=key_bias)
        if q.is_nested:
            raise ValueError(
                "q: expected a tensor that is not nested; packs go through gpa.packed and coarse_attention"
            )
        if q.shape[-1] != self.gate.in_features:
            raise ValueError(f"q: expected {self.gate.in_features} channels as the gate has, got {q.shape[-1]}")
        query_shape, key_shape = (tuple(int(n) for n in x.shape[2:-1]) for x in (q, k))
        coarse = coarse_attention(
            q.flatten(2, -2),
            k.flatten(2, -2),
            v.flatten(2, -2),
            self.gpa.layout(query_shape, key_shape, q.device),
            key_mask=None if key_mask is None else key_mask.flatten(1),
            key_bias=None if key_bias is None else key_bias.flatten(2),
            scale=self.gpa.scale,
            affinity=self.gpa.affinity,
            enable_gqa=self.gpa.enable_gqa,
        )
        gate = self.gate(q).sigmoid().to(out.dtype)
        result: Tensor = out + gate * torch.unflatten(coarse, 2, query_shape)
        return result
