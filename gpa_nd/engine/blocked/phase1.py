"""Lines 6–11 for a block of cells at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from gpa_nd.engine.blocked.blocks import Block, CellBlocks, Scratch, column_sums, hide, possible, softmax
from gpa_nd.engine.blocked.largest import largest
from gpa_nd.engine.blocked.spans import Span, plan
from gpa_nd.engine.distances import squared_distances
from gpa_nd.engine.rankings import Spread, gain, length
from gpa_nd.partition import Partition

Pick = Callable[[Tensor], Tensor]
"""From the elements of each cell, (p, s), to their coarse queries, (a, p · s, c) or (p, s, c)."""

ROWS_AT_ONCE = 256  # coarse queries that a matrix product needs to be worth its while


@dataclass
class BlockCoarseKeys:
    """The coarse keys that a block of p cells chooses from, in the order of their numbers.

    Where cells have them in common, a counts heads. Where each has its own, a is 1 and p counts pairs of head and cell.

    Attributes:
        number: (r,) or (p, r) their numbers.
        k: (a, r, c) or (p, r, c) the coarse keys.
        added: (a, 1, r) or (1, p, r) what is added to the affinities, or None.
        hidden: (a or 1, p or 1, r) those that a cell may not see; None if it sees all.
        spread: how much the keys of each group differ, (a, 1, r) or (1, p, r); or None.
        members: where keys themselves are compared, how many places there are for those of one coarse key: r is this
            times as large, but for ``number``.
    """

    number: Int[Tensor, "*p _r"]
    k: Float[Tensor, "a_or_p r c"]
    added: Float[Tensor, "a _p r"] | None
    hidden: Bool[Tensor, "_a _p r"] | None
    spread: Spread | None = None
    members: int = 1


class Phase1:
    """The relevant keys of every cell, from pooled queries and keys.

    Args:
        q_low: (h, n_q', c) coarse queries, times the scale if the affinity is a dot product; NaN where not finite.
        k_low: (h, n_k', c) coarse keys, NaN where not finite.
        rankers: the coarse queries that rank for each of the m cells.
        ranges: (m, 2) which coarse keys each cell may see, on the device and on the CPU; None for all.
        added: (h, n_k') what is added to the affinities of each coarse key, −∞ where it is hidden; or None.
        positions: those of cells (m, axes) and of coarse keys (n_k', axes); or None.
        spread: how much the keys of each group differ, (h, n_k'); or None.
        kappa: how many coarse keys to keep.
        scale: factor of the affinity.
        affinity: its kind.
        room: how many numbers a block may hold.
        wants_sums: whether the sums of what is chosen are kept.
        members: the keys under each coarse key, where ``k_low`` and ``added`` are of these.
    """

    def __init__(
        self,
        q_low: Float[Tensor, "h n_q_low c"],
        k_low: Float[Tensor, "h n_k_low c"],
        rankers: Partition,
        *,
        ranges: tuple[Int[Tensor, "m 2"] | None, Int[Tensor, "m 2"] | None] = (None, None),
        added: Float[Tensor, "h n_k_low"] | None,
        positions: tuple[Int[Tensor, "m axes"], Int[Tensor, "n_k_low axes"]] | None = None,
        spread: Spread | None = None,
        kappa: int,
        scale: float,
        affinity: str,
        room: int,
        wants_sums: bool,
        members: Partition | None = None,
    ) -> None:
        self.q, self.k, self.rankers = q_low, k_low, rankers
        self.ranges, self.host_ranges = ranges
        self.positions, self.scale, self.affinity, self.limit = positions, scale, affinity, room
        self.spread = spread
        self.added = self.masked = None
        if added is not None:
            masked = added.isneginf()
            self.masked = masked if possible(masked) else None
            self.added = added if self.masked is None else added.masked_fill(masked, 0)
        self.members, count = 1, k_low.shape[1]
        if members is not None:  # those of one coarse key behind one another, so that all are gathered at once
            self.members, count = members.largest, len(members)
            self.k = k_low.index_select(1, members.table.flatten().clamp_min(0))
            self.added, self.masked = (
                None if x is None else x.index_select(1, members.table.flatten().clamp_min(0))
                for x in (self.added, self.masked)
            )
            if not members.uniform:
                absent = (members.table.flatten() < 0).repeat(len(k_low), 1)
                self.masked = _either(absent, self.masked)
        self.kappa = min(kappa, count)
        shape = len(q_low), len(rankers), self.kappa
        self.chosen = torch.full(shape, -1, dtype=torch.int64, device=q_low.device)
        self.wants_sums = wants_sums
        self.sums = q_low.new_zeros(shape if wants_sums else (len(q_low), 0, 0))
        self.room = Scratch(q_low.device)

    def among_all(self) -> tuple[Int[Tensor, "h m kappa"], Float[Tensor, "h _m _kappa"]]:
        """Every cell chooses among all that it may see; and the sums of what it chooses."""
        if self.host_ranges is None:
            self._choose_in(Span(None, 0, self.k.shape[1], alike=True))
            return self.chosen, self.sums
        assert self.ranges is not None
        spans, apart = plan(self.host_ranges, self.rankers.host_offsets.diff())
        for span in spans:
            self._choose_in(span)
        for few in apart:
            place = torch.arange(few.width, device=self.k.device)
            for block in self._blocks(few.width, few.cells):
                self._choose_apart(block, self._within(block, self.ranges[block.cells, :1] + place))
        return self.chosen, self.sums

    def among(self, candidates: Int[Tensor, "h m r"]) -> tuple[Int[Tensor, "h m kappa"], Float[Tensor, "h _m _kappa"]]:
        """Every cell chooses among its candidates, of which −1 names none.

        Ties go to the lower number; where members are compared, to the candidate that comes first.
        """
        for block in self._blocks(candidates.shape[-1] * self.members):
            number = candidates[block.heads, block.cells]
            if self.members == 1:
                number = number.sort(dim=-1).values
            self._choose_apart(block, number if self.ranges is None else self._within(block, number))
        return self.chosen, self.sums

    def _blocks(self, columns: int, cells: Tensor | None = None) -> CellBlocks:
        """Blocks of cells that look at so many coarse keys each, of which every cell has a copy of its own."""
        channels = self.k.shape[-1]
        return CellBlocks(self.rankers, self.limit, channels + columns, columns * channels, len(self.k), cells)

    def _choose_in(self, span: Span) -> None:
        """What the cells of the span choose, a few heads at a time."""
        columns = span.stop - span.start
        number = torch.arange(span.start, span.stop, device=self.k.device)
        heads_at_once = min(len(self.k), max(1, self.limit // (ROWS_AT_ONCE * columns)))
        blocks = CellBlocks(self.rankers, self.limit, per_element=heads_at_once * columns, only=span.cells)
        for first in range(0, len(self.k), heads_at_once):
            heads = slice(first, first + heads_at_once)
            q, k = self.q[heads], self.k[heads, span.start : span.stop]
            added, masked = (
                None if x is None else x[heads, None, span.start : span.stop] for x in (self.added, self.masked)
            )
            for block in blocks:
                hidden = None if span.alike else self._outside(block, number)
                hidden = _either(hidden, self._later(block, number))
                spread = None
                if self.spread is not None:
                    spread = Spread(*(x[heads, None, span.start : span.stop] for x in self.spread.tensors()))
                hidden = _either(None if hidden is None else hidden[None], masked)
                keys = BlockCoarseKeys(number, k, added, hidden, spread)

                def pick(element: Tensor, q: Tensor = q) -> Tensor:
                    return q.index_select(1, element.flatten())

                chosen, sums = self._choose(block, keys, pick)
                self.chosen[heads].index_copy_(1, block.cells, chosen)
                if self.wants_sums:
                    self.sums[heads].index_copy_(1, block.cells, sums)

    def _choose_apart(self, block: Block, number: Int[Tensor, "p r"]) -> None:
        """What each cell of the block chooses among coarse keys of its own; −1 names none."""
        first, members = block.heads[:, None], self.members
        nothing = number < 0
        hidden = nothing if possible(nothing) else None
        number = number.clamp_min(0)
        hidden = _either(hidden, self._later(block, number))
        if hidden is not None and members > 1:
            hidden = hidden.repeat_interleave(members, dim=1)
        row = number + first * (self.k.shape[1] // members)

        def of_keys(x: Shaped[Tensor, "h n_k"]) -> Shaped[Tensor, "_1 p r"]:
            return x.view(-1, members).index_select(0, row.flatten()).view(1, len(row), -1)

        if self.masked is not None:
            hidden = _either(hidden, of_keys(self.masked)[0])
        keys = BlockCoarseKeys(
            number,
            self._rows("k", self.k.unflatten(1, (-1, members)).flatten(2), row).view(len(row), -1, self.k.shape[-1]),
            None if self.added is None else of_keys(self.added),
            None if hidden is None else hidden[None],
            None if self.spread is None else Spread(*map(of_keys, self.spread.tensors())),
            members,
        )

        def pick(element: Tensor) -> Tensor:
            return self._rows("q", self.q, element + first * self.q.shape[1])

        cell = block.heads * len(self.rankers) + block.cells
        chosen, sums = self._choose(block, keys, pick)
        self.chosen.view(1, -1, self.kappa).index_copy_(1, cell, chosen)
        if self.wants_sums:
            self.sums.view(1, -1, self.kappa).index_copy_(1, cell, sums)

    def _within(self, block: Block, number: Tensor) -> Int[Tensor, "p r"]:
        """The coarse keys in the range of each cell, −1 for others."""
        return number.masked_fill(self._outside(block, number), -1)

    def _outside(self, block: Block, number: Tensor) -> Bool[Tensor, "p r"]:
        """Which coarse keys are outside of the range of each cell."""
        assert self.ranges is not None
        start, stop = self.ranges[block.cells, :, None].unbind(1)
        return (number < start) | (number >= stop)

    def _later(self, block: Block, number: Tensor) -> Bool[Tensor, "p r"] | None:
        """Which coarse keys are later than each cell on some axis."""
        hidden = None
        if self.positions is not None:
            of_cells, of_keys = self.positions
            for axis in range(of_cells.shape[1]):
                hidden = _either(hidden, of_keys[number, axis] > of_cells[block.cells, axis, None])
        return hidden

    def _rows(self, name: str, x: Float[Tensor, "h n c"], row: Int[Tensor, "p s"]) -> Float[Tensor, "p s c"]:
        flat = self.room(name, (row.numel(), x.shape[-1]), x.dtype)
        torch.index_select(x.flatten(0, 1), 0, row.flatten(), out=flat)
        return flat.view(*row.shape, -1)

    def _choose(
        self, block: Block, keys: BlockCoarseKeys, pick: Pick
    ) -> tuple[Int[Tensor, "a p kappa"], Float[Tensor, "a p kappa"]]:
        """R_κ: the κ largest sums, ties to the lower index; −1 where fewer are seen, −2 where a sum is not a number."""
        if block.elements.shape[1] == keys.members == 1 and not self.wants_sums:  # one row ranks as its softmax does
            sums, hidden = self._scores(block.elements, keys, pick).squeeze(2), keys.hidden
        else:
            sums, hidden = self._sums(block, keys, pick), keys.hidden
        if keys.members > 1:
            sums = sums.unflatten(-1, (-1, keys.members)).sum(-1)
            hidden = None if hidden is None else hidden.unflatten(-1, (-1, keys.members)).all(-1)
        if hidden is not None:
            sums.masked_fill_(hidden, -torch.inf)
        value, index = largest(sums, min(self.kappa, sums.shape[-1]))
        number = keys.number[index] if keys.number.ndim == 1 else keys.number[None].gather(-1, index)
        number = F.pad(number.masked_fill(value.isneginf(), -1), (0, self.kappa - number.shape[-1]), value=-1)
        number = number.masked_fill(~(value[..., :1] < torch.inf), -2)
        return number, F.pad(value, (0, self.kappa - value.shape[-1])).clamp_min(0)

    def _sums(self, block: Block, keys: BlockCoarseKeys, pick: Pick) -> Float[Tensor, "a p r"]:
        """Sum of softmax(q kᵀ) over the coarse queries of each cell (lines 6–10), a few at a time."""
        (cells, size), columns = block.elements.shape, keys.k.shape[1]
        heads = len(keys.k) if keys.number.ndim == 1 else 1
        sums = self.room("sums", (heads, cells, columns), self.q.dtype)
        step = max(1, self.limit // (heads * cells * columns))
        for start in range(0, size, step):
            scores = self._scores(block.elements[:, start : start + step], keys, pick)
            if keys.hidden is not None:
                hide(scores, keys.hidden[:, :, None])
            weights = softmax(scores, self.room)
            if block.real is not None:  # padding repeats an element: 0 · NaN is NaN there anyway
                weights *= block.real[:, start : start + step, None].to(weights.dtype)
            if start == 0:
                sums.copy_(column_sums(weights))
            else:
                sums += column_sums(weights)
        return sums

    def _scores(self, part: Int[Tensor, "p s"], keys: BlockCoarseKeys, pick: Pick) -> Float[Tensor, "a p s r"]:
        """What coarse queries give to coarse keys, before the softmax."""
        q, heads = pick(part), len(keys.k) if keys.number.ndim == 1 else 1
        scores = self._affinities(q, keys.k).view(heads, *part.shape, keys.k.shape[1])
        if keys.spread is not None:
            lengths = length(q).view(heads, *part.shape)
            scores += gain(lengths, *(x[:, :, None] for x in keys.spread.tensors()))
        if keys.added is not None:
            scores += keys.added[:, :, None]
        return scores

    def _affinities(self, q: Tensor, k: Tensor) -> Float[Tensor, "a_or_p s r"]:
        if self.affinity == "dot":
            return torch.bmm(q, k.mT, out=self.room("scores", (*q.shape[:2], k.shape[1]), q.dtype))
        return squared_distances(q, k).mul_(-self.scale)


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where one or the other is True."""
    if one is None or other is None:
        return other if one is None else one
    return one | other
