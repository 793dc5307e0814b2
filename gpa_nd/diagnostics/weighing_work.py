"""What it takes to weigh candidates where selection learns: between the phases of every backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from gpa_nd.diagnostics.blocked_work import INDEX, Phase, Sizes
from gpa_nd.diagnostics.ranking_work import means
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.mass import ROOM
from gpa_nd.layout import Layout


@dataclass(frozen=True)
class Weighing:
    """From candidates to their logits, :func:`gpa_nd.engine.learned.weigh`, but for the rule itself.

    Attributes:
        layout: who belongs to whom.
        candidates: how many each cell has.
        sizes: the tensors.
    """

    layout: Layout
    candidates: int
    sizes: Sizes

    def forward(self, *, backward: bool) -> Phase:
        """The logits; with ``backward``, what is kept for the gradient counts as returned."""
        sizes, cells = self.sizes, self.sizes.rows * len(self.layout.query_cells)
        always = 0 if self.layout.always is None else self.layout.always.shape[1]
        named = cells * (self.candidates + always)
        of_queries = means(self.layout.query_groups, sizes.rows, sizes)
        of_keys = means(self.layout.key_groups, sizes.key_rows, sizes)
        work = of_queries.work + of_keys.work + Work(self._products, self._gathered * sizes.given + 4 * named * INDEX)
        low, logits = of_queries.returned + of_keys.returned, named * (INDEX + sizes.wide)
        q, k = (self._at_once * sizes.rows * n * sizes.channels * sizes.wide for n in (self._rankers, self._asked))
        held = low + max(logits, self._numbers + max(q + 2 * k, q + k + 3 * self._scores))
        kept = 0 if not backward else self._saved if self._blocks == 1 else low
        return Phase(work + Work(0, 0, logits), held, logits + kept)

    def gradient(self) -> Phase:
        """That of queries and keys, added to the one of Phase 2; where there are several blocks, each once more."""
        sizes, layout = self.sizes, self.layout
        low = (sizes.rows * len(layout.query_groups) + sizes.key_rows * len(layout.key_groups)) * sizes.channels
        of_queries = sizes.rows * layout.query_groups.num_elements * sizes.channels * sizes.given
        of_keys = sizes.key_rows * layout.key_groups.num_elements * sizes.channels * sizes.given
        low *= sizes.given
        moved = self._gathered * sizes.given + low + 2 * (of_queries + of_keys)
        work = Work(2 * self._products, moved, moved)
        saved, again = self._saved, 0
        if self._blocks > 1:
            work, saved, again = work + Work(self._products, self._gathered * sizes.given), 0, saved + low
        # What was kept of scores is given up before means become gradients of all queries, then of all keys.
        spread_out = low + max(of_queries, of_keys) - saved
        return Phase(work, low + max(2 * self._scores + again, spread_out), 0)

    @property
    def _rankers(self) -> int:
        """Coarse queries that rank for a cell: all have room for the most."""
        return self.layout.rankers.largest

    @property
    def _asked(self) -> int:
        """Candidates, and what is always on where that is ranked, too."""
        beside = 0 if self.layout.always is None or not self.layout.contested else self.layout.always.shape[1]
        return self.candidates + beside

    @property
    def _products(self) -> int:
        cells = self.sizes.rows * len(self.layout.query_cells)
        return cells * self._rankers * self._asked * self.sizes.channels

    @property
    def _gathered(self) -> int:
        """Numbers in the rows of coarse queries and candidates."""
        return self.sizes.rows * len(self.layout.query_cells) * (self._rankers + self._asked) * self.sizes.channels

    @cached_property
    def _at_once(self) -> int:
        """Cells in a block."""
        per_cell = self._asked * self.sizes.channels + self._rankers * (self._asked + self.sizes.channels)
        return min(len(self.layout.query_cells), max(1, ROOM // max(1, self.sizes.rows * per_cell)))

    @property
    def _blocks(self) -> int:
        return ceil(len(self.layout.query_cells) / self._at_once)

    @property
    def _scores(self) -> int:
        """Bytes of the scores of a block."""
        return self._at_once * self.sizes.rows * self._rankers * self._asked * self.sizes.wide

    @property
    def _numbers(self) -> int:
        """Bytes of the numbers of candidates in a block, as they are and as rows."""
        return 2 * self._at_once * self.sizes.rows * self._asked * INDEX

    @property
    def _rows(self) -> int:
        """Bytes of the rows of coarse queries and candidates in a block."""
        return self._at_once * self.sizes.rows * (self._rankers + self._asked) * self.sizes.channels * self.sizes.wide

    @property
    def _saved(self) -> int:
        """Bytes that the gradient of a block needs: its rows, and two tables of the size of scores with masks."""
        return self._rows + 2 * self._scores + self._scores // 2 + self._numbers
