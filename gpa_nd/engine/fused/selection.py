"""Phase 1 of backend "triton": pool, log-sum-exp, sums over each cell chunk by chunk, the κ best of each.

Where cells have candidates, the same over these alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.fused import candidate_kernels
from gpa_nd.engine.fused import selection_kernels as kernels
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip, chip_of, launch, with_whole_rows
from gpa_nd.engine.fused.powers import power_of_two
from gpa_nd.engine.fused.selection_tiles import (
    PROGRAMS_PER_PROCESSOR,
    SUMS_AT_ONCE,
    Tile,
    candidate_tile_of,
    channel_parts,
    pool_tile,
    select_tile,
    sum_tile_of,
    tile_of,
)
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

LOG2_E = math.log2(math.e)
LAST = torch.iinfo(torch.int64).max  # a position later than all others
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
    queries = Groups(query_order, query_offsets, largest_query_group)
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
    chip, c = chip_of(q.device), q.shape[-1]
    tile = tile_of(c, q.dtype, chip)
    q_low = _pool(q, queries, chip, len(cells.order), cells.order)
    if scale <= 0:  # the kernels multiply by what is above zero
        q_low *= -1 if scale < 0 else 0
    stored = triton.cdiv(len(groups), tile.keys) * tile.keys
    scores = _Scores(
        q_low=q_low,
        k_low=_pool(k, groups, chip, stored, share=share),
        keys=len(groups),
        channels=c,
        cells=cells,
        ranges=None if key_ranges is None else key_ranges.contiguous(),
        cell_positions=None if cell_positions is None else cell_positions.contiguous(),
        key_positions=None if key_positions is None else _padded(key_positions.mT, stored, LAST).mT.contiguous(),
        added=None if added is None else _padded(added.flatten(0, 1), stored, -torch.inf),
        scale=abs(scale) or 1.0,
        chip=chip,
    )
    best = _Best.empty(scores.heads, len(cells), min(kappa, len(groups)), wants_sums, q.device)
    if candidates is not None:
        _among(scores, tile, candidates.flatten(0, 1), best)
        return best.of_heads(q)
    lse = None
    if cells.largest > 1 or wants_sums:  # one row ranks as its softmax does
        lse = _log_sum_exp(scores, tile)
    tile = sum_tile_of(tile, cells.largest, scores.keys_stored)
    chunks = _chunks(scores, tile)
    sums, maxima = _room(scores, tile, chunks, scores.keys_stored)
    for chunk in chunks:
        _cell_sums(scores, tile, chunk, lse, sums, maxima)
        _take(tile, chunk, scores.keys, scores.ranges, None, scores.hides, sums, maxima, best)
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
    cells, chip, c = Groups(cell_order, cell_offsets, largest_cell), chip_of(q.device), q.shape[-1]
    tile = tile_of(c, q.dtype, chip)
    q_low = _pool(q, _singles(q), chip, len(cell_order), cell_order)
    if scale <= 0:  # the kernels multiply by what is above zero
        q_low *= -1 if scale < 0 else 0
    stored = triton.cdiv(k.shape[2], tile.keys) * tile.keys
    scores = _Scores(
        q_low=q_low,
        k_low=_pool(k, _singles(k), chip, stored),
        keys=k.shape[2],
        channels=c,
        cells=cells,
        ranges=None,
        cell_positions=None,
        key_positions=None,
        added=None if added is None else _padded(added.flatten(0, 1), stored, -torch.inf),
        scale=abs(scale) or 1.0,
        chip=chip,
    )
    table = Partition.from_tensors(members).table
    best = _Best.empty(scores.heads, len(cells), min(kappa, len(table)), wants_sums, q.device)
    _among(scores, tile, candidates.flatten(0, 1), best, table)
    return best.of_heads(q)


def _singles(x: Tensor) -> Groups:
    """Every element as a group of its own."""
    places = torch.arange(x.shape[2] + 1, device=x.device)
    return Groups(places[:-1], places, 1)


def _padded(x: Tensor, width: int, value: float) -> Tensor:
    """Rows of so many numbers, this one after those that are there."""
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value)


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


@dataclass(frozen=True)
class _Best:
    """What is chosen.

    Attributes:
        keys: (B·H, m, κ) coarse keys.
        sums: (B·H, m, κ) their sums; None where nobody asks.
    """

    keys: Int[Tensor, "h m kappa"]
    sums: Float[Tensor, "h m kappa"] | None

    @classmethod
    def empty(cls, heads: int, cells: int, kappa: int, wants_sums: bool, device: torch.device) -> _Best:
        """Room for so much."""
        sums = torch.zeros(heads, cells, kappa, device=device) if wants_sums else None
        return cls(torch.empty(heads, cells, kappa, dtype=torch.int64, device=device), sums)

    def of_heads(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both, (B, H, m, κ); no sums where nobody asks."""
        sums = self.keys.new_empty(len(self.keys), 0, 0, dtype=torch.float32) if self.sums is None else self.sums
        return self.keys.unflatten(0, q.shape[:2]), sums.clamp_min(0).unflatten(0, q.shape[:2])


@dataclass(frozen=True)
class _Scores:
    """The affinities of coarse queries, in the order of their cells, and coarse keys, which no tensor ever holds.

    Batch and heads are one axis throughout; the keys are followed by rows of zeros, to whole tiles.
    """

    q_low: Float[Tensor, "h rows stored"]
    k_low: Float[Tensor, "h_k keys_stored stored"]
    keys: int
    channels: int
    cells: Groups
    ranges: Int[Tensor, "m 2"] | None
    cell_positions: Int[Tensor, "m axes"] | None
    key_positions: Int[Tensor, "keys_stored axes"] | None
    added: Float[Tensor, "h_k keys_stored"] | None
    scale: float
    chip: Chip

    @property
    def heads(self) -> int:
        """B·H."""
        return self.q_low.shape[0]

    @property
    def shared(self) -> int:
        """How many query heads look at one key head."""
        return self.heads // self.k_low.shape[0]

    @property
    def rows(self) -> int:
        """n_q'."""
        return self.q_low.shape[1]

    @property
    def hides(self) -> bool:
        """Whether coarse keys inside of a range may be hidden."""
        return self.cell_positions is not None or self.added is not None

    @property
    def added_in_base_2(self) -> Tensor | None:
        """The bias beside affinities times log₂ e. What is finite stays so: people hide keys by the lowest number."""
        if self.added is None:
            return None
        most = torch.finfo(self.added.dtype).max
        return torch.where(self.added.isfinite(), (self.added * LOG2_E).clamp(-most, most), self.added)

    @property
    def keys_stored(self) -> int:
        """n_k', rounded up to whole tiles."""
        return self.k_low.shape[1]

    def constants(self, tile: Tile) -> dict[str, object]:
        """The settings that all kernels which compute affinities share."""
        stored = self.q_low.shape[2]
        main, rest = channel_parts(self.channels, tile.channels)
        return {
            "STORED": stored,
            "MAIN": main,
            "REST": rest,
            "ROWS": tile.rows,
            "KEYS": tile.keys,
            "AXES": 0 if self.cell_positions is None else self.cell_positions.shape[1],
            "PRECISION": self.chip.precision if self.q_low.dtype == torch.float32 else "ieee",
            "EMULATED": self.chip.is_interpreter,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            # Ranges and what else hides need more registers than the assembler takes by itself.
            **({"maxnreg": 255} if self.chip.is_nvidia and (self.ranges is not None or self.hides) else {}),
        }


@dataclass(frozen=True)
class _Chunk:
    """Cells of heads whose sums are held at the same time."""

    first_head: int
    heads: int
    first_cell: int
    cells: int


def _pool(
    x: Tensor, groups: Groups, chip: Chip, stored: int, places: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """(B·H, stored, channels) means of groups: row i is group ``places[i]``, or i; zeros after the last."""
    batch, heads, _, c = x.shape
    x = with_whole_rows(x)
    channels = sum(channel_parts(c))
    low = torch.empty(batch * heads, stored, channels, dtype=x.dtype, device=x.device)
    tile = pool_tile(channels, groups.largest)
    launch(
        kernels.pool,
        (batch * heads * triton.cdiv(stored, tile.groups),),
        *(x, groups.order, groups.offsets_if_ragged, places, None if share is None else share.contiguous(), low),
        *(heads, len(groups) if places is None else len(places), stored, groups.largest),
        *x.stride()[:3],
        CHANNELS=c,
        STORED=channels,
        WIDTH=tile.width,
        GROUPS=tile.groups,
        MEMBERS=tile.members,
        FAR=x.shape[2] * x.stride(2) >= 2**31,
        EMULATED=chip.is_interpreter,
        num_warps=tile.warps,
    )
    return low


def _log_sum_exp(scores: _Scores, tile: Tile) -> Float[Tensor, "h splits 2 rows"]:
    """Base-2 log-sum-exp of each coarse query, in as many parts as its keys are divided into: largest, and the rest."""
    row_tiles = triton.cdiv(scores.rows, tile.rows)
    splits, per_split = _key_splits(scores.chip, scores.heads * row_tiles, scores.keys_stored // tile.keys)
    ranges, positions = (
        None if x is None else x.repeat_interleave(scores.cells.offsets.diff(), 0, output_size=scores.rows)
        for x in (scores.ranges, scores.cell_positions)
    )
    lse = torch.empty(scores.heads, splits, 2, scores.rows, dtype=torch.float32, device=scores.q_low.device)
    launch(
        kernels.log_sum_exp,
        (scores.heads * splits * row_tiles,),
        *(scores.q_low, scores.k_low, ranges, positions, scores.key_positions, scores.added_in_base_2, lse),
        *(scores.shared, scores.rows, scores.keys, scores.keys_stored),
        *(splits, per_split, scores.scale * LOG2_E),
        EVEN=scores.keys % tile.keys == 0,
        **scores.constants(tile),
    )
    return lse


def _cell_sums(scores: _Scores, tile: Tile, chunk: _Chunk, lse: Tensor | None, sums: Tensor, maxima: Tensor) -> None:
    """Fill ``sums`` (heads, cells, keys_stored) and ``maxima`` (heads, cells, tiles of keys) for a chunk."""
    where = (chunk.first_head, chunk.first_cell, chunk.cells)
    shape = (scores.shared, scores.rows, scores.keys, scores.keys_stored)
    tiles, cells = scores.keys_stored // tile.keys, scores.cells
    splits = 1 if lse is None else lse.shape[1]
    scale = scores.scale if lse is None else scores.scale * LOG2_E
    added = scores.added if lse is None else scores.added_in_base_2
    hiding = (scores.ranges, scores.cell_positions, scores.key_positions, added)
    if cells.largest > tile.rows:
        launch(
            kernels.large_cell_sums,
            (chunk.heads * chunk.cells * tiles,),
            *(scores.q_low, scores.k_low, lse, cells.offsets, *hiding, sums, maxima),
            *(*shape, *where, splits, scale),
            **scores.constants(tile),
        )
        return
    slots = power_of_two(cells.largest)
    programs = chunk.heads * triton.cdiv(chunk.cells, tile.rows // slots)
    key_splits, per_split = _key_splits(scores.chip, programs, tiles)
    launch(
        kernels.cell_sums,
        (programs * key_splits,),
        *(scores.q_low, scores.k_low, lse, cells.offsets_if_ragged, *hiding, sums, maxima),
        *(*shape, *where, splits, scale, cells.largest, key_splits, per_split),
        SLOTS=slots,
        **scores.constants(tile),
    )


def _take(
    tile: Tile,
    chunk: _Chunk,
    keys: int,
    ranges: Tensor | None,
    names: Tensor | None,
    hides: bool,
    sums: Tensor,
    maxima: Tensor,
    best: _Best,
) -> None:
    """The κ best of so many, by their names, for a chunk of cells."""
    tiles = triton.cdiv(keys, tile.keys)
    blocks = select_tile(tiles)
    launch(
        kernels.select,
        (chunk.heads * chunk.cells,),
        *(sums, maxima, ranges, names, best.keys, best.sums),
        *(keys, tiles, chunk.first_head, chunk.first_cell, chunk.cells, *best.keys.shape[1:]),
        KEYS=tile.keys,
        TILES=blocks.tiles,
        BLOCKS=blocks.blocks,
        HIDES=hides,
        num_warps=1,
    )


def _among(
    scores: _Scores,
    tile: Tile,
    candidates: Int[Tensor, "h m count"],
    best: _Best,
    members: Int[Tensor, "n_k_low most"] | None = None,
) -> None:
    """The best of the candidates of each cell alone; −1 is none.

    With ``members``, which say what keys each candidate has, it is these that are scored, and their sums are added up.
    """
    if not candidates.shape[-1]:
        candidates = candidates.new_full((*candidates.shape[:2], 1), -1)
    if members is None:
        nothing = torch.iinfo(torch.int32).max
        ordered = candidates.int().masked_fill(candidates < 0, nothing).sort(dim=-1).values
        named = names = ordered.masked_fill(ordered == nothing, -1)  # ties go to the lower number
    else:
        named = candidates.int().contiguous()
        names = members.int()[candidates.clamp_min(0)].masked_fill_(candidates[..., None] < 0, -1).flatten(2)
    count, cells, k_low = names.shape[2], scores.cells, scores.k_low
    tile = candidate_tile_of(tile, cells.largest, count)
    lse = None
    if cells.largest > 1 or members is not None or best.sums is not None:
        lse = torch.empty(scores.heads, 2, scores.rows, dtype=torch.float32, device=names.device)
        tiles, cell_of_tile = cells.tiles(tile.rows)
        launch(
            candidate_kernels.candidate_log_sum_exp,
            (scores.heads * tiles,),
            *(scores.q_low, k_low, names, cells.offsets, cell_of_tile),
            *(scores.ranges, scores.cell_positions, scores.key_positions, scores.added_in_base_2, lse),
            *(scores.shared, scores.rows, scores.keys_stored, len(cells), tiles, count, scores.scale * LOG2_E),
            CELL=cells.size,
            **scores.constants(tile),
        )
    scale = scores.scale if lse is None else scores.scale * LOG2_E
    added = scores.added if lse is None else scores.added_in_base_2
    chunks = _chunks(scores, tile, triton.cdiv(count, tile.keys) * tile.keys, together=1)
    sums, maxima = _room(scores, tile, chunks, triton.cdiv(count, tile.keys) * tile.keys)
    for chunk in chunks:
        launch(
            candidate_kernels.candidate_sums,
            (chunk.heads * chunk.cells * triton.cdiv(count, tile.keys),),
            *(scores.q_low, k_low, lse, names, cells.offsets),
            *(scores.ranges, scores.cell_positions, scores.key_positions, added, sums, maxima),
            *(scores.shared, scores.rows, scores.keys_stored),
            *(chunk.first_head, chunk.first_cell, chunk.cells, len(cells), count, scale),
            **scores.constants(tile),
        )
        if members is None:
            _take(tile, chunk, count, None, names, True, sums, maxima, best)
        else:
            together = _added_up(sums[: chunk.heads * chunk.cells, :count], members.shape[1], tile)
            _take(tile, chunk, named.shape[2], None, named, True, *together, best)


def _added_up(sums: Float[Tensor, "rows count"], members: int, tile: Tile) -> tuple[Tensor, Tensor]:
    """The sums of so many neighbours each, in whole tiles, and the largest of each tile; −∞ is what is not seen."""
    each = sums.unflatten(1, (-1, members))
    unseen = each == -torch.inf
    totals = each.masked_fill(unseen, 0).sum(-1).masked_fill(unseen.all(-1), -torch.inf)
    tiles = triton.cdiv(totals.shape[1], tile.keys)
    totals = _padded(totals, tiles * tile.keys, -torch.inf).contiguous()
    return totals, totals.view(len(totals), tiles, tile.keys).amax(-1)


def _room(scores: _Scores, tile: Tile, chunks: list[_Chunk], per_cell: int) -> tuple[Tensor, Tensor]:
    """For the sums of the largest chunk, and for the largest of each tile of keys."""
    held = max(chunk.heads * chunk.cells for chunk in chunks)
    sums = torch.empty(held, per_cell, dtype=torch.float32, device=scores.q_low.device)
    return sums, torch.empty(held, per_cell // tile.keys, dtype=torch.float32, device=scores.q_low.device)


def _chunks(scores: _Scores, tile: Tile, per_cell: int = 0, together: int = 0) -> list[_Chunk]:
    """As many cells at a time as may hold their sums: those of whole heads, or else whole tiles of one head.

    So many sums per cell, or those of all coarse keys; so many cells together, or those that share a tile.
    """
    heads, cells, per_cell = scores.heads, len(scores.cells), per_cell or scores.keys_stored
    together = together or max(1, tile.rows // power_of_two(scores.cells.largest))
    heads_step = _even_step(heads, SUMS_AT_ONCE // (cells * per_cell))
    tiles_step = _even_step(triton.cdiv(cells, together), SUMS_AT_ONCE // (heads_step * together * per_cell))
    return [
        _Chunk(head, min(heads_step, heads - head), cell, min(tiles_step * together, cells - cell))
        for head in range(0, heads, heads_step)
        for cell in range(0, cells, tiles_step * together)
    ]


def _key_splits(chip: Chip, programs: int, tiles: int) -> tuple[int, int]:
    """Among how many programs the tiles of keys are divided so that no processor idles, and how many each has."""
    per_split = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS_PER_PROCESSOR * chip.processors, programs)))
    return triton.cdiv(tiles, per_split), per_split


def _even_step(count: int, at_most: int) -> int:
    """A step that divides ``count`` evenly into as few parts as steps of ``at_most``, or of 1, need."""
    step: int = triton.cdiv(count, triton.cdiv(count, max(1, at_most)))
    return step
