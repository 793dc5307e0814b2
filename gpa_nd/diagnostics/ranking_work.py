"""What Phase 1 of backend "torch" computes, moves and holds, for every ranking and level."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from gpa_nd.diagnostics.blocked_work import INDEX, Held, Phase, Sizes, selected
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.blocked.blocks import CellBlocks, limit_on
from gpa_nd.engine.blocked.largest import FEW, STRIDE
from gpa_nd.engine.blocked.phase1 import ROWS_AT_ONCE
from gpa_nd.engine.blocked.spans import Apart, Span, plan
from gpa_nd.engine.rules import CANDIDATES, Rule
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition


def phase1(layout: Layout, rules: tuple[Rule, ...], sizes: Sizes) -> Phase:
    """Selection, with the levels above: :func:`gpa_nd.engine.phase1.select`."""
    rule, steps = rules[0], Steps()
    if rule.ranking == "mean" and layout.coarser is None:
        look = Look(layout, layout, rule.kappa + layout.contested, sizes, sums=rule.mass is not None)
        steps.keep(look.among_all())
    else:
        columns = None
        steps.keep(means(layout.key_groups, sizes.key_rows, sizes))
        twice = rule.looks_twice(layout.most_visible)
        if layout.coarser is not None or not twice or not layout.by_parts:
            steps.keep(means(layout.query_groups, sizes.rows, sizes))
        if layout.coarser is not None and layout.children is not None:
            steps.need(phase1(layout.coarser, rules[1:], sizes))
            columns = selected(layout.coarser, rules[1].kappa) * layout.children.shape[1]
            candidates = sizes.rows * len(layout.query_cells) * columns * INDEX
            above = candidates // layout.children.shape[1]
            # A table of those under what was selected, masked where nothing was: two of them for a moment.
            steps.keep(Phase(Work(0, above, candidates), 2 * above + 2 * candidates + candidates // INDEX, candidates))
        if twice:
            _twice_ranked(steps, layout, columns, rule, sizes)
        else:
            _ranked(steps, layout, columns, rule, sizes)
    # After what was chosen come those that are always on.
    returned = sizes.rows * len(layout.query_cells) * selected(layout, rule.kappa) * INDEX
    steps.need(Phase(Work(), 2 * returned if layout.always is not None else 0, 0))
    return Phase(steps.work, steps.peak, returned)


class Steps:
    """Steps one after another, of which some leave something behind.

    Attributes:
        work: what all of them compute and move.
        kept: bytes that they left.
        peak: the most bytes that were held.
    """

    def __init__(self) -> None:
        self.work, self.kept, self.peak = Work(), 0, 0

    def need(self, step: Phase) -> None:
        """One that leaves nothing."""
        self.work += step.work
        self.peak = max(self.peak, self.kept + step.held)

    def keep(self, step: Phase) -> None:
        """One whose result stays."""
        self.need(step)
        self.kept += step.returned


def _ranked(steps: Steps, layout: Layout, columns: int | None, rule: Rule, sizes: Sizes) -> None:
    """Pooled keys are ranked, among so many candidates or among all."""
    if rule.ranking == "rms":
        steps.keep(_longer(layout.key_groups, sizes))
    elif rule.ranking == "moments":
        steps.keep(_spread(layout.key_groups, sizes))
    look = Look(
        layout.pooled or layout,
        layout,
        rule.kappa + layout.contested,
        sizes,
        spread=rule.ranking == "moments",
        sums=rule.mass is not None,
    )
    steps.keep(look.among_all() if columns is None else look.among(columns))


def _twice_ranked(steps: Steps, layout: Layout, columns: int | None, rule: Rule, sizes: Sizes) -> None:
    """Pooled keys are ranked, then the best of them once more, by parts of their groups."""
    first, second, parts, kappa = layout.first_look, layout.second_look, layout.key_parts, CANDIDATES * rule.kappa
    assert first is not None
    assert second is not None
    assert parts is not None
    assert layout.query_parts is not None
    steps.keep(means(parts, sizes.key_rows, sizes))
    if rule.affinity == "dot":
        steps.keep(_longer(layout.key_groups, sizes))
        if len(parts) < parts.num_elements:
            steps.keep(_longer(parts, sizes))
    steps.keep(means(layout.query_parts, sizes.rows, sizes))
    look = Look(first, layout, kappa + layout.contested, sizes)
    steps.keep(look.among_all() if columns is None else look.among(columns))
    members = second.key_groups
    added = not parts.uniform
    look = Look(second, layout, rule.kappa, sizes, sums=rule.mass is not None, members=members, added=added)
    steps.keep(look.among(min(kappa, len(layout.key_groups))))


def means(groups: Partition, rows: int, sizes: Sizes, channels: int | None = None) -> Phase:
    """The operator that pools, for each of so many rows; of single elements, these are put in order."""
    channels = sizes.channels if channels is None else channels
    given = rows * groups.num_elements * channels * sizes.given
    if len(groups) == groups.num_elements:
        return Phase(Work(0, given, given), given, given)
    low = rows * len(groups) * channels * sizes.wide
    returned = low // sizes.wide * sizes.given
    rounded = 0 if sizes.given == sizes.wide else returned
    work = pooling(groups, rows, channels, sizes) + Work(0, 2 * rounded, rounded)
    return Phase(work, 2 * low + rounded + gathered(groups, rows, sizes), returned)


def pooling(groups: Partition, rows: int, channels: int, sizes: Sizes) -> Work:
    """Means of elements, which are then looked through for what is not finite."""
    low = rows * len(groups) * channels * sizes.wide
    rounded = 0 if sizes.given == sizes.wide else low // 2
    return Work(0, rows * groups.num_elements * channels * sizes.given + 4 * low + rounded, 2 * low + rounded)


def gathered(groups: Partition, rows: int, sizes: Sizes) -> int:
    """Bytes that are held besides where elements of a group do not follow one another."""
    if groups.uniform and groups.order.equal(torch.arange(groups.num_elements, device=groups.order.device)):
        return 0
    held, limit = Held(), limit_on(sizes.device, rows * groups.num_elements * sizes.channels)
    for start, stop, size, _ in CellBlocks(groups, limit, per_element=sizes.channels, heads=rows).spans:
        elements, each = (stop - start) * size, sizes.channels * sizes.given + 2 * INDEX
        held(elements=elements * each, means=(stop - start) * sizes.channels * sizes.wide)
    return held.bytes


def _squares(groups: Partition, sizes: Sizes) -> Phase:
    """The mean of the squared lengths of keys, each of which is squared as a whole first."""
    keys, low = sizes.key_rows * groups.num_elements, sizes.key_rows * len(groups) * sizes.wide
    lengths = keys * sizes.wide
    copies = 1 if sizes.given == sizes.wide else 2
    work = Work(0, keys * sizes.channels * sizes.given + lengths + 3 * low, lengths + 2 * low)
    return Phase(work, keys * sizes.channels * sizes.wide * copies + lengths, low)


def _longer(groups: Partition, sizes: Sizes) -> Phase:
    """Means that are made as long as their keys, beside the means."""
    squares, low = _squares(groups, sizes), sizes.key_rows * len(groups) * sizes.channels
    work = squares.work + Work(0, 2 * low * sizes.given, low * sizes.given)
    return Phase(work, max(squares.held, squares.returned + 2 * low * sizes.wide), low * sizes.given)


def _spread(groups: Partition, sizes: Sizes) -> Phase:
    """How much the keys of each group differ."""
    squares, low = _squares(groups, sizes), sizes.key_rows * len(groups) * sizes.channels
    keys = sizes.key_rows * groups.num_elements * sizes.channels * sizes.wide
    work = squares.work + Work(0, keys, squares.returned)  # the mean of every key, to which it is compared
    if sizes.given != sizes.wide:  # means that are not rounded
        work += Work(0, keys, low * sizes.wide)
    return Phase(work, max(squares.held + keys, 3 * squares.returned + low * sizes.wide), squares.returned)


@dataclass(frozen=True)
class Look:
    """A call of an operator that ranks: it pools, which copies what is pooled already, and compares.

    Attributes:
        over: whose queries and keys are pooled and compared.
        layout: whose cells choose.
        wanted: how many coarse keys each cell chooses.
        sizes: the tensors.
        spread: whether it takes into account how much the keys of a group differ.
        sums: whether the sums of what is chosen are kept.
        members: the parts of each coarse key, where these are compared; they are pooled already.
        added: whether parts differ in size, which is added to their affinities.
    """

    over: Layout
    layout: Layout
    wanted: int
    sizes: Sizes
    spread: bool = False
    sums: bool = False
    members: Partition | None = None
    added: bool = False

    def among_all(self) -> Phase:
        """Cells choose among all that they may see."""
        layout, sizes, limit = self.over, self.sizes, self._limit
        rankers, work, held = layout.rankers, Work(), Held()
        spans: list[Span] = [Span(None, 0, len(layout.key_groups), alike=True)]
        apart: list[Apart] = []
        if layout.host_ranges is not None:
            spans, apart = plan(layout.host_ranges, rankers.host_offsets.diff())
        for span in spans:
            columns = span.stop - span.start
            together = min(sizes.rows, max(1, limit // (ROWS_AT_ONCE * columns)))
            blocks = CellBlocks(rankers, limit, per_element=together * columns, only=span.cells)
            hides = not span.alike or layout.coarse_positions is not None
            for start, stop, size, _ in blocks.spans:
                cells, step = stop - start, max(1, limit // (together * (stop - start) * columns))
                times = sizes.rows / together * ceil(size / step)
                work += self._meeting(cells * size * sizes.rows, round(times * together * columns), columns)
                self._hold(held, together * cells, columns, size, step, hides)
        for few in apart:
            work += self._apart(few.width, few.cells, held)
        return self._pooled_and(work, held)

    def among(self, columns: int) -> Phase:
        """Cells choose among so many candidates of their own."""
        held = Held()
        candidates = self.sizes.rows * len(self.layout.query_cells) * columns * INDEX
        return self._pooled_and(self._apart(columns, None, held) + Work(0, candidates, 0), held)

    @property
    def _limit(self) -> int:
        return self.sizes.limit(self.over.query_groups.num_elements)

    def _pooled_and(self, work: Work, held: Held) -> Phase:
        """That work in blocks, and what is done once before and after it."""
        pooled, low, besides = self._copied() if self.members is not None else self._pooled()
        chosen = self.sizes.rows * len(self.layout.query_cells) * min(self.wanted, len(self.layout.key_groups)) * INDEX
        returned = chosen + (chosen // INDEX * self.sizes.wide if self.sums else 0)
        if self.sums:  # the share of each, how much those before it hold, and what is then left out
            besides = max(besides, 2 * (returned - chosen) + chosen)
        return Phase(pooled + work + Work(0, 0, 2 * chosen), low + max(besides, returned + held.bytes), returned)

    def _pooled(self) -> tuple[Work, int, int]:
        """Means of queries and keys, the bytes of these, and those that are held besides to compute them."""
        layout, sizes = self.over, self.sizes
        of_queries = sizes.rows * len(layout.query_groups) * sizes.channels * sizes.wide
        of_keys = sizes.key_rows * len(layout.key_groups) * sizes.channels * sizes.wide
        shared = sizes.rows * len(layout.key_groups) * sizes.channels * sizes.wide
        scaled = of_queries if sizes.affinity == "dot" else 0
        work, besides = Work(0, scaled, scaled), 0
        for groups, rows in ((layout.query_groups, sizes.rows), (layout.key_groups, sizes.key_rows)):
            work += pooling(groups, rows, sizes.channels, sizes)
            besides = max(besides, gathered(groups, rows, sizes))
        return work, of_queries + max(shared, of_keys) + (of_keys if shared > of_keys else 0), besides

    def _copied(self) -> tuple[Work, int, int]:
        """Parts of queries and keys, those of one coarse key behind one another, as :meth:`_pooled` tells of means."""
        assert self.members is not None
        sizes, places = self.sizes, len(self.members) * self.members.largest
        of_queries = sizes.rows * self.over.query_groups.num_elements * sizes.channels
        of_keys = sizes.key_rows * self.members.num_elements * sizes.channels
        shared = sizes.rows * self.members.num_elements * sizes.channels if sizes.rows > sizes.key_rows else 0
        together = sizes.rows * places * sizes.channels
        read = (of_queries + of_keys) * sizes.given + 4 * of_queries * sizes.wide
        work = Work(0, read, (3 * of_queries + together) * sizes.wide)
        beside = sizes.rows * places * sizes.wide * (2 if self.added else 0)
        return work, (of_queries + of_keys + together) * sizes.wide + beside, shared * sizes.wide

    def _apart(self, columns: int, cells: torch.Tensor | None, held: Held) -> Work:
        """Cells of which each has a copy of the coarse keys, or of their parts, that it sees."""
        c, rankers, limit, work = self.sizes.channels, self.over.rankers, self._limit, Work()
        places = columns * (1 if self.members is None else self.members.largest)
        for start, stop, size, _ in CellBlocks(rankers, limit, c + places, places * c, self.sizes.rows, cells).spans:
            pairs, step = stop - start, max(1, limit // ((stop - start) * places))
            work += self._meeting(pairs * size, pairs * places, places)
            self._hold(held, pairs, places, size, step, True)
            # Copies of coarse keys, and their numbers: sorted, kept in order, as rows.
            held(copies=pairs * places * c * self.sizes.wide + 5 * pairs * columns * INDEX)
        return work

    def _meeting(self, rows: int, keys: int, columns: int) -> Work:
        """So many coarse queries meet so many coarse keys each, of which so many rows are read."""
        c, number = self.sizes.channels, self.sizes.wide
        return Work(rows * columns * c, (rows + keys) * c * number, 0)

    def _hold(self, held: Held, cells: int, columns: int, size: int, step: int, hides: bool) -> None:
        """So many scores of coarse queries, their sums over cells, picked queries, and what hides coarse keys."""
        sizes, part = self.sizes, min(step, size)
        scores = cells * part * columns * sizes.wide
        alone = size == 1 and self.members is None and not self.sums  # ranked by its scores
        held(
            queries=cells * part * sizes.channels * sizes.wide,
            scores=scores * (1 if sizes.device == "cpu" else 2),
            distances=scores if sizes.affinity == "euclidean" else 0,
            spread=4 * scores + scores // sizes.wide if self.spread else 0,
            sums=cells * columns * ((not alone) + (step < size) + hides) * sizes.wide,
            hidden=2 * cells * columns if hides else 0,
        )
        kappa = self.wanted + 1
        if kappa >= FEW and 2 * kappa <= columns // STRIDE and sizes.device == "cpu" and self.members is None:
            held(stretches=cells * (columns // STRIDE * sizes.wide + kappa * STRIDE * (2 * INDEX + sizes.wide)))
