"""graph_layout: from the groups and cells that a graph or a batch carries to a Layout, by tensor operations alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data

from gpa_nd.always.base import table_of
from gpa_nd.layout import Layout
from gpa_nd.partition import Partition
from gpa_nd.pyg.attached import attached


def graph_layout(data: Data) -> Layout:
    """Who belongs to whom in a graph, or in a batch of graphs, of which none sees another.

    Every layer of a model needs the same one: make it once for each batch.

    Args:
        data: a ``Data`` or ``Batch`` of graphs that went through :class:`AddPartitions`.

    Raises:
        TypeError: ``data`` is something else, or numbers of nodes or graphs that are no integers.
        ValueError: the transform is missing, nodes were sampled, removed or renumbered since, or ``batch`` is not
            sorted or not a number for each node.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from gpa_nd.pyg import AddPartitions, graph_layout
        >>> ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
        >>> transform = AddPartitions(downsample=2, groups_per_cell=3)
        >>> graphs = [transform(Data(edge_index=ring[:, : n - 1], num_nodes=n)) for n in (12, 1, 5)]
        >>> layout = graph_layout(Batch.from_data_list(graphs))
        >>> layout
        Layout(18 queries in 11 groups in 5 cells, 18 keys in 11 groups)
        >>> layout.key_ranges.tolist()
        [[0, 7], [0, 7], [0, 7], [7, 8], [8, 11]]
    """
    groups, cells, near, batch = attached(data)
    layout = _level(0, torch.arange(groups.shape[1], device=groups.device), groups, cells, batch)
    if not near.shape[1]:
        return layout
    near_cell, near_group = (_number(index[0])[nodes] for index, nodes in zip((cells, groups), near, strict=True))
    return replace(layout, always=table_of(near_cell, near_group, len(layout.query_cells)))


def _level(level: int, nodes: Tensor, groups: Tensor, cells: Tensor, batch: Tensor | None) -> Layout:
    """The layout of a level, whose elements have these nodes for their first, and those above it."""
    of_group, of_cell = groups[level], cells[level]
    first = _firsts(of_group)
    parts = Partition.from_labels(_number(of_group)[of_group[nodes]])
    return Layout(
        parts,
        Partition.from_labels(_number(of_cell)[of_cell[first]]),
        parts,
        key_ranges=None if batch is None else _own_groups(batch, first, _firsts(of_cell)),
        coarser=None if level + 1 == len(groups) else _level(level + 1, first, groups, cells, batch),
    )


def _firsts(index: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The nodes that are the first of their group."""
    return (index == torch.arange(len(index), device=index.device)).nonzero()[:, 0]


def _number(index: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The number of the group that a node is the first of."""
    return (index == torch.arange(len(index), device=index.device)).cumsum(0) - 1


def _own_groups(batch: Int[Tensor, " n"], groups: Int[Tensor, " g"], cells: Int[Tensor, " m"]) -> Int[Tensor, "m 2"]:
    """The groups in the graph of each cell, given the first nodes of both."""
    counts = torch.bincount(batch[groups])
    ends = counts.cumsum(0)
    return torch.stack([ends - counts, ends], dim=1)[batch[cells]]
