"""Attention to groups of keys, each as one pooled key, for some rows of queries at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gpa_nd.engine.bias import coarse_bias, hide
from gpa_nd.engine.distances import squared_distances
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.engine.steps import Pool
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

ROOM = 2**18
"""Scores that are held at once on a CPU, in whose cache they are to stay; a GPU has room for more."""

Seen = Callable[[Tensor], Tensor]
"""From the cells (rows,) of some rows to the groups that each sees, (1 or b, 1 or h, rows, n_k')."""


@dataclass
class PooledKeys:
    """Groups of keys as one key each.

    Attributes:
        k: (b, h, n_k', c) means of the keys that are visible, for every head of the queries.
        v: (b, h, n_k', c_v) means of their values.
        added: (b, h, n_k') what is added to the affinities of each, −∞ where nothing of it is visible; or None.
        share: (b, h, n_k') the part of each that is visible; or None, if that is all of it.
    """

    k: Float[Tensor, "b h n_low c"]
    v: Float[Tensor, "b h n_low c_v"]
    added: Float[Tensor, "b h n_low"] | None
    share: Float[Tensor, "b h n_low"] | None

    @classmethod
    def of(cls, k: Tensor, v: Tensor, layout: Layout, bias: Tensor | None, heads: int, pool: Pool) -> PooledKeys:
        """The groups of a layout, for so many heads of queries."""
        groups, dtype = layout.key_groups, wide(k.dtype)
        k, v = hide(k, bias), hide(v, bias)
        if bias is None:
            k_low, v_low, added, share = pool(k, groups).to(dtype), pool(v, groups).to(dtype), None, None
        else:
            coarse = coarse_bias(bias, groups)
            k_low, v_low = (pool(x.to(dtype), groups) / coarse.share[..., None] for x in (k, v))
            k_low = k_low.to(k.dtype).to(dtype)  # rounded as in Phase 1
            added, share = (for_query_heads(x, heads) for x in (coarse.added, coarse.share))
        k_low, v_low = (for_query_heads(x, heads) for x in (k_low, v_low))
        return cls(k_low, v_low, added, share)


def over_groups(
    q: Float[Tensor, "b h n c"], keys: PooledKeys, cells: Partition, seen: Seen, scale: float, affinity: str
) -> tuple[Float[Tensor, "b h n c_v"], Float[Tensor, "b h n"]]:
    """What each row of q gets from the groups that its cell sees, and the log-sum-exp of its scores.

    A few rows at a time, which are computed once more in the backward pass.

    Args:
        q: (b, h, n, c) rows.
        keys: the groups.
        cells: whose rows see alike.
        seen: which groups.
        scale: factor of the affinity.
        affinity: its kind.

    Returns:
        (b, h, n, c_v), zeros for a row that sees nothing, and (b, h, n), −∞ for it; both in the dtype that scores are
        computed in. NaN for a row that is not finite, or sees a group that is not.
    """
    with own_precision(q):
        cell = cells.cell_of_place()
        back = torch.empty_like(cell).scatter_(0, cells.order, torch.arange(len(cell), device=q.device))
        q = q.index_select(2, cells.order)
        some = _SomeRows(scale, affinity, seen)
        room = ROOM if q.device.type == "cpu" else 256 * ROOM
        entries = q.shape[1] if torch.compiler.is_compiling() else q.shape[0] * q.shape[1]  # traced for any batch
        step = max(1, room // max(1, entries * keys.k.shape[2]))
        blocks = [
            (q[:, :, start : start + step], keys.k, keys.v, keys.added, cell[start : start + step])
            for start in range(0, len(cell), step)
        ]
        if len(blocks) == 1 or not torch.is_grad_enabled():
            parts = [some(*block) for block in blocks]
        else:
            parts = [checkpoint(some, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
        out, lse = (torch.cat(each, dim=2).index_select(2, back) for each in zip(*parts, strict=True))
    return out, lse


@dataclass(frozen=True)
class _SomeRows:
    """The results of some rows."""

    scale: float
    affinity: str
    seen: Seen

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, cell: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "b h rows c_v"], Float[Tensor, "b h rows"]]:
        seen = self.seen(cell)
        if added is not None:
            masked = added.isneginf()
            seen, added = seen & ~masked[:, :, None], added.masked_fill(masked, 0)
        # Zero for what is no number: whoever sees it gets NaN in the end, and nobody a gradient.
        bad_q, bad_k, bad_v = (~x.isfinite().all(-1) for x in (q, k, v))
        nothing = ~seen.any(-1, keepdim=True)
        spoilt = bad_q & ~nothing[..., 0]
        bad = bad_k | bad_v
        if torch.compiler.is_compiling() or bad.device.type != "cpu" or bool(bad.any()):  # waits for nothing
            spoilt = spoilt | ((seen.to(v.dtype) @ bad[..., None].to(v.dtype))[..., 0] > 0)
        q = q.to(k.dtype).masked_fill(bad_q[..., None], 0)
        k, v = k.masked_fill(bad_k[..., None], 0), v.masked_fill(~v.isfinite(), 0)
        if self.affinity == "dot":
            scores = q @ k.mT * self.scale
        else:
            scores = squared_distances(q, k) * -self.scale
        if added is not None:
            scores = scores + added[:, :, None]
        scores = scores.masked_fill(~(seen | nothing), -torch.inf)
        lse = scores.logsumexp(-1, keepdim=True)
        out = ((scores - lse).exp() @ v).masked_fill(nothing, 0).masked_fill(spoilt[..., None], torch.nan)
        return out, lse.masked_fill(nothing, -torch.inf)[..., 0].masked_fill(spoilt, torch.nan)


def for_query_heads(x: Float[Tensor, "b h_k n *c"], heads: int) -> Float[Tensor, "b h n *c"]:
    """Keys for every head of the queries; neighbouring heads may share them."""
    shared = heads // x.shape[1]
    return x if shared == 1 else x[:, :, None].expand(-1, -1, shared, *x.shape[2:]).flatten(1, 2)


def selectable(layout: Layout, cell: Int[Tensor, " rows"]) -> Bool[Tensor, "rows n_low"]:
    """The coarse keys that each of these cells may select."""
    keys = torch.arange(len(layout.key_groups), device=cell.device)
    seen = torch.ones(len(cell), len(keys), dtype=torch.bool, device=cell.device)
    if layout.key_ranges is not None:
        start, stop = layout.key_ranges[cell, :, None].unbind(1)
        seen = (start <= keys) & (keys < stop)
    if layout.coarse_positions is not None:
        of_cells, of_keys = layout.coarse_positions
        seen = seen & (of_keys <= of_cells[cell, None]).all(-1)
    return seen
