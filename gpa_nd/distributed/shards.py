"""Which rows of a structure each process holds: cut so that no cell, no group and no list of members is torn apart."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.layout import Layout

Rows = tuple[Int[Tensor, " _rows"], ...]
"""For every process, the places along the first axis that it holds, ascending."""

Pairs = tuple[Int[Tensor, " _pairs"], Int[Tensor, " _pairs"]]
"""Rows, and a label in each."""


@dataclass(frozen=True)
class Shards:
    """Which rows, places along the first axis, each process holds.

    On a grid these are slabs. On a graph, whose only axis are its nodes, they are the nodes of some cells. A process
    holds nothing where there are fewer cells along the first axis than processes.

    Attributes:
        queries: rows of the queries, one tensor for each process.
        keys: rows of the keys; the same where queries and keys have one shape.
    """

    queries: Rows
    keys: Rows

    @classmethod
    def of(cls, layout: Layout, query_shape: Sequence[int], key_shape: Sequence[int], processes: int) -> Shards:
        """Rows that share a cell, a group or members stay together; processes get about equally many.

        Args:
            layout: who belongs to whom.
            query_shape: the shape of the queries.
            key_shape: that of the keys. If it is the same, both are cut at the same places.
            processes: how many there are.
        """
        members = torch.full((layout.key_groups.num_elements,), -1)
        members[layout.members.order] = torch.arange(len(layout.members)).repeat_interleave(layout.members.sizes)
        of_queries, of_keys = [layout.fine_cells.labels], [layout.key_groups.labels, members]
        if tuple(query_shape) == tuple(key_shape):
            rows = _dealt(query_shape, of_queries + of_keys, processes)
            return cls(rows, rows)
        return cls(_dealt(query_shape, of_queries, processes), _dealt(key_shape, of_keys, processes))


def elements_of(rows: Int[Tensor, " rows"], shape: Sequence[int]) -> Int[Tensor, " n"]:
    """The elements of these rows, row-major."""
    width = prod(shape[1:])
    return (rows[:, None] * width + torch.arange(width, device=rows.device)).flatten()


def _dealt(shape: Sequence[int], labels: Sequence[Int[Tensor, " n"]], processes: int) -> Rows:
    """Blocks of rows that stay together, in the order of their first rows, dealt to processes in equal parts."""
    row = torch.arange(prod(shape)) // max(1, prod(shape[1:]))
    block = _joined(shape[0], [_pairs(row, label) for label in labels])
    _, block, sizes = block.unique(return_inverse=True, return_counts=True)
    counts = torch.tensor(blocks_of_each(sizes.tolist(), processes))
    owner = torch.arange(processes).repeat_interleave(counts)
    return tuple((owner[block] == process).nonzero()[:, 0] for process in range(processes))


def blocks_of_each(sizes: Sequence[int], processes: int) -> list[int]:
    """How many blocks each process gets, of blocks that stand in a row.

    Each takes as many as bring it nearest to an equal part of what is left, and leaves at least one to each of those
    after it. Where there are fewer blocks than processes, the first processes get one each.

    Args:
        sizes: of the blocks, each at least 1.
        processes: how many there are.

    Example:
        >>> blocks_of_each([8, 1, 1], 3), blocks_of_each([4, 4], 3)
        ([1, 1, 1], [1, 1, 0])
    """
    ends = [0, *accumulate(sizes)]
    cuts = [0]
    for left in range(min(processes, len(sizes)), 1, -1):
        before = ends[cuts[-1]]
        target = before + (ends[-1] - before) / left
        cut = bisect_left(ends, target)
        if target - ends[cut - 1] <= ends[cut] - target:
            cut -= 1
        cuts.append(min(max(cut, cuts[-1] + 1), len(sizes) - left + 1))
    cuts.append(len(sizes))
    counts = [end - start for start, end in pairwise(cuts)]
    return counts + [0] * (processes - len(counts))


def _pairs(row: Int[Tensor, " n"], label: Int[Tensor, " n"]) -> Pairs:
    """Which labels there are in which rows, each pair once; −1 is no label."""
    row, label = row[label >= 0], label[label >= 0]
    count = int(label.max()) + 1 if len(label) else 1
    both = (row * count + label).unique()
    return both // count, both % count


def _joined(rows: int, pairs: Sequence[Pairs]) -> Int[Tensor, " rows"]:
    """For every row the first one that it is tied to, by labels that they share, or over others that share some."""
    block = torch.arange(rows)
    while True:
        before = block
        for row, label in pairs:
            least = torch.full((int(label.max()) + 1 if len(label) else 0,), rows)
            least = least.scatter_reduce(0, label, block[row], "amin")
            block = block.scatter_reduce(0, row, least[label], "amin")
        block = block[block]  # what is tied to a row that is tied to an earlier one
        if block.equal(before):
            return block
