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
from gpa_nd.pyg.transform import CELLS, GROUPS, NEAR


def graph_layout(data: Data) -> Layout:
    """Who belongs to whom in a graph, or in a batch of graphs, of which none sees another.

    Every layer of a model needs the same one: make it once for each batch.

    Args:
        data: a ``Data`` or ``Batch`` of graphs that went through :class:`AddPartitions`.

    Raises:
        TypeError: ``data`` is something else.
        ValueError: the transform is missing, the nodes were sampled or renumbered since, or ``batch`` is not sorted.

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
    if not isinstance(data, Data):
        raise TypeError(f"data: expected a torch_geometric Data or Batch, got {type(data).__name__}")
    missing = [name for name in (GROUPS, CELLS) if name not in data]
    if missing:
        raise ValueError(
            f"data: expected {' and '.join(missing)}, which the transform gpa_nd.pyg.AddPartitions attaches, got the "
            f"attributes {data.keys()}"
        )
    groups, cells, batch = data[GROUPS], data[CELLS], data.get("batch")
    _check_index(GROUPS, groups, data.num_nodes, batch)
    _check_index(CELLS, cells, data.num_nodes, batch)
    layout = _level(0, torch.arange(groups.shape[1], device=groups.device), groups, cells, batch)
    if NEAR not in data:
        return layout
    near_cell, near_group = (_number(index[0])[nodes] for index, nodes in zip((cells, groups), data[NEAR], strict=True))
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


def _check_index(name: str, index: Tensor, num_nodes: int | None, batch: Tensor | None) -> None:
    """First nodes (levels, n), each of which is its own first and in the same graph."""
    if index.ndim != 2 or index.shape[1] != num_nodes:
        raise ValueError(
            f"{name}: expected shape (levels, {num_nodes}), one for each node, got {tuple(index.shape)}; "
            f"gpa_nd.pyg.AddPartitions must be the last transform that changes nodes"
        )
    if batch is not None and bool((batch.diff() < 0).any()):
        place = int((batch.diff() < 0).nonzero()[0]) + 1
        raise ValueError(f"batch: expected it sorted, got {int(batch[place])} after {int(batch[place - 1])} at {place}")
    inside = (index >= 0) & (index < index.shape[1])
    firsts = index.clamp(0, max(0, index.shape[1] - 1))
    fits = inside & (firsts.gather(1, firsts) == firsts)
    if batch is not None:
        fits &= batch[firsts] == batch
    if not bool(fits.all()):
        level, node = (~fits).nonzero()[0].tolist()
        raise ValueError(
            f"{name}: node {node} names {int(index[level, node])}, which is not the first node of a group or cell of "
            f"its graph; gpa_nd.pyg.AddPartitions must be the last transform that changes nodes"
        )
