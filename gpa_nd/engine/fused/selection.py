"""Phase 1 of backend "triton": pool, log-sum-exp, sums over each cell chunk by chunk, the κ best of each.

Where cells have candidates, the same over these alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.fused.best import Best
from gpa_nd.engine.fused.candidate_ranking import rank_candidates
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import chip_of
from gpa_nd.engine.fused.pooling import groups_of_one
from gpa_nd.engine.fused.ranking import rank
from gpa_nd.engine.fused.scores import Scores
from gpa_nd.engine.fused.selection_tiles import tile_of
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

MOST_QUERIES = 2**27  # coarse ones: inside a tile, numbers are int32
MOST_PARTS = 2**23  # times 256 channels is int32
MOST_KEYS = 2**21  # coarse ones: the select kernel holds a block of their sums


def select_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    kappa: int,
    scale: float,
    bias: CoarseBias | None = None,
    candidates: Int[Tensor, "b h m candidates"] | None = None,
    wants_sums: bool = False,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h _m _kappa"]]:
    """Phase 1 with the affinity ``"dot"`` on checked arguments."""
    with torch.no_grad():
        ranked: tuple[Tensor, Tensor] = fused_select_keys(
            q,
            k,
            *_tensors_and_size(layout.query_groups),
            *_tensors_and_size(layout.rankers),
            *_tensors_and_size(layout.key_groups),
            layout.key_ranges,
            *(layout.coarse_positions or (None, None)),
            None if bias is None else bias.share,
            None if bias is None else bias.added,
            candidates,
            kappa,
            scale,
            wants_sums,
        )
    return ranked


def select_by_members(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    layout: Layout,
    kappa: int,
    scale: float,
    added: Float[Tensor, "b h_k n_k"] | None,
    candidates: Int[Tensor, "b h m candidates"],
    wants_sums: bool = False,
) -> tuple[Int[Tensor, "b h m kappa"], Float[Tensor, "b h _m _kappa"]]:
    """Phase 1 among candidates, of which each is ranked by its keys themselves instead of their mean."""
    with torch.no_grad():
        ranked: tuple[Tensor, Tensor] = fused_select_by_members(
            q,
            k,
            *_tensors_and_size(layout.rankers),
            layout.key_groups.tensors(),
            None if added is None else added.contiguous(),
            candidates,
            kappa,
            scale,
            wants_sums,
        )
    return ranked


def _tensors_and_size(part: Partition) -> tuple[Tensor, Tensor, int]:
    return part.order, part.offsets, part.largest


@torch.library.custom_op("gpa_nd::fused_select_keys", mutates_args=())
def fused_select_keys(
    q: Tensor,
    k: Tensor,
    query_order: Tensor,
    query_offsets: Tensor,
    largest_query_group: int,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    key_order: Tensor,
    key_offsets: Tensor,
    largest_key_group: int,
    key_ranges: Tensor | None,
    cell_positions: Tensor | None,
    key_positions: Tensor | None,
    share: Tensor | None,
    added: Tensor | None,
    candidates: Tensor | None,
    kappa: int,
    scale: float,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    """:func:`select_keys` on the tensors of a layout; the largest sizes are known on the host.

    A cell's coarse queries may be those of another cell, or of several cells.
    """
    cells = Groups(cell_order, cell_offsets, largest_cell)
    groups = Groups(key_order, key_offsets, largest_key_group)
    if len(cell_order) > MOST_QUERIES or len(groups) > MOST_KEYS:
        raise ValueError(
            f"q, k: backend 'triton' takes up to {MOST_QUERIES:,} coarse queries and {MOST_KEYS:,} coarse keys, "
            f"got {len(cell_order):,} and {len(groups):,}"
        )
    if candidates is not None and len(cell_order) > MOST_PARTS:
        raise ValueError(
            f"q: backend 'triton' takes up to {MOST_PARTS:,} coarse queries that have candidates, got "
            f"{len(cell_order):,}"
        )
    if max(q.shape[2], k.shape[2]) >= 2**31:
        raise ValueError(f"q, k: backend 'triton' takes fewer than 2³¹ elements, got {q.shape[2]} and {k.shape[2]}")
    chip = chip_of(q.device)
    tile = tile_of(q.shape[-1], q.dtype, chip)
    scores = Scores.of(
        q,
        k,
        queries=Groups(query_order, query_offsets, largest_query_group),
        cells=cells,
        groups=groups,
        tile=tile,
        scale=scale,
        chip=chip,
        added=added,
        share=share,
        ranges=key_ranges,
        cell_positions=cell_positions,
        key_positions=key_positions,
    )
    best = Best.empty(scores.heads, len(cells), min(kappa, len(groups)), wants_sums, q.device)
    if candidates is not None:
        rank_candidates(scores, tile, candidates.flatten(0, 1), best)
        return best.of_heads(q)
    rank(scores, tile, best)
    return best.of_heads(q)


@torch.library.custom_op("gpa_nd::fused_select_by_members", mutates_args=())
def fused_select_by_members(
    q: Tensor,
    k: Tensor,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    members: list[Tensor],
    added: Tensor | None,
    candidates: Tensor,
    kappa: int,
    scale: float,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    """:func:`select_by_members` on the tensors of a layout."""
    for name, count in (("q", len(cell_order)), ("k", k.shape[2])):
        if count > MOST_PARTS:
            raise ValueError(f"{name}: backend 'triton' takes up to {MOST_PARTS:,} parts of groups, got {count:,}")
    cells, chip = Groups(cell_order, cell_offsets, largest_cell), chip_of(q.device)
    tile = tile_of(q.shape[-1], q.dtype, chip)
    scores = Scores.of(
        q,
        k,
        queries=groups_of_one(q),
        cells=cells,
        groups=groups_of_one(k),
        tile=tile,
        scale=scale,
        chip=chip,
        added=added,
    )
    table = Partition.from_tensors(members).table
    best = Best.empty(scores.heads, len(cells), min(kappa, len(table)), wants_sums, q.device)
    rank_candidates(scores, tile, candidates.flatten(0, 1), best, table)
    return best.of_heads(q)


@fused_select_keys.register_fake
def _(
    q: Tensor,
    k: Tensor,
    query_order: Tensor,
    query_offsets: Tensor,
    largest_query_group: int,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    key_order: Tensor,
    key_offsets: Tensor,
    largest_key_group: int,
    key_ranges: Tensor | None,
    cell_positions: Tensor | None,
    key_positions: Tensor | None,
    share: Tensor | None,
    added: Tensor | None,
    candidates: Tensor | None,
    kappa: int,
    scale: float,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    return _room_for_best(q, cell_offsets.shape[0] - 1, min(kappa, key_offsets.shape[0] - 1), wants_sums)


@fused_select_by_members.register_fake
def _(
    q: Tensor,
    k: Tensor,
    cell_order: Tensor,
    cell_offsets: Tensor,
    largest_cell: int,
    members: list[Tensor],
    added: Tensor | None,
    candidates: Tensor,
    kappa: int,
    scale: float,
    wants_sums: bool,
) -> tuple[Tensor, Tensor]:
    return _room_for_best(q, cell_offsets.shape[0] - 1, min(kappa, members[1].shape[0] - 1), wants_sums)


def _room_for_best(q: Tensor, cells: int, kappa: int, wants_sums: bool) -> tuple[Tensor, Tensor]:
    shape = (*q.shape[:2], cells, kappa)
    sums = q.new_empty(shape if wants_sums else (*q.shape[:2], 0, 0), dtype=torch.float32)
    return q.new_empty(shape, dtype=torch.int64), sums
