"""The neighbourhood of a cell on a graph."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from gpa_nd.always.base import AlwaysOn, table_of
from gpa_nd.checks import check_integers
from gpa_nd.ops.base import Downsampler, Shape
from gpa_nd.ops.coarsening import checked_edges
from gpa_nd.partition import Partition


class GraphNeighbourhood(AlwaysOn):
    """The groups of a cell's own nodes, and those of their neighbours by an edge.

    A cell that touches a hub sees all groups around it, and every cell gets room for as many as the one that sees most.

    Args:
        edge_index: (2, e) pairs of nodes, in either or both directions.

    Raises:
        TypeError: ``edge_index`` is not an integer tensor.
        ValueError: wrong shape.

    Example:
        >>> import torch
        >>> from gpa_nd import GPA
        >>> from gpa_nd.ops import GraphDownsampler
        >>> from gpa_nd.partitioners import GraphPartitioner
        >>> path = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
        >>> pairs, single = GraphDownsampler(torch.tensor([0, 0, 1, 1, 2, 2])), GraphPartitioner(torch.arange(3))
        >>> GPA(single, pairs, kappa=1, always=[GraphNeighbourhood(path)]).layout((6,), (6,)).always.tolist()
        [[0, 1, -1], [0, 1, 2], [1, 2, -1]]
    """

    def __init__(self, edge_index: Int[Tensor, "2 e"]) -> None:
        check_integers("edge_index", edge_index)
        if edge_index.ndim != 2 or len(edge_index) != 2:
            raise ValueError(f"edge_index: expected shape (2, e), got {tuple(edge_index.shape)}")
        self.edge_index = edge_index.long().cpu()

    def __repr__(self) -> str:
        return f"GraphNeighbourhood({self.edge_index.shape[1]} edges)"

    def keys(
        self, cells: Partition, query_shape: Shape, key_downsampler: Downsampler, key_shape: Shape
    ) -> Int[Tensor, "m a"]:
        """The groups in and around each cell.

        Raises:
            ValueError: queries and keys that are not the nodes of one graph, or an edge to a node that is not there.
        """
        groups = key_downsampler.groups(key_shape)
        if groups.num_elements != cells.num_elements:
            raise ValueError(
                f"always: a graph neighbourhood expects queries and keys on the same nodes, got {cells.num_elements} "
                f"and {groups.num_elements}"
            )
        one, other = checked_edges(self.edge_index, cells.num_elements, None).to(cells.labels.device)
        cell = torch.cat([cells.labels, cells.labels[one], cells.labels[other]])
        return table_of(cell, torch.cat([groups.labels, groups.labels[other], groups.labels[one]]), len(cells))
