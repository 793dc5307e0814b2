"""What Phase 2 of backend "torch" computes, moves and holds, found by dividing the work into blocks as it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.blocked.blocks import CellBlocks, limit_on
from gpa_nd.engine.blocked.phase2 import multiplies
from gpa_nd.engine.blocked.widths import widths
from gpa_nd.engine.precision import wide
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

INDEX = 8
"""Bytes of an int64."""


@dataclass(frozen=True)
class Sizes:
    """The tensors that attention is computed on, as far as a layout does not know them.

    Attributes:
        batch: B.
        heads: H, of the queries.
        key_heads: H_k.
        channels: c.
        value_channels: c_v.
        dtype: of q, k and v.
        device: type of the device, on which the size of a block depends.
        affinity: its kind; distances are made anew for every block.
    """

    batch: int
    heads: int
    key_heads: int
    channels: int
    value_channels: int
    dtype: torch.dtype
    device: str
    affinity: str

    @property
    def rows(self) -> int:
        """B·H: a cell is computed once for each of them."""
        return self.batch * self.heads

    @property
    def key_rows(self) -> int:
        """B·H_k."""
        return self.batch * self.key_heads

    @property
    def given(self) -> int:
        """Bytes of a number of q, k and v."""
        return self.dtype.itemsize

    @property
    def wide(self) -> int:
        """Bytes of a number that is computed with."""
        return wide(self.dtype).itemsize

    def limit(self, queries: int) -> int:
        """Numbers in a block."""
        return limit_on(self.device, self.rows * queries * self.channels)


@dataclass(frozen=True)
class Phase:
    """One phase, or a step of it.

    Attributes:
        work: what is computed and moved.
        held: bytes of memory at its peak, what it returns included.
        returned: bytes of what it returns.
    """

    work: Work
    held: int
    returned: int


def selected(layout: Layout, kappa: int) -> int:
    """How many coarse keys a cell attends to at most, those that are always on included."""
    return min(kappa, len(layout.key_groups)) + (0 if layout.always is None else layout.always.shape[1])


def columns_of(members: Partition, chosen: int) -> int:
    """Room that every cell has for the elements under so many coarse keys: the largest of them."""
    return max(1, int(members.host_offsets.diff().topk(min(chosen, len(members))).values.sum()))


def looked_through(layout: Layout, sizes: Sizes) -> int:
    """Bytes of k, where keys that are always on and that nobody ranked are looked through for infinity.

    Devices that would have to be waited for copy them instead.
    """
    if layout.always is None:
        return 0
    return sizes.key_rows * layout.key_groups.num_elements * sizes.channels * sizes.given


def phase2(layout: Layout, chosen: int, sizes: Sizes, *, logits: bool = False) -> Phase:
    """Attention to the elements under so many coarse keys of each cell, to which logits are added or not."""
    c, c_v = sizes.channels, sizes.value_channels
    work, held, dtype = Work(), Held(), torch.empty(0, dtype=sizes.dtype)
    for cells, size, part, columns in _blocks(layout, chosen, 2, sizes):
        rows = cells * size
        tokens = rows * c + cells * columns * (c + c_v)
        work += Work(rows * columns * (c + c_v), tokens * sizes.given, rows * c_v * sizes.given)
        held.block(layout, cells, columns, part, sizes, sizes.device != "cpu" or multiplies(dtype), logits)
    out = (sizes.rows * layout.query_groups.num_elements + 1) * c_v * sizes.given
    selected = sizes.rows * len(layout.query_cells) * chosen * INDEX
    looked = looked_through(layout, sizes)
    copied = looked if sizes.device != "cpu" else 0
    return Phase(work + Work(0, 2 * selected + looked, copied), out + copied + held.bytes, out + copied)


def backward(layout: Layout, chosen: int, sizes: Sizes, *, logits: bool = False) -> Phase:
    """The gradients of q, k and v, from what was given forward: keys are gathered and scored again."""
    c, c_v = sizes.channels, sizes.value_channels
    work, held = Work(), Held()
    for cells, size, part, columns in _blocks(layout, chosen, 4, sizes):
        rows = cells * size
        gathered = cells * columns * (c + c_v)
        work += Work(
            rows * columns * (3 * c + 2 * c_v),
            (rows * (c + c_v) + gathered) * sizes.given + gathered * sizes.wide,  # added to the gradients of others
            rows * c * sizes.given + gathered * sizes.wide,
        )
        held.block(layout, cells, columns, part, sizes, False, logits)
        of_queries = c + c_v * (1 if sizes.given == sizes.wide else 1.5)
        held(gradient_of_keys=cells * columns * (c + c_v + 2) * sizes.wide)
        held(gradient_of_queries=round(cells * part * (columns + of_queries) * sizes.wide))
        if sizes.affinity == "euclidean":
            held(distances=(2 * cells * part + 3 * cells * columns) * c * sizes.wide)
    of_queries = sizes.rows * layout.query_groups.num_elements * c
    of_keys = sizes.key_rows * layout.key_groups.num_elements * (c + c_v)
    gradients = (of_queries + of_keys) * sizes.given
    added_up = of_keys * sizes.wide
    work += Work(0, 0, added_up)
    if sizes.given != sizes.wide:
        work += Work(0, added_up, of_keys * sizes.given)
        return Phase(work, max(of_queries * sizes.given + added_up + held.bytes, gradients + added_up), gradients)
    return Phase(work, gradients + held.bytes, gradients)


def _blocks(layout: Layout, chosen: int, matrices: int, sizes: Sizes) -> list[tuple[int, int, int, int]]:
    """Cells in each block, queries in each of its cells, how many of those at once, and room for so many elements."""
    limit, row = sizes.limit(layout.query_groups.num_elements), sizes.channels + sizes.value_channels
    relevant = torch.full((1, 1, 1), -1).expand(1, len(layout.query_cells), chosen)  # whatever will be there
    found = []
    for named, of_cells in widths(relevant, layout.always if sizes.device == "cpu" else None):
        columns = columns_of(layout.members, named)
        blocks = CellBlocks(
            layout.fine_cells,
            limit,
            per_element=row + matrices * columns,
            per_cell=matrices // 2 * row * columns,
            heads=sizes.rows,
            only=of_cells,
        )
        for start, stop, size, _ in blocks.spans:
            cells = stop - start
            found.append((cells, size, min(size, max(1, limit // (cells * matrices * columns))), columns))
    return found


class Held:
    """Memory that one block takes over from another: of each kind, the most that any needs.

    Attributes:
        most: bytes of each kind.
        bytes: of all kinds together, at the peak.
    """

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self.bytes = 0

    def __call__(self, **bytes_of: int) -> None:
        """A block needs so many of these kinds."""
        for name, number in bytes_of.items():
            if number > self.most.get(name, 0):  # made anew, before the smaller one is given up
                self.bytes = max(self.bytes, sum(self.most.values()) + number)
                self.most[name] = number

    def block(
        self,
        layout: Layout,
        cells: int,
        columns: int,
        part: int,
        sizes: Sizes,
        weighs_as_given: bool,
        logits: bool,
    ) -> None:
        """Gathered keys and values and their numbers, some queries, their scores and results."""
        number = sizes.wide if sizes.given == sizes.wide else sizes.wide + sizes.given
        of_values = sizes.given if weighs_as_given else number
        # Elements, rows, and these once more; many lists of numbers where groups differ in size.
        lists = 3 if layout.members.uniform and layout.key_ranges is None and layout.always is None else 8
        tables = 1 if sizes.device == "cpu" else 2
        if layout.positions is not None:  # how far a key is before a query
            tables += 1
        of_scores = tables * sizes.wide
        if weighs_as_given and sizes.given != sizes.wide:  # weights, rounded as values are
            of_scores += sizes.given
        self(
            keys=cells * columns * (sizes.channels * number + sizes.value_channels * of_values),
            lists=cells * columns * (lists + 2 * logits) * INDEX,
            scores=cells * part * columns * of_scores,
            distances=2 * cells * part * columns * sizes.wide if sizes.affinity == "euclidean" else 0,
            queries=cells * part * ((sizes.channels + sizes.value_channels) * number + 2 * INDEX),
        )
