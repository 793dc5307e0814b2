"""Which keys answer a query, and how much each."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpa_nd.checks import check_integers
from gpa_nd.engine import Affinity
from gpa_nd.engine.arguments import check_choices, check_key_bias, check_relevant, check_tokens
from gpa_nd.engine.bias import hide, key_bias_of
from gpa_nd.engine.precision import own_precision
from gpa_nd.engine.reference import affinities, for_query_heads, softmax
from gpa_nd.layout import Layout


def key_contributions(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    relevant: Int[Tensor, "b h m chosen"],
    queries: Int[Tensor, " asked"],
    *,
    logits: Float[Tensor, "b h m chosen"] | None = None,
    key_mask: Bool[Tensor, "b n_k"] | None = None,
    key_bias: Float[Tensor, "b h_k n_k"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    enable_gqa: bool = False,
) -> Float[Tensor, "b h asked n_k"]:
    """How much every key contributes to the answers of some queries (Fig. 9).

    These are the softmax weights of Phase 2: ``key_contributions(…) @ v`` are the rows of :func:`~gpa_nd.attend` that
    ``queries`` names. A key that is not under the relevant coarse keys of a query's cell contributes zero; where all
    are relevant, this is the softmax of dense attention. Memory grows with len(queries) · n_k, so ask for many queries
    in portions. Differentiable.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        layout: who belongs to whom.
        relevant: (B, H, m, r) int64 coarse keys of each cell, as from :func:`~gpa_nd.select_keys`; −1 names none, −2
            makes the cell NaN.
        queries: numbers of the query elements that are asked for, in 0 … n_q − 1.
        logits: (B, H, m, r), added to the scores of all elements under each selected coarse key; −∞ removes the key.
        key_mask: (B, n_k) bool, False for keys that nobody sees.
        key_bias: (B, H_k, n_k), added to the affinities of each key.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        enable_gqa: k may have fewer heads than q: as many neighbouring heads of q share one as there are more.

    Returns:
        (B, H, len(queries), n_k), in the dtype of q. A row sums to one, or to zero for a query without keys.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, a query that is not there, or an unknown affinity.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import key_contributions
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((4,), (4,))
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> relevant = torch.tensor([[[[1], [0]]]])        # the first two queries look at the last two keys
        >>> key_contributions(q, k, layout, relevant, torch.tensor([0, 3]))[0, 0].tolist()
        [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0]]
    """
    check_tokens({"q": q, "k": k}, layout, enable_gqa)
    check_choices(scale, affinity, "reference")
    check_relevant(relevant, logits, q, layout)
    check_key_bias(key_mask, key_bias, k)
    _check_queries(queries, q)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    cell = layout.fine_cells.labels[queries]
    chosen = relevant[:, :, cell]  # (b, h, asked, r)
    index = torch.where(chosen[..., None] >= 0, layout.members.table[chosen.clamp_min(0)], -1)
    seen, elements = index >= 0, index.clamp_min(0).flatten(-2)
    bias = key_bias_of(key_mask, key_bias, k)
    with own_precision(q):
        scores = affinities(q[:, :, queries], for_query_heads(hide(k, bias), q), scale, affinity)
        scores = scores.gather(-1, elements)  # of the keys that are gathered in line 16
        if logits is not None:
            added = logits[:, :, cell, :, None].expand(index.shape)
            seen, added = seen & ~added.isneginf(), added.masked_fill(added.isneginf(), 0)
            scores = scores + added.flatten(-2)
        seen = seen.flatten(-2)
        if bias is not None:
            added = for_query_heads(bias, q)[:, :, None].expand(*elements.shape[:3], -1).gather(-1, elements)
            seen, scores = seen & ~added.isneginf(), scores + added.masked_fill(added.isneginf(), 0)
        if layout.positions is not None:
            of_queries, of_keys = layout.positions
            seen = seen & (of_keys[elements] <= of_queries[queries, None]).all(-1)
        weights = softmax(scores, seen)
        # An entry that names no key points to key 0 and adds zero to it.
        contributions = weights.new_zeros(*chosen.shape[:3], k.shape[2]).scatter_add(-1, elements, weights)
    return contributions.masked_fill((chosen == -2).any(-1, keepdim=True), torch.nan).to(q.dtype)


def _check_queries(queries: Tensor, q: Tensor) -> None:
    check_integers("queries", queries)
    if queries.ndim != 1:
        raise ValueError(f"queries: expected shape (n,), got {tuple(queries.shape)}")
    if queries.device != q.device:
        raise ValueError(f"queries: expected them on {q.device}, where q is, got {queries.device}")
    if queries.numel():
        least, most = torch.stack(queries.aminmax()).tolist()
        if least < 0 or most >= q.shape[2]:
            raise ValueError(f"queries: expected elements 0 … {q.shape[2] - 1}, got {least} … {most}")
