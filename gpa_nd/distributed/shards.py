"""Which rows of a structure each process holds: cut so that no cell, no group and no list of members is torn apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    middle = 2 * sizes.cumsum(0) - sizes  # twice, so that it is a whole number
    owner = middle * processes // (2 * max(1, shape[0]))
    return tuple((owner[block] == process).nonzero()[:, 0] for process in range(processes))


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
