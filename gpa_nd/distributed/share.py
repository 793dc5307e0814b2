"""What one process keeps of a layout: its own elements, and of all others what is known of coarse elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from math import prod
from typing import TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gpa_nd.distributed.pooled import Pooled, part_of
from gpa_nd.distributed.rankers import Rankers
from gpa_nd.distributed.shards import Rows, Shards, elements_of
from gpa_nd.distributed.together import Together
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Holdings:
    """The rows under each coarse key, of which every process holds those of its own coarse keys.

    Attributes:
        members: one's own rows under each of one's own coarse keys.
        groups: the same, but for rows that are under none: every row is in one.
        rows: how many rows one holds.
        sizes: (n_k',) how many there are under every coarse key, of all processes.
        largest: the most under any.
    """

    members: Partition
    groups: Partition
    rows: int
    sizes: Int[Tensor, " n_k_low"]
    largest: int


@dataclass(frozen=True, eq=False)
class Look:
    """How one's own cells rank coarse keys.

    Attributes:
        rankers: the rows that rank.
        layout: one's own cells over these rows, and all coarse keys.
    """

    rankers: Rankers
    layout: Layout


@dataclass(frozen=True, eq=False)
class Above:
    """Where more than two levels select, those above the first; every process computes them all.

    Attributes:
        layout: the next level, of all coarse queries and coarse keys.
        queries: how coarse queries come together.
        parents: the cell there that chooses for each of one's own.
        children: the coarse keys under each of its own coarse keys.
    """

    layout: Layout
    queries: Together
    parents: Int[Tensor, " m_own"]
    children: Int[Tensor, "n_k_above most"]


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts of groups, for ``ranking="rerank"``.

    Attributes:
        of_queries: one's own queries in parts.
        of_keys: one's own keys in parts.
        keys: the parts under every coarse key.
        uneven: whether parts differ in size, of all processes.
        pooled: whether any of them is more than one key.
        look: how parts of queries rank.
        at_first: whether they do so at the first look, too.
    """

    of_queries: Partition
    of_keys: Partition
    keys: Holdings
    uneven: bool
    pooled: bool
    look: Look
    at_first: bool


@dataclass(frozen=True, eq=False)
class Share:
    """What a process keeps of a layout.

    Its own elements, groups and cells have numbers of their own, in the order that they have in the layout.

    Attributes:
        query_groups: one's own queries in groups.
        cells: one's own queries in cells.
        key_groups: one's own keys in groups.
        keys: the keys under every coarse key.
        coarse_keys: how coarse keys come together.
        own: (n_own,) which coarse keys are one's own.
        look: how coarse queries rank.
        most_visible: the most coarse keys that any cell of any process may select from.
        positions: where one's own queries and keys stand; None if no axis is causal.
        above: the levels above; None if there are none.
        parts: parts of groups; None without.
    """

    query_groups: Pooled
    cells: Partition
    key_groups: Pooled
    keys: Holdings
    coarse_keys: Together
    own: Int[Tensor, " n_own"]
    look: Look
    most_visible: int
    positions: tuple[Tensor, Tensor] | None
    above: Above | None
    parts: Parts | None

    @property
    def levels(self) -> int:
        """How many times keys are selected."""
        return 1 if self.above is None else 1 + self.above.layout.levels

    def to(self, device: torch.device) -> Share:
        """The same share with its tensors on a device."""
        return _moved(self, device)

    @classmethod
    def of(
        cls,
        layout: Layout,
        shards: Shards,
        query_shape: Sequence[int],
        key_shape: Sequence[int],
        rank: int,
    ) -> Share:
        """The share of one process, from the layout of all; both are on the CPU."""
        processes = len(shards.queries)
        of_query, of_key = _owners(shards.queries, query_shape), _owners(shards.keys, key_shape)
        queries, keys = (elements_of(x[rank], s) for x, s in ((shards.queries, query_shape), (shards.keys, key_shape)))
        cells, of_group = _first(layout.fine_cells, of_query), _first(layout.key_groups, of_key)
        mine = (cells == rank).nonzero()[:, 0]
        of_coarse_query = _first(layout.query_groups, of_query)
        above = parts = positions = None
        if layout.positions is not None:
            positions = layout.positions[0][queries], layout.positions[1][keys]
        if layout.coarser is not None and layout.parents is not None and layout.children is not None:
            together = Together.of(of_coarse_query, processes)
            above = Above(layout.coarser, together, layout.parents[mine], layout.children)

        def look(rankers: Partition, owner: Tensor) -> Look:
            made = Rankers.of(rankers, cells, owner, rank, processes)
            return Look(made, _over(made.cells, layout, mine))

        if layout.second_look is not None and layout.query_parts is not None and layout.key_parts is not None:
            rows = (_first(layout.key_parts, of_key) == rank).nonzero()[:, 0]
            parts = Parts(
                part_of(layout.query_parts, queries),
                part_of(layout.key_parts, keys),
                _held(layout.second_look.key_groups, layout.second_look.key_groups, rows, of_group == rank),
                not layout.key_parts.uniform,
                layout.key_parts.largest > 1,
                look(layout.second_look.rankers, _first(layout.query_parts, of_query)),
                layout.by_parts,
            )
        return cls(
            query_groups=Pooled.of(layout.query_groups, queries),
            cells=part_of(layout.fine_cells, queries),
            key_groups=Pooled.of(layout.key_groups, keys),
            keys=_held(layout.members, layout.key_groups, keys, of_group == rank),
            coarse_keys=Together.of(of_group, processes),
            own=(of_group == rank).nonzero()[:, 0],
            look=look(layout.rankers, of_coarse_query),
            most_visible=layout.most_visible,
            positions=positions,
            above=above,
            parts=parts,
        )


def _moved(x: Kept, device: torch.device) -> Kept:
    """The same with all tensors in it on a device."""
    if isinstance(x, Tensor | Partition | Layout):
        return x.to(device)  # type: ignore[return-value]
    if isinstance(x, tuple):
        return tuple(_moved(each, device) for each in x)  # type: ignore[return-value]
    if is_dataclass(x) and not isinstance(x, type):
        return replace(x, **{each.name: _moved(getattr(x, each.name), device) for each in fields(x)})
    return x


def _owners(rows: Rows, shape: Sequence[int]) -> Int[Tensor, " n"]:
    """The process that holds each element."""
    owner = torch.empty(shape[0], dtype=torch.int64)
    for process, places in enumerate(rows):
        owner[places] = process
    return owner.repeat_interleave(prod(shape[1:]))


def _first(part: Partition, owner: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The process that holds each cell, which no two do."""
    return owner[part.order[part.offsets[:-1]]]


def _held(
    members: Partition,
    groups: Partition,
    rows: Int[Tensor, " own"],
    mine: Bool[Tensor, " n_k_low"],
) -> Holdings:
    """What of the members of coarse keys is in these rows, those of coarse keys that are one's own."""
    lists = members.lists(mine.nonzero()[:, 0])
    place = torch.full((groups.num_elements,), -1)
    place[rows] = torch.arange(len(rows))
    own = Partition(place[lists.order], lists.offsets, lists.host_offsets, members.covers)
    whole = own if members.covers else part_of(groups, rows)
    return Holdings(own, whole, len(rows), members.sizes, members.largest)


def _over(cells: Partition, layout: Layout, mine: Int[Tensor, " m_own"]) -> Layout:
    """One's own cells over rows that rank, and all coarse keys."""
    rows, keys = (torch.arange(n) for n in (cells.num_elements, len(layout.key_groups)))
    of_cells = layout.coarse_positions
    return Layout(
        Partition.from_labels(rows),
        cells,
        Partition.from_labels(keys),
        key_ranges=None if layout.key_ranges is None else layout.key_ranges[mine],
        always=None if layout.always is None else layout.always[mine],
        coarse_positions=None if of_cells is None else (of_cells[0][mine], of_cells[1]),
    )
