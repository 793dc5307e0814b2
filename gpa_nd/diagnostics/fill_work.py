"""What it takes that unselected coarse keys stand in the softmax, each as one pooled key: beside every backend."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from gpa_nd.diagnostics.blocked_work import INDEX, Phase, Sizes
from gpa_nd.diagnostics.ranking_work import means
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.groups import ROOM
from gpa_nd.layout import Layout


@dataclass(frozen=True)
class Filling:
    """Every query and every coarse key, beside Phase 2: :class:`gpa_nd.engine.fill.Rest`.

    Attributes:
        layout: who belongs to whom.
        chosen: how many coarse keys a cell names.
        sizes: the tensors.
    """

    layout: Layout
    chosen: int
    sizes: Sizes

    def forward(self, *, backward: bool) -> Phase:
        """The result beside that of Phase 2; with ``backward``, what is kept for the gradient counts as returned."""
        sizes, c_v, low = self.sizes, self.sizes.value_channels, self._low
        of_keys = means(self.layout.key_groups, sizes.key_rows, sizes)
        of_values = means(self.layout.key_groups, sizes.key_rows, sizes, c_v)
        queries, results = (self._queries * c for c in (sizes.channels, c_v))
        work = of_keys.work + of_values.work + self._scores_again()
        work += Work(0, (queries + results) * sizes.given, low + results * sizes.given)
        queries, results = queries * sizes.wide, results * sizes.wide
        if sizes.given != sizes.wide:  # rounded in the end
            work += Work(0, results, results)
        numbers = 3 * self.layout.query_groups.num_elements * INDEX
        single = self._blocks == 1
        # Scores, weights and one on the way from these to those, with two masks; for a gradient all of the way is kept.
        in_block = self._pairs * (4 * sizes.wide + 3 if backward and single else 3 * sizes.wide + 2)
        lists = 2 * self._at_once * sizes.rows * self.chosen * INDEX + 4 * self._pairs
        held = 2 * low + queries + queries // self._blocks + numbers + max(in_block, lists)
        kept = 0
        if backward:
            kept = low + queries + 3 * results
            kept += self._pairs * (3 * sizes.wide + 3) + low + queries if single else 0
        return Phase(work, max(held, low + queries + 5 * results, kept), kept or results)

    def gradient(self) -> Phase:
        """That of q, k and v, to which the one of Phase 2 is added; where there are several blocks, each once more."""
        sizes = self.sizes
        c, c_v = sizes.channels, sizes.value_channels
        of_keys = sizes.key_rows * self.layout.key_groups.num_elements * (c + c_v)
        moved = (self._queries * c + of_keys) * sizes.given
        pairs = self._queries * len(self.layout.key_groups)
        results = self._queries * c_v
        work = Work(2 * pairs * (c + c_v), moved + 3 * results * sizes.given, 2 * moved)
        in_block = self._pairs * sizes.wide
        if self._blocks > 1:
            work += self._scores_again()
            in_block = self._pairs * (5 * sizes.wide + 1) + self._low
        return Phase(work, max(in_block + self._low + 2 * results * sizes.wide, moved), moved)

    def _scores_again(self) -> Work:
        """Scores and weights, for which every block looks through all groups for what is no number."""
        sizes, keys = self.sizes, len(self.layout.key_groups)
        c, c_v = sizes.channels, sizes.value_channels
        looked_through = sizes.rows * keys * (4 * c + 7 * c_v) * sizes.wide * self._blocks
        named = self._queries * self.chosen * INDEX
        return Work(self._queries * keys * (c + c_v), named + looked_through)

    @property
    def _queries(self) -> int:
        return self.sizes.rows * self.layout.query_groups.num_elements

    @property
    def _low(self) -> int:
        """Bytes of pooled keys and values, for every head of the queries."""
        channels = self.sizes.channels + self.sizes.value_channels
        return self.sizes.rows * len(self.layout.key_groups) * channels * self.sizes.wide

    @property
    def _at_once(self) -> int:
        """Queries in a block."""
        per_query = self.sizes.rows * len(self.layout.key_groups)
        return min(self.layout.query_groups.num_elements, max(1, ROOM // max(1, per_query)))

    @property
    def _blocks(self) -> int:
        return ceil(self.layout.query_groups.num_elements / self._at_once)

    @property
    def _pairs(self) -> int:
        """Scores in a block."""
        return self.sizes.rows * self._at_once * len(self.layout.key_groups)
