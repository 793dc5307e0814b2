"""Coarse attention: every query gets a little of everything that its cell may see, at low resolution."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from gpa_nd.engine.arguments import check_choices, check_key_bias, check_tokens
from gpa_nd.engine.bias import key_bias_of
from gpa_nd.engine.choice import Affinity, choose
from gpa_nd.engine.groups import PooledKeys, over_groups, selectable
from gpa_nd.engine.pooling import pooling
from gpa_nd.layout import Layout


def coarse_attention(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    layout: Layout,
    *,
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    enable_gqa: bool = False,
) -> Float[Tensor, "b h n_q c_v"]:
    """Dense attention of coarse queries to coarse keys; each query gets the result of its coarse query.

    Keys and values are pooled as keys are in Phase 1, and what is masked does not enter the means. A cell sees the
    coarse keys that it may select. It costs as much as Phase 1, or g times as much in a causal layout of groups of g:
    there a coarse query would know later ones, so each query asks for itself, the coarse keys none of whose elements
    are later than the first query of its cell. Differentiable; memory grows with the inputs alone.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        v: (B, H, n_k, c_v) values.
        layout: who belongs to whom; of several levels, the finest.
        key_mask: (B, n_k) bool, False for keys that nobody sees.
        key_bias: (B, H_k, n_k), its mean over a group is added to the affinities of the coarse key. −∞ masks the key.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k and v may have fewer heads than q: as many neighbouring heads of q share one as there are more.

    Returns:
        (B, H, n_q, c_v), in the dtype of q; zeros for a query that sees no coarse key.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, or an unknown affinity.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((4,), (4,))
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1)
        >>> gpa_nd.coarse_attention(q, k, v, layout).flatten().tolist()
        [2.5, 2.5, 2.5, 2.5]
    """
    check_tokens({"q": q, "k": k, "v": v}, layout, enable_gqa)
    check_choices(scale, affinity, "torch")
    check_key_bias(key_mask, key_bias, k)
    bias = key_bias_of(key_mask, key_bias, k)
    if 0 in q.shape[:-1] or not k.shape[2]:
        return q.new_zeros(*q.shape[:3], v.shape[-1]) + sum(x[..., :0].sum() for x in (q, k, v))
    pool = pooling(choose("torch", (q, k, v), affinity))
    keys = PooledKeys.of(k, v, layout, bias, q.shape[1], pool)
    pooled = layout.positions is None
    rows, cells = (pool(q, layout.query_groups), layout.query_cells) if pooled else (q, layout.fine_cells)

    def seen(cell: Tensor) -> Tensor:
        return selectable(layout, cell)[None, None]

    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, _ = over_groups(rows, keys, cells, seen, scale, affinity)
    if not pooled:
        return out.to(q.dtype)
    # Not index_select: on a GPU, its gradient would not repeat bit for bit.
    return out[:, :, layout.query_groups.traced_labels()].to(q.dtype)
