"""What AddPartitions attached to a graph or a batch, and whether it still fits."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data

from gpa_nd.checks import check_integers
from gpa_nd.pyg.transform import CELLS, COUNT, GROUPS, NEAR

LAST = "gpa_nd.pyg.AddPartitions must be the last transform that changes nodes"


def attached(data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """First nodes of groups and of cells (levels, n), what is always on (2, pairs), and the graph of each node (n,).

    Raises:
        TypeError: not a ``Data``, or numbers of nodes or graphs that are no integers.
        ValueError: the transform is missing, nodes were sampled, removed or renumbered since, or ``batch`` is not
            sorted or not a number for each node.
    """
    if not isinstance(data, Data):
        raise TypeError(f"data: expected a torch_geometric Data or Batch, got {type(data).__name__}")
    missing = [name for name in (GROUPS, CELLS, NEAR, COUNT) if name not in data]
    if missing:
        raise ValueError(
            f"data: expected {', '.join(missing)}, which the transform gpa_nd.pyg.AddPartitions attaches to a graph, "
            f"and to each graph before a batch is made of them, got the attributes {data.keys()}"
        )
    groups, cells, near, batch = data[GROUPS], data[CELLS], data[NEAR], data.get("batch")
    if batch is not None:
        check_batch(batch, data.num_nodes)
        _check_sorted(batch)
    _check_count(data[COUNT], data.num_nodes, batch)
    _check_index(GROUPS, groups, data.num_nodes, batch)
    _check_index(CELLS, cells, data.num_nodes, batch)
    if len(cells) != len(groups):
        raise ValueError(f"{CELLS}: expected {len(groups)} levels as {GROUPS} has, got {len(cells)}")
    _check_near(near, groups[0], cells[0], batch)
    return groups, cells, near, batch


def check_batch(batch: object, num_nodes: int | None) -> None:
    """The graph of each node (n,).

    Raises:
        TypeError: not an integer tensor.
        ValueError: not one number for each node.
    """
    check_integers("batch", batch)
    assert isinstance(batch, Tensor)
    if batch.shape != (num_nodes,):
        raise ValueError(f"batch: expected shape ({num_nodes},), the graph of each node, got {tuple(batch.shape)}")


def _check_sorted(batch: Int[Tensor, " n"]) -> None:
    if bool((batch[:1] < 0).any()):
        raise ValueError(f"batch: expected numbers of at least 0, got {int(batch[0])}")
    if bool((batch.diff() < 0).any()):
        place = int((batch.diff() < 0).nonzero()[0]) + 1
        raise ValueError(f"batch: expected it sorted, got {int(batch[place])} after {int(batch[place - 1])} at {place}")


def _check_count(count: object, num_nodes: int | None, batch: Tensor | None) -> None:
    """As many nodes in each graph as there were when it was divided."""
    check_integers(COUNT, count)
    assert isinstance(count, Tensor)
    if count.shape != (num_nodes,):
        raise ValueError(f"{COUNT}: expected shape ({num_nodes},), one for each node, got {tuple(count.shape)}; {LAST}")
    here = torch.full_like(count, len(count)) if batch is None else torch.bincount(batch)[batch]
    if not bool((here == count).all()):
        node = int((here != count).nonzero()[0])
        raise ValueError(
            f"{COUNT}: expected all {int(count[node])} nodes that the graph of node {node} had when it was divided, "
            f"got {int(here[node])}; {LAST}"
        )


def _check_index(name: str, index: object, num_nodes: int | None, batch: Tensor | None) -> None:
    """First nodes (levels, n), each of which is its own first and in the same graph."""
    check_integers(name, index)
    assert isinstance(index, Tensor)
    if index.ndim != 2 or index.shape[1] != num_nodes or not len(index):
        raise ValueError(
            f"{name}: expected shape (levels, {num_nodes}), one for each node, got {tuple(index.shape)}; {LAST}"
        )
    firsts = index.clamp(0, max(0, index.shape[1] - 1))
    fits = (index == firsts) & (firsts.gather(1, firsts) == firsts)
    if batch is not None:
        fits &= batch[firsts] == batch
    if not bool(fits.all()):
        level, node = (~fits).nonzero()[0].tolist()
        raise ValueError(
            f"{name}: node {node} names {int(index[level, node])}, which is not the first node of a group or cell of "
            f"its graph; {LAST}"
        )


def _check_near(near: object, groups: Tensor, cells: Tensor, batch: Tensor | None) -> None:
    """Pairs (2, pairs) of the first node of a cell and that of a group, in one graph."""
    check_integers(NEAR, near)
    assert isinstance(near, Tensor)
    if near.ndim != 2 or len(near) != 2:
        raise ValueError(f"{NEAR}: expected shape (2, pairs), cells and groups, got {tuple(near.shape)}")
    if not near.shape[1]:
        return
    cell, group = firsts = near.clamp(0, len(cells) - 1)
    fits = (near == firsts).all(0) & (cells[cell] == cell) & (groups[group] == group)
    if batch is not None:
        fits &= batch[cell] == batch[group]
    if not bool(fits.all()):
        pair = int((~fits).nonzero()[0])
        raise ValueError(
            f"{NEAR}: expected the first node of a cell and that of a group of one graph, got {near[:, pair].tolist()} "
            f"at {pair}; {LAST}"
        )
