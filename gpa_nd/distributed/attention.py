"""Phase 2 for the cells of one process: the blocks that they selected elsewhere are fetched, and numbered anew."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd import engine
from gpa_nd.distributed.blocks import Blocks, by_head, repeated
from gpa_nd.distributed.peers import Peers
from gpa_nd.distributed.share import Share
from gpa_nd.engine import Affinity, Backend
from gpa_nd.layout import Layout, singles


def attend(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    v: Float[Tensor, "b h_k n_k c_v"],
    bias: Float[Tensor, "b h_k n_k"] | None,
    relevant: Int[Tensor, "b h m chosen"],
    share: Share,
    peers: Peers,
    *,
    scale: float | None,
    affinity: Affinity,
    backend: Backend,
) -> Float[Tensor, "b h n_q c_v"]:
    """What one's own queries attend to.

    Batch entries and heads select different blocks, so that they stand side by side as structures do in a pack.

    Args:
        q: one's own queries.
        k: one's own keys.
        v: their values.
        bias: what is added to the affinities of one's own keys, −∞ where one is masked.
        relevant: the coarse keys of one's own cells, by their numbers in the layout.
        share: what this process holds.
        peers: the processes, all of which call this together.
        scale: factor of the affinity.
        affinity: its kind.
        backend: what attends.
    """
    heads, key_heads, count = q.shape[0] * q.shape[1], k.shape[0] * k.shape[1], len(share.coarse_keys.owner)
    always = share.look.layout.always
    named = by_head(relevant, k.shape[1], count)
    wanted = named
    if always is not None:  # also of cells that are NaN, so that what comes for others does not depend on these
        on = by_head(always.expand(*q.shape[:2], -1, -1), k.shape[1], count)
        wanted = torch.cat([named[..., : -on.shape[-1]], on], dim=-1)
    blocks = Blocks.of(wanted, key_heads, share, share.keys, peers)
    k_rows, v_rows, *added = blocks.rows(k, v, *([] if bias is None else [bias[..., None]]))
    cells = repeated(share.cells, heads, q.shape[2])
    layout = Layout(
        query_groups=cells,
        query_cells=singles(len(cells), q.device),
        key_groups=blocks.groups,
        key_members=blocks.members,
        fine_cells=cells,
        always=None if always is None else blocks.numbered(on)[0, 0],
        positions=_positions(share, blocks, heads, key_heads),
    )
    out = engine.attend(
        q.reshape(1, 1, -1, q.shape[-1]),
        k_rows,
        v_rows,
        layout,
        blocks.numbered(named),
        key_bias=added[0][..., 0] if added else None,
        scale=scale,
        affinity=affinity,
        backend=backend,
    )
    return out.view(*q.shape[:3], v.shape[-1])


def _positions(share: Share, blocks: Blocks, heads: int, key_heads: int) -> tuple[Tensor, Tensor] | None:
    """Where queries and keys stand, the same for all batch entries and heads."""
    if share.positions is None:
        return None
    of_queries, of_keys = share.positions
    return of_queries.repeat(heads, 1), blocks.trip.there(of_keys.repeat(key_heads, 1))
