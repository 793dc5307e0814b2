"""Cells of a graph, and of any structure whose elements are labelled."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_int
from gpa_nd.ops.base import Shape
from gpa_nd.ops.coarsening import coarse_edges, coarsening_order
from gpa_nd.ops.graph import GraphDownsampler, check_nodes
from gpa_nd.ops.metis import metis_labels
from gpa_nd.partition import Partition
from gpa_nd.partitioners.base import Partitioner


class GraphPartitioner(Partitioner):
    """Definition 3 on a graph: cells of coarse nodes.

    Args:
        labels: (n',) the cell 0 … m−1 of each coarse node, none missing. Any labels serve.

    Raises:
        TypeError: ``labels`` is not an integer tensor.
        ValueError: wrong rank, a negative label, or a cell without nodes.

    Example:
        >>> import torch
        >>> cut = GraphPartitioner(torch.tensor([1, 0, 1]))
        >>> [cell.flatten().tolist() for cell in cut.partition(torch.tensor([[10], [20], [30]]))]
        [[20], [10, 30]]
    """

    def __init__(self, labels: Int[Tensor, " n_coarse"]) -> None:
        self._cells = Partition.from_labels(labels)

    @classmethod
    def from_edges(
        cls,
        edge_index: Int[Tensor, "2 e"],
        downsampler: GraphDownsampler,
        cells: int,
        method: Literal["matching", "metis"] = "matching",
        edge_weight: Float[Tensor, " e"] | None = None,
    ) -> GraphPartitioner:
        """Cells of coarse nodes that are near one another in the graph.

        Args:
            edge_index: (2, e) pairs of nodes of the full graph, as given to the downsampler.
            downsampler: the groups whose coarse nodes are divided.
            cells: m; exactly min(m, n') cells come out.
            method: ``"matching"`` coarsens on to single nodes and cuts that order of coarse nodes as ⌊i · m / n'⌋;
                ``"metis"`` asks METIS for balanced cells with few edges between them (extra ``metis``).
            edge_weight: (e,) as given to the downsampler.

        Raises:
            ImportError: METIS is asked for and pymetis is not installed.
            TypeError: ``edge_index`` is not an integer tensor, ``downsampler`` is of another geometry, or ``cells`` is
                not an int.
            ValueError: an index outside 0 … n−1, ``cells`` below 1, or an unknown method.

        Example:
            >>> import torch
            >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
            >>> pairs = GraphDownsampler(torch.tensor([0, 0, 1, 1]))
            >>> len(GraphPartitioner.from_edges(path, pairs, cells=2).cells((2,)))
            2
        """
        check_int("cells", cells, at_least=1)
        if not isinstance(downsampler, GraphDownsampler):
            raise TypeError(f"downsampler: expected a GraphDownsampler, got {type(downsampler).__name__}")
        if method not in ("matching", "metis"):
            raise ValueError(f"method: expected 'matching' or 'metis', got {method!r}")
        labels = downsampler.labels
        between, weight = coarse_edges(edge_index, labels, edge_weight)
        n_coarse = int(labels.max()) + 1 if len(labels) else 0
        if method == "metis":
            return cls(metis_labels(between, n_coarse, cells, weight))
        order = coarsening_order(between, n_coarse, weight)
        cell_of = torch.empty_like(order)
        cell_of[order] = torch.arange(n_coarse, device=order.device) * min(cells, n_coarse) // max(n_coarse, 1)
        return cls(cell_of)

    def __repr__(self) -> str:
        return f"GraphPartitioner({self._cells.num_elements} nodes in {len(self._cells)} cells)"

    def cells(self, shape: Shape) -> Partition:
        """The cells; ``shape`` must be ``(n',)``, the number of coarse nodes."""
        return check_nodes("labels", self._cells, shape)
