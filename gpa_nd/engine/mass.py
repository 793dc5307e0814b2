"""How much attention a cell's coarse queries pay to each of its candidates, with a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gpa_nd.engine.bias import coarse_bias, hide
from gpa_nd.engine.distances import squared_distances
from gpa_nd.engine.precision import own_precision, wide
from gpa_nd.engine.steps import Pool
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

ROOM = 2**22
"""Numbers that a block of cells may hold."""


def log_mass(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    candidates: Int[Tensor, "b h m r"],
    bias: Float[Tensor, "b h_k n_k"] | None,
    scale: float,
    affinity: str,
    pool: Pool,
) -> Float[Tensor, "b h m r"]:
    """The logarithm of what lines 6–10 sum, with the softmax over a cell's candidates alone; differentiable.

    ℓ(l, g) = log Σ_i softmax_g'(q_low[i] · k_low[g'] · scale)[g], over the coarse queries i that rank for cell l. What
    all candidates have in common falls out of it, so that it moves as readily where they hold little of all attention.

    Args:
        q: (B, H, n_q, c) queries.
        k: (B, H_k, n_k, c) keys.
        layout: who belongs to whom.
        candidates: (B, H, m, r) coarse keys of each cell, as Phase 1 selects them; −1 and −2 name none.
        bias: what is added to the affinities of each key, −∞ where it is masked.
        scale: factor of the affinity.
        affinity: its kind.
        pool: the backend's, with a gradient.

    Returns:
        (B, H, m, r) in the dtype that scores are computed in; −∞ where there is no candidate, or it is masked.
    """
    with own_precision(q):
        k, added = hide(k, bias), None
        if bias is None:
            k_low = pool(k, layout.key_groups)
        else:
            coarse = coarse_bias(bias, layout.key_groups)
            k_low = (pool(k.to(bias.dtype), layout.key_groups) / coarse.share[..., None]).to(k.dtype)
            added = coarse.added
        q_low = pool(q, layout.query_groups)
        rankers, r, c = _table(layout.rankers), candidates.shape[-1], q.shape[-1]
        per_cell = r * c + rankers.shape[1] * (r + c)
        entries = q.shape[1] if torch.compiler.is_compiling() else q.shape[0] * q.shape[1]  # traced for any batch
        step = max(1, ROOM // max(1, entries * per_cell))
        of_cells = _OfCells(scale, affinity)
        blocks = [
            (q_low, k_low, added, rankers[start : start + step], candidates[:, :, start : start + step])
            for start in range(0, len(rankers), step)
        ]
        if len(blocks) == 1 or not torch.is_grad_enabled():
            return torch.cat([of_cells(*block) for block in blocks], dim=2)
        # Memory for one block at a time: each is computed once more in the backward pass.
        return torch.cat(
            [checkpoint(of_cells, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks], dim=2
        )


def _table(cells: Partition) -> Int[Tensor, "m largest"]:
    """As :attr:`~gpa_nd.Partition.table`, which a compiler cannot look up."""
    place = cells.offsets[:-1, None] + torch.arange(cells.largest, device=cells.order.device)
    inside = place < cells.offsets[1:, None]
    return torch.where(inside, cells.order[place.clamp_max(cells.num_elements - 1)], -1)


@dataclass(frozen=True)
class _OfCells:
    """The logarithms for some cells."""

    scale: float
    affinity: str

    def __call__(
        self,
        q_low: Float[Tensor, "b h n_q_low c"],
        k_low: Float[Tensor, "b h_k n_k_low c"],
        added: Float[Tensor, "b h_k n_k_low"] | None,
        rankers: Int[Tensor, "p s"],
        candidates: Int[Tensor, "b h p r"],
    ) -> Float[Tensor, "b h p r"]:
        batch, heads = q_low.shape[:2]
        first = torch.arange(batch * heads, device=q_low.device).view(batch, heads, 1, 1)
        of_q = first * q_low.shape[2] + rankers.clamp_min(0)
        of_k = first // (heads // k_low.shape[1]) * k_low.shape[2] + candidates.clamp_min(0)
        named, of_groups = candidates >= 0, None
        if added is not None:
            of_groups = rows(added[..., None], of_k)[..., 0]
            named = named & ~of_groups.isneginf()
            of_groups = of_groups.masked_fill(~named, 0)
        # What is no candidate and what ranks for a cell without any may be no numbers, and get no gradient.
        silent = ~named.any(-1)[..., None] | (rankers < 0)
        dtype = wide(q_low.dtype)
        q = rows(q_low, of_q).to(dtype).masked_fill(silent[..., None], 0)
        k = rows(k_low, of_k).to(dtype).masked_fill(~named[..., None], 0)
        if self.affinity == "dot":
            scores = q @ k.mT * self.scale
        else:
            scores = squared_distances(q, k) * -self.scale
        if of_groups is not None:
            scores = scores + of_groups[..., None, :]
        alone = ~named.any(-1, keepdim=True)
        shares = scores.masked_fill(~(named | alone)[..., None, :], -torch.inf).log_softmax(-1)
        shares = shares.masked_fill(~named[..., None, :], 0).masked_fill((rankers < 0)[..., None], -torch.inf)
        return shares.logsumexp(-2).masked_fill(~named, -torch.inf)


def rows(x: Float[Tensor, "b h_k n c"], index: Int[Tensor, "b h *rows"]) -> Float[Tensor, "b h *rows c"]:
    """Rows of x (counted over batch entries and heads), in a way whose gradient repeats bit for bit."""
    x = x.reshape(-1, x.shape[-1])
    if x.device.type != "cpu":  # index_select would add gradients with atomic operations
        return x[index]
    return torch.unflatten(x.index_select(0, index.flatten()), 0, index.shape)
