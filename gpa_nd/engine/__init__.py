"""Algorithm 1 as three functions on flat tokens: check the arguments, then choose a backend."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.arguments import check_choices, check_kappa, check_relevant, check_tokens
from gpa_nd.layout import Layout

Affinity = Literal["dot", "euclidean"]
Backend = Literal["auto", "reference", "torch", "triton"]

__all__ = ["Affinity", "Backend", "attend", "gpa_attention", "select_keys"]


def select_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h n_k c"],
    layout: Layout,
    *,
    kappa: int,
    scale: float | None = None,
    affinity: Affinity = "dot",
    backend: Backend = "auto",
) -> Int[Tensor, "b h m chosen"]:
    """Phase 1 (Algorithm 1, lines 4–11): the relevant coarse keys of every cell.

    Coarse keys are ranked for a cell by the sum of the softmax over the cell's coarse queries; ties go to the lower
    index. The selection has no gradient.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        layout: who belongs to whom.
        kappa: coarse keys to keep for each cell.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        backend: ``"reference"``, ``"torch"``, or ``"auto"``, the fastest that can run. ``"triton"`` is not there yet.

    Returns:
        (B, H, m, min(kappa, n_k')) int64: distinct coarse keys, best first; −1 where a cell may see fewer; a row of −2
        where NaN or infinity keeps a cell from being ranked.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, ``kappa`` below 1, an unknown affinity or backend.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
        >>> x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 9     # four groups of two equal elements
        >>> gpa_nd.select_keys(x, x, layout, kappa=2)[0, 0].tolist()
        [[0, 1], [2, 3]]
    """
    check_tokens({"q": q, "k": k}, layout)
    check_kappa(kappa)
    check_choices(scale, affinity, backend)
    if not q.shape[0] * q.shape[1] * q.shape[2]:
        shape = (*q.shape[:2], len(layout.query_cells), min(kappa, len(layout.key_groups)))
        return torch.empty(shape, dtype=torch.int64, device=q.device)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    match backend:
        case "reference":
            from gpa_nd.engine import reference

            return reference.select_keys(q, k, layout, kappa, scale, affinity)
        case _:
            from gpa_nd.engine import blocked

            return blocked.select_keys(q, k, layout, kappa, scale, affinity)


def attend(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h n_k c"],
    v: Float[Tensor, "b h n_k c_v"],
    layout: Layout,
    relevant: Int[Tensor, "b h m chosen"],
    *,
    logits: Float[Tensor, "b h m chosen"] | None = None,
    scale: float | None = None,
    affinity: Affinity = "dot",
    backend: Backend = "auto",
) -> Float[Tensor, "b h n_q c_v"]:
    """Phase 2 (Algorithm 1, lines 12–19): every query attends to the elements under its cell's coarse keys.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        v: (B, H, n_k, c_v) values.
        layout: who belongs to whom.
        relevant: (B, H, m, r) int64 coarse keys of each cell, as from :func:`select_keys`; −1 names none, −2 makes the
            cell NaN.
        logits: (B, H, m, r) added to the scores of all elements under each selected coarse key; differentiable. The way
            in for a selection that learns, a coarse prior or a position bias.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        backend: ``"reference"``, ``"torch"``, or ``"auto"``, the fastest that can run. ``"triton"`` is not there yet.

    Returns:
        (B, H, n_q, c_v), in the dtype of q; zeros for a cell without keys.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, an unknown affinity or backend.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((4,), (4,))
        >>> q = k = torch.zeros(1, 1, 4, 1)
        >>> v = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1)
        >>> gpa_nd.attend(q, k, v, layout, torch.tensor([[[[1], [0]]]])).flatten().tolist()
        [3.5, 3.5, 1.5, 1.5]
    """
    check_tokens({"q": q, "k": k, "v": v}, layout)
    check_choices(scale, affinity, backend)
    check_relevant(relevant, logits, q, layout)
    if not q.shape[0] * q.shape[1] * q.shape[2]:
        return q.new_empty(*q.shape[:3], v.shape[-1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    match backend:
        case "reference":
            from gpa_nd.engine import reference

            return reference.attend(q, k, v, layout, relevant, logits, scale, affinity)
        case _:
            from gpa_nd.engine import blocked

            return blocked.attend(q, k, v, layout, relevant, logits, scale, affinity)


def gpa_attention(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h n_k c"],
    v: Float[Tensor, "b h n_k c_v"],
    layout: Layout,
    *,
    kappa: int,
    scale: float | None = None,
    affinity: Affinity = "dot",
    backend: Backend = "auto",
) -> Float[Tensor, "b h n_q c_v"]:
    """Algorithm 1: ``attend(…, select_keys(…))``.

    With ``backend="auto"`` and ``kappa`` at or above the number of coarse keys, dense attention computes the same
    answer without gathering.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H, n_k, c) keys.
        v: (B, H, n_k, c_v) values.
        layout: who belongs to whom.
        kappa: coarse keys to keep for each cell; at or above n_k' the result is dense attention exactly.
        scale: factor of the affinity; 1/√c by default.
        affinity: ``"dot"`` (q·k · scale) or ``"euclidean"`` (−|q − k|² · scale).
        backend: ``"reference"``, ``"torch"``, or ``"auto"``, the fastest that can run. ``"triton"`` is not there yet.

    Returns:
        (B, H, n_q, c_v), in the dtype of q.

    Raises:
        TypeError: an argument of the wrong type, or mixed dtypes.
        ValueError: shapes, devices or sizes that do not fit, ``kappa`` below 1, an unknown affinity or backend.

    Example:
        >>> import torch
        >>> import gpa_nd
        >>> layout = gpa_nd.image(downsample=4, cells=(4, 4), kappa=3).layout((32, 48), (32, 48))
        >>> q, k, v = torch.randn(3, 1, 2, 32 * 48, 16)
        >>> gpa_nd.gpa_attention(q, k, v, layout, kappa=3).shape
        torch.Size([1, 2, 1536, 16])
    """
    check_tokens({"q": q, "k": k, "v": v}, layout)
    check_kappa(kappa)
    check_choices(scale, affinity, backend)
    sees_all = kappa >= len(layout.key_groups) and layout.members.covers and layout.key_ranges is None
    if backend == "auto" and sees_all and q.numel():
        from gpa_nd.engine import blocked

        return blocked.dense(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale, affinity)
    relevant = select_keys(q, k, layout, kappa=kappa, scale=scale, affinity=affinity, backend=backend)
    return attend(q, k, v, layout, relevant, scale=scale, affinity=affinity, backend=backend)
