"""Balanced parts of a graph by METIS, through the optional package pymetis."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_int
from gpa_nd.ops.coarsening import coarse_edges, coarsening_order


def metis_labels(
    edge_index: Int[Tensor, "2 e"], num_nodes: int, parts: int, edge_weight: Float[Tensor, " e"] | None = None
) -> Int[Tensor, " n"]:
    """Cut the graph into parts of about equal size with few edges between them.

    Args:
        edge_index: (2, e) node numbers; direction is ignored, repeated edges add up, self-loops are dropped.
        num_nodes: n, the number of nodes.
        parts: how many, at least 1.
        edge_weight: (e,) finite weights, not negative; 1 by default. METIS takes whole numbers: the heaviest edge
            becomes 1,000 or, in very large graphs, less.

    Returns:
        (n,) the part of every node: exactly min(parts, n) parts, none empty. Where METIS leaves one empty, the largest
        part is halved along its :func:`coarsening_order`.

    Raises:
        ImportError: pymetis is not installed.
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a node number, ``num_nodes`` or ``parts`` is out of range.
    """
    check_int("parts", parts, at_least=1)
    order = coarsening_order(edge_index, num_nodes, edge_weight)
    try:
        import pymetis
    except ImportError as error:
        raise ImportError('METIS needs the package pymetis: pip install "gpa_nd[metis]"') from error
    parts = min(parts, num_nodes)
    if parts <= 1:
        return torch.zeros_like(order)
    both_ways = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    weight = None if edge_weight is None else edge_weight.repeat(2)
    (source, target), weight = coarse_edges(both_ways, torch.arange(num_nodes, device=edge_index.device), weight)
    heaviest = min(1000, max(1, 2**30 // max(1, len(weight))))  # METIS adds them up in 32 bits
    whole = (weight.double() / weight.max() * heaviest).round().long().clamp_min(1) if len(weight) else weight.long()
    starts = [0, *torch.bincount(source, minlength=num_nodes).cumsum(0).tolist()]
    adjacency = pymetis.CSRAdjacency(starts, target.tolist())
    _, found = pymetis.part_graph(parts, adjacency=adjacency, eweights=whole.tolist())
    labels = torch.empty(num_nodes, dtype=torch.int64)
    for part, nodes in enumerate(_fill_empty(found, order.tolist(), parts)):
        labels[nodes] = part
    return labels.to(edge_index.device)


def _fill_empty(found: Sequence[int], order: list[int], parts: int) -> list[list[int]]:
    """The nodes of every part; an empty one gets the second half of the largest."""
    members: list[list[int]] = [[] for _ in range(parts)]
    for node in order:
        members[found[node]].append(node)
    largest = [(-len(nodes), part) for part, nodes in enumerate(members)]
    heapq.heapify(largest)
    for part in [part for part, nodes in enumerate(members) if not nodes]:
        _, donor = heapq.heappop(largest)
        half = (len(members[donor]) + 1) // 2
        members[donor], members[part] = members[donor][:half], members[donor][half:]
        for changed in (donor, part):
            heapq.heappush(largest, (-len(members[changed]), changed))
    return members
