"""AddPartitions: groups and cells of a graph, attached once and right in every batch."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from gpa_nd.checks import check_int
from gpa_nd.ops.coarsening import coarse_edges
from gpa_nd.ops.graph import GraphDownsampler
from gpa_nd.partitioners.graph import GraphPartitioner

GROUPS, CELLS, NEAR, COUNT = "gpa_group_index", "gpa_cell_index", "gpa_near_index", "gpa_node_count"
"""The attributes. A name with "index" makes a batch add the number of nodes before each graph to the node numbers."""


class AddPartitions(BaseTransform):  # type: ignore[misc]
    """Divide the nodes of a graph into groups, and those into cells, and attach both to its ``Data``.

    Groups come from heavy-edge matching, cells from coarsening on, as in :func:`gpa_nd.graph`. Each is named by its
    first node, since a batch of graphs renumbers nodes rightly:

    - ``gpa_group_index`` (levels, n): the first node of each node's group, finest level first;
    - ``gpa_cell_index`` (levels, n): the first node of each node's cell;
    - ``gpa_near_index`` (2, pairs): cells and the groups that are always on for them; none without ``neighbourhood``;
    - ``gpa_node_count`` (n,): at each node the number of nodes in its graph, by which a cut is noticed.

    What removes or renumbers nodes, such as sampling a subgraph, must come before this transform. All graphs of a batch
    need it, with as many levels. PyG joins them, and says in its own words what is missing: ``KeyError`` names the
    attribute that one of the graphs lacks, and a ``RuntimeError`` of "sizes" that must match means other levels.

    Args:
        downsample: most nodes in a group; groups do not join components.
        groups_per_cell: groups in a cell, about. Nodes of one cell share their relevant groups.
        levels: how many times keys are selected; each further level groups the groups of the one before it.
        neighbourhood: whether a cell always attends to its own groups and to those that edges lead to.

    Raises:
        TypeError: a number that is no int; of the call, something other than one ``Data``.
        ValueError: a number below 1; of the call, a graph that does not tell its number of nodes, or edges to others.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> path = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
        >>> path = AddPartitions(downsample=2, groups_per_cell=1)(path)
        >>> path.gpa_group_index.tolist()
        [[0, 0, 2, 2]]
        >>> Batch.from_data_list([path, path]).gpa_group_index.tolist()
        [[0, 0, 2, 2, 4, 4, 6, 6]]
    """

    def __init__(
        self, downsample: int = 8, groups_per_cell: int = 4, *, levels: int = 1, neighbourhood: bool = False
    ) -> None:
        for name, number in (("downsample", downsample), ("groups_per_cell", groups_per_cell), ("levels", levels)):
            check_int(name, number, at_least=1)
        self.downsample, self.groups_per_cell, self.levels = downsample, groups_per_cell, levels
        self.neighbourhood = neighbourhood

    def forward(self, data: Data) -> Data:
        """The same graph with its groups and cells."""
        if not isinstance(data, Data) or isinstance(data, Batch):
            raise TypeError(f"data: expected one graph, a torch_geometric Data, got {type(data).__name__}")
        if data.num_nodes is None:
            raise ValueError(f"data: expected x or num_nodes, which tell the number of nodes, got {data}")
        edges = torch.empty(2, 0, dtype=torch.int64) if data.edge_index is None else data.edge_index
        group = torch.arange(data.num_nodes, device=edges.device)  # of each node, on the level before
        groups, cells = [], []
        edge_index, weight = edges, None
        for _ in range(self.levels):
            count = int(group.max()) + 1 if len(group) else 0
            downsampler = GraphDownsampler.from_edges(edge_index, count, self.downsample, weight)
            m = -(-downsampler.coarse_shape((count,))[0] // self.groups_per_cell)
            cut = GraphPartitioner.from_edges(edge_index, downsampler, max(1, m), edge_weight=weight)
            cell_of_group = cut.cells(downsampler.coarse_shape((count,))).labels
            edge_index, weight = coarse_edges(edge_index, downsampler.labels, weight)
            group = downsampler.labels[group]
            groups.append(group)
            cells.append(cell_of_group[group])
        first_of_group = [_first(labels)[labels] for labels in groups]
        first_of_cell = [_first(labels)[labels] for labels in cells]
        data[GROUPS], data[CELLS] = torch.stack(first_of_group), torch.stack(first_of_cell)
        data[NEAR] = edges.new_empty(2, 0)
        if self.neighbourhood:
            data[NEAR] = _neighbours(edges, first_of_cell[0], first_of_group[0])
        data[COUNT] = torch.full_like(group, data.num_nodes)
        return data

    def __repr__(self) -> str:
        return (
            f"AddPartitions({self.downsample}, {self.groups_per_cell}, levels={self.levels}, "
            f"neighbourhood={self.neighbourhood})"
        )


def _neighbours(edges: Tensor, cell: Int[Tensor, " n"], group: Int[Tensor, " n"]) -> Int[Tensor, "2 pairs"]:
    """Each cell with its own groups, and with those that an edge leads to, each pair once."""
    one, other = edges
    pairs = torch.cat([cell, cell[one], cell[other]]) * len(cell) + torch.cat([group, group[other], group[one]])
    pairs = torch.unique(pairs)
    return torch.stack([pairs // max(1, len(cell)), pairs % max(1, len(cell))])


def _first(labels: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The first node with each label."""
    count = int(labels.max()) + 1 if len(labels) else 0
    nodes = torch.arange(len(labels), device=labels.device)
    return nodes.new_zeros(count).scatter_reduce_(0, labels, nodes, "amin", include_self=False)
