"""Downsampling of graphs and of any structure whose elements are labelled: a mesh, a point cloud, a sphere."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.ops.base import Downsampler, IndexUpsampler, Shape
from gpa_nd.ops.coarsening import heavy_edge_matching
from gpa_nd.partition import Partition


class GraphDownsampler(Downsampler):
    """Definition 1 on a graph: the mean over groups of nodes.

    Args:
        labels: (n,) the group 0 … n'−1 of each node, none missing. Any labels serve, from whatever clustering.

    Raises:
        TypeError: ``labels`` is not an integer tensor.
        ValueError: wrong rank, a negative label, or a group without nodes.

    Example:
        >>> import torch
        >>> down = GraphDownsampler(torch.tensor([0, 1, 0]))
        >>> down(torch.tensor([[1.0], [5.0], [3.0]])).tolist()
        [[2.0], [5.0]]
    """

    def __init__(self, labels: Int[Tensor, " n"]) -> None:
        self._groups = Partition.from_labels(labels)

    @classmethod
    def from_edges(
        cls,
        edge_index: Int[Tensor, "2 e"],
        num_nodes: int,
        factor: int,
        edge_weight: Float[Tensor, " e"] | None = None,
    ) -> GraphDownsampler:
        """Group connected nodes by heavy-edge matching.

        Args:
            edge_index: (2, e) pairs of nodes, in either or both directions.
            num_nodes: n, how many nodes there are.
            factor: most nodes in a group. Groups never join two components, so isolated nodes stay alone.
            edge_weight: (e,) how strongly the nodes of an edge belong together; 1 by default.

        Raises:
            TypeError: ``edge_index`` is not an integer tensor.
            ValueError: an index outside 0 … n−1, ``factor`` below 1, or weights that do not fit.

        Example:
            >>> import torch
            >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
            >>> GraphDownsampler.from_edges(path, num_nodes=4, factor=4).coarse_shape((4,))
            (1,)
        """
        return cls(heavy_edge_matching(edge_index, num_nodes, factor, edge_weight))

    def __repr__(self) -> str:
        return f"GraphDownsampler({self._groups.num_elements} nodes in {len(self._groups)} groups)"

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """(n,) the group of each node."""
        return self._groups.labels

    def groups(self, shape: Shape) -> Partition:
        """The groups; ``shape`` must be ``(n,)``."""
        return check_nodes("labels", self._groups, shape)

    def upsampler(self) -> GraphIndexUpsampler:
        """All nodes of a chosen group."""
        return GraphIndexUpsampler(self.labels)


class GraphIndexUpsampler(IndexUpsampler):
    """Definition 2 on a graph: from groups to their nodes.

    Args:
        labels: (n,) the group of each node, as in :class:`GraphDownsampler`.

    Raises:
        TypeError: ``labels`` is not an integer tensor.
        ValueError: wrong rank, a negative label, or a group without nodes.

    Example:
        >>> import torch
        >>> GraphIndexUpsampler(torch.tensor([0, 1, 0]))(torch.tensor([1, 0]), (3,)).tolist()
        [1, -1, 0, 2]
    """

    def __init__(self, labels: Int[Tensor, " n"]) -> None:
        self._groups = Partition.from_labels(labels)

    def __repr__(self) -> str:
        return f"GraphIndexUpsampler({self._groups.num_elements} nodes in {len(self._groups)} groups)"

    def members(self, shape: Shape) -> Partition:
        """The nodes of each group; ``shape`` must be ``(n,)``."""
        return check_nodes("labels", self._groups, shape)


def check_nodes(name: str, partition: Partition, shape: Shape) -> Partition:
    """The partition, if it is one of a structure of this shape.

    Raises:
        ValueError: ``shape`` is not ``(n,)``.
    """
    if tuple(shape) != (partition.num_elements,):
        raise ValueError(f"{name}: they are for shape ({partition.num_elements},), got one of shape {tuple(shape)}")
    return partition
