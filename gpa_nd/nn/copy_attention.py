"""CopyAttention: the attention block of Fig. 4b, which copies from a source to a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gpa_nd.checks import check_int, check_tensor

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


class CopyAttention(nn.Module):
    """Copy what the target asks for from the source (Fig. 4b).

    Three 1×1 convolutions make the query from the target (where to copy to), and key and value from the source (what to
    copy). The attention moves values along the affinity of keys and queries; its result joins the target as further
    channels, as in the paper's experiments, or is added to it. Channels come first, as convolutions have them, before
    any number of axes: (B, C, n) for audio and graphs, (B, C, h, w) for images, (B, C, t, h, w) for video.

    Args:
        target_channels: channels of the target.
        source_channels: channels of the source.
        out_channels: channels of the value, all heads together.
        attention: a :class:`~gpa_nd.GPA`, or any callable (q, k, v) → out on ``(B, heads, *shape, channels)``.
        heads: attention heads; the paper uses one.
        key_channels: channels of query and key, all heads together; ``out_channels`` by default.
        fuse: ``"concat"`` returns target_channels + out_channels channels, ``"residual"`` adds and wants the two equal.

    Raises:
        TypeError: ``attention`` cannot be called, or a number of channels is not an int.
        ValueError: a number of channels below 1 or not divisible by ``heads``, an unknown ``fuse``, or a residual of
            another number of channels.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.nn import CopyAttention
        >>> copy = CopyAttention(24, 16, 8, gpa_nd.image(downsample=4, cells=(4, 4), kappa=2))
        >>> copy(torch.randn(2, 24, 32, 32), torch.randn(2, 16, 32, 32)).shape
        torch.Size([2, 32, 32, 32])
    """

    def __init__(
        self,
        target_channels: int,
        source_channels: int,
        out_channels: int,
        attention: AttentionFunction,
        heads: int = 1,
        key_channels: int | None = None,
        fuse: Literal["concat", "residual"] = "concat",
    ) -> None:
        super().__init__()
        key_channels = out_channels if key_channels is None else key_channels
        counts = {
            "target_channels": target_channels,
            "source_channels": source_channels,
            "out_channels": out_channels,
            "key_channels": key_channels,
            "heads": heads,
        }
        for name, count in counts.items():
            check_int(name, count, at_least=1)
        for name in ("out_channels", "key_channels"):
            if counts[name] % heads:
                raise ValueError(f"{name}: expected a multiple of heads = {heads}, got {counts[name]}")
        if not callable(attention):
            raise TypeError(f"attention: expected a callable (q, k, v) → out, got {type(attention).__name__}")
        if fuse not in ("concat", "residual"):
            raise ValueError(f"fuse: expected 'concat' or 'residual', got {fuse!r}")
        if fuse == "residual" and out_channels != target_channels:
            raise ValueError(
                f"out_channels: a residual expects target_channels = {target_channels}, got {out_channels}"
            )
        self.query = nn.Linear(target_channels, key_channels)
        self.key = nn.Linear(source_channels, key_channels)
        self.value = nn.Linear(source_channels, out_channels)
        self.attention = attention
        self.heads, self.fuse = heads, fuse

    def forward(
        self, target: Float[Tensor, "b c_target *query"], source: Float[Tensor, "b c_source *key"]
    ) -> Float[Tensor, "b c_fused *query"]:
        """Copy from the source into the target.

        Args:
            target: ``(B, target_channels, *query_shape)``.
            source: ``(B, source_channels, *key_shape)``.

        Returns:
            ``(B, target_channels + out_channels, *query_shape)``; a residual is ``(B, target_channels, *query_shape)``.

        Raises:
            TypeError: not tensors of one dtype (autocast may mix them).
            ValueError: wrong rank or number of channels, a batch that differs, or another device.
        """
        for name, x, projection in (("target", target, self.query), ("source", source, self.key)):
            check_tensor(name, x)
            if x.ndim < 3 or x.shape[1] != projection.in_features:
                raise ValueError(
                    f"{name}: expected shape (batch, {projection.in_features}, axes …), got {tuple(x.shape)}"
                )
        if target.dtype != source.dtype and not torch.is_autocast_enabled(target.device.type):
            raise TypeError(f"source: expected {target.dtype} as target has, got {source.dtype}")
        if target.device != source.device:
            raise ValueError(f"source: expected it on {target.device}, where target is, got {source.device}")
        if target.shape[0] != source.shape[0]:
            raise ValueError(f"source: expected a batch of {target.shape[0]} as target has, got {source.shape[0]}")
        source = source.movedim(1, -1)
        q, k, v = self.query(target.movedim(1, -1)), self.key(source), self.value(source)
        copied = self.attention(*(self._split_heads(x) for x in (q, k, v)))
        copied = copied.movedim(1, -2).flatten(-2).movedim(-1, 1)  # (b, h, *query, c) to (b, h·c, *query)
        return torch.cat([target, copied], dim=1) if self.fuse == "concat" else target + copied

    def _split_heads(self, x: Tensor) -> Tensor:
        """(b, *shape, h·c) to (b, h, *shape, c)."""
        return torch.unflatten(x, -1, (self.heads, -1)).movedim(-2, 1)
