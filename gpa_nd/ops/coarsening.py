"""Coarsening of a graph by repeated matching: groups of nodes, an order of nodes, and the edges between groups.

Only plain tensor operations on whole edge lists are used, so the functions run on every device. All sums that decide
anything are sums of integers (weights become 31-bit fixed-point numbers): the result does not depend on the order of
the edges or on the device, and repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.checks import check_int, check_integers, check_tensor

_ROUNDS = 6  # handshakes per level; hardly a node still has a free neighbour afterwards
_WEIGHTED_ROUNDS = 3  # then the hash alone decides: on a slope of weights few choices are mutual
_HASH = (1 << 31) - 1


def heavy_edge_matching(
    edge_index: Int[Tensor, "2 e"], num_nodes: int, factor: int, edge_weight: Float[Tensor, " e"] | None = None
) -> Int[Tensor, " n"]:
    """Group connected nodes, at most ``factor`` to a group, along heavy edges.

    Pairs are matched in ceil(log2(factor)) levels and one more for what stayed small. At each level every group picks
    its heaviest edge, and two groups that pick each other merge if together they have at most ``factor`` nodes. The
    heaviness of an edge of weight w between groups of total weights a and b is (w / a) * (w / b), the share that it has
    at either end: groups grow evenly, and nodes with few neighbours, which would be left over, go first. Groups left
    alone merge with others that have the same heaviest neighbour, so a star shrinks as fast as a path.

    Args:
        edge_index: (2, e) node numbers. Direction is ignored: the edges between two nodes, either way, add up to one,
            and self-loops are dropped.
        num_nodes: the number n of nodes.
        factor: most nodes in a group; 1 leaves every node alone. Powers of two fill best.
        edge_weight: (e,) finite weights, not negative; default one each.

    Returns:
        (n,) the group of every node: 0 … n' - 1, none missing. No group spans two connected components.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a node number, a weight, ``num_nodes`` or ``factor`` is out of range.

    Example:
        >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> heavy_edge_matching(path, num_nodes=4, factor=2).tolist()
        [0, 0, 1, 1]
    """
    edge_index = checked_edges(edge_index, num_nodes, edge_weight)
    check_int("factor", factor, at_least=1)
    labels = torch.arange(num_nodes, device=edge_index.device)
    levels = _levels(edge_index, num_nodes, min(factor, num_nodes), edge_weight)
    for group, *_ in islice(levels, (factor - 1).bit_length() + 1):
        labels = group[labels]
    return labels


def coarsening_order(
    edge_index: Int[Tensor, "2 e"], num_nodes: int, edge_weight: Float[Tensor, " e"] | None = None
) -> Int[Tensor, " n"]:
    """Order the nodes so that neighbours in the graph are near, and contiguous pieces of the order are compact.

    Matching as in ``heavy_edge_matching`` goes on until every connected component is one group; the order reads the
    leaves of that tree, components one after another. Children of a group are placed from the root down, each towards
    the side on which its neighbours already lie, near ones counting more.

    Args:
        edge_index: (2, e) node numbers; direction and self-loops are ignored.
        num_nodes: the number n of nodes.
        edge_weight: (e,) finite weights, not negative; default one each.

    Returns:
        (n,) node numbers, each once.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a node number, a weight or ``num_nodes`` is out of range.

    Example:
        >>> shuffled_path = torch.tensor([[2, 0, 3], [0, 3, 1]])
        >>> coarsening_order(shuffled_path, num_nodes=4).tolist()
        [2, 0, 3, 1]
    """
    edge_index = checked_edges(edge_index, num_nodes, edge_weight)
    levels = list(_levels(edge_index, num_nodes, num_nodes, edge_weight))
    order = torch.arange(int(levels[-1][0].max()) + 1 if levels else num_nodes, device=edge_index.device)
    position = order
    for group, low, high, weight in reversed(levels):
        parent = position[group]
        step = _at(high, parent) - _at(low, parent)
        unit = 2.0**60 / weight.sum().clamp(min=1)
        pull = torch.where(step == 0, 0.0, weight * unit / step).long()
        pull = torch.zeros_like(group).index_add_(0, low, pull).index_add_(0, high, -pull)
        order = pull.sort(stable=True).indices
        order = order[parent[order].sort(stable=True).indices]
        position = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return order


def coarse_edges(
    edge_index: Int[Tensor, "2 e"], labels: Int[Tensor, " n"], edge_weight: Float[Tensor, " e"] | None = None
) -> tuple[Int[Tensor, "2 f"], Float[Tensor, " f"]]:
    """The edges between different groups, each once, with the summed weight of the edges that it stands for.

    Args:
        edge_index: (2, e) node numbers. Direction is kept.
        labels: (n,) the group of every node.
        edge_weight: (e,) weights; default one each, so that the sums are counts.

    Returns:
        (2, f) group numbers, sorted by first and then second row, and (f,) weights: the dtype of ``edge_weight``, or
        float32.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: a shape, a node number or a weight is out of range.

    Example:
        >>> path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
        >>> edges, weight = coarse_edges(path, torch.tensor([0, 0, 1, 1]))
        >>> edges.tolist(), weight.tolist()
        ([[0, 1], [1, 0]], [1.0, 1.0])
    """
    check_integers("labels", labels)
    if labels.ndim != 1 or (labels < 0).any():
        raise ValueError(f"labels: expected shape (n,) and no negative number, got {tuple(labels.shape)}")
    edge_index = checked_edges(edge_index, labels.numel(), edge_weight)
    source, target = labels.long()[edge_index]
    between = (source != target).nonzero().squeeze(1)
    num_groups = int(labels.max()) + 1 if labels.numel() else 0
    key, count, perm = _grouped(source[between] * num_groups + target[between])
    weight = count.to(torch.float32 if edge_weight is None else edge_weight.dtype)
    if edge_weight is not None and count.numel():
        # By segments, not atomics: floats are added in the order of the edges, on a GPU too.
        weight = torch.segment_reduce(edge_weight[between[perm]], "sum", lengths=count)
    return torch.stack([key // max(num_groups, 1), key % max(num_groups, 1)]), weight


def _levels(
    edge_index: Tensor, num_nodes: int, limit: int, edge_weight: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield, level by level, the group that each node of the level joins and the level's edges (low, high, weight)."""
    low, high, weight = _pairs(edge_index, num_nodes, edge_weight)
    size = torch.ones(num_nodes, dtype=torch.int64, device=low.device)
    while low.numel():
        group = _merge(low, high, weight, size, limit)
        yield group, low, high, weight
        size = size.new_zeros(int(group.max()) + 1).index_add_(0, group, size)
        one, other = _at(low, group), _at(high, group)
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        smaller = torch.minimum(_at(low, size), _at(high, size))
        # Dropped: an edge along which nothing can ever merge, neither its ends nor a third group with the smaller end.
        useful = ((low != high) & (smaller <= limit // 2)).nonzero().squeeze(1)
        low, high, weight = _summed(_at(useful, low), _at(useful, high), _at(useful, weight), size.numel())


def _merge(low: Tensor, high: Tensor, weight: Tensor, size: Tensor, limit: int) -> Tensor:
    """Match the nodes of one level, then those left over: the group of each node, numbered without gaps."""
    nodes = torch.arange(size.numel(), device=size.device)
    total = torch.zeros_like(size).index_add_(0, low, weight).index_add_(0, high, weight).clamp_(min=1).double()
    heaviness = (weight / _at(low, total)) * (weight / _at(high, total))
    # Bits of a float that is not negative sort like the float. The hash is of the pair, so both ends see the same key.
    key = (heaviness.float().view(torch.int32).long() << 31) | _hash(low * size.numel() + high)

    leader, free = nodes.clone(), torch.ones_like(nodes, dtype=torch.bool)
    fits = (_at(low, size) + _at(high, size) <= limit).nonzero().squeeze(1)
    x, y, rank = _at(fits, low), _at(fits, high), _at(fits, key)
    for turn in range(_ROUNDS):
        if not rank.numel():
            break
        if turn == _WEIGHTED_ROUNDS:
            rank = rank & _HASH
        best = torch.full_like(nodes, -1).scatter_reduce_(0, x, rank, "amax").scatter_reduce_(0, y, rank, "amax")
        mutual = ((_at(x, best) == rank) & (_at(y, best) == rank)).nonzero().squeeze(1)
        first, second = x[mutual], y[mutual]
        # Equal hashes could marry a node twice: the higher partner wins, so at least one pair stays.
        mate = torch.full_like(nodes, -1)
        mate = mate.scatter_reduce_(0, first, second, "amax").scatter_reduce_(0, second, first, "amax")
        paired = ((mate[first] == second) & (mate[second] == first)).nonzero().squeeze(1)
        first, second = first[paired], second[paired]
        leader[second] = first
        free[first] = False
        free[second] = False
        still = (_at(x, free) & _at(y, free)).nonzero().squeeze(1)
        x, y, rank = _at(still, x), _at(still, y), _at(still, rank)

    _merge_two_hop(leader, free, low, high, key, size, limit)
    return (leader == nodes).cumsum(0)[leader] - 1


def _merge_two_hop(
    leader: Tensor, free: Tensor, low: Tensor, high: Tensor, key: Tensor, size: Tensor, limit: int
) -> None:
    """Give the free nodes that share their heaviest neighbour, the hub, a common leader, up to ``limit`` in size."""
    from_low, from_high = _at(low, free).nonzero().squeeze(1), _at(high, free).nonzero().squeeze(1)
    node, other = torch.cat([low[from_low], high[from_high]]), torch.cat([high[from_low], low[from_high]])
    rank = torch.cat([key[from_low], key[from_high]])
    best = torch.full_like(leader, -1).scatter_reduce_(0, node, rank, "amax")
    chosen = (best[node] == rank).nonzero().squeeze(1)
    hub = torch.full_like(leader, -1).scatter_reduce_(0, node[chosen], other[chosen], "amax")

    node = (hub >= 0).nonzero().squeeze(1)
    node = node[(hub[node] * (limit + 1) + limit - size[node]).sort(stable=True).indices]  # by hub, then large first
    end = size[node].cumsum(0)
    start = end - size[node]
    start_of_hub = torch.where(_changes(hub[node]), start, 0).cummax(0).values
    # Bins of ``limit`` along each hub's list; what straddles two stays alone (nothing does at powers of two).
    bin_ = (start - start_of_hub) // limit
    whole = (bin_ == (end - start_of_hub - 1) // limit).nonzero().squeeze(1)
    node, bin_ = node[whole], bin_[whole]
    head = _changes(hub[node]) | _changes(bin_)
    leader[node] = node[head][head.cumsum(0) - 1]


def _pairs(edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Unordered pairs low < high, each once, with an integer weight."""
    proper = (edge_index[0] != edge_index[1]).nonzero().squeeze(1)
    one, other = _at(proper, edge_index[0]), _at(proper, edge_index[1])
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    weight = torch.ones_like(low)
    if edge_weight is not None and proper.numel():
        # Fixed point by a power of two: integers up to 2^30 stay exact and 2^32 edges cannot overflow a sum.
        real = edge_weight.detach()[proper].double()
        weight = torch.ldexp(real, 30 - torch.frexp(real.max()).exponent.clamp(min=-900)).round().long()
    return _summed(low, high, weight, num_nodes)


def _summed(low: Tensor, high: Tensor, weight: Tensor, num_nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the integer weights of equal pairs."""
    key, count, perm = _grouped(low * num_nodes + high)
    run = torch.repeat_interleave(count, output_size=perm.numel())
    weight = torch.zeros_like(key).index_add_(0, run, _at(perm, weight))
    return key // max(num_nodes, 1), key % max(num_nodes, 1), weight


def _grouped(key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct keys in ascending order, how often each occurs, and the permutation that sorts them stably."""
    key, perm = key.sort(stable=True)
    distinct, count = torch.unique_consecutive(key, return_counts=True)
    return distinct, count, perm


def _at(index: Tensor, value: Tensor) -> Tensor:
    """``value[index]``, two to four times as fast on a CPU."""
    return value.index_select(0, index)


def _changes(value: Tensor) -> Tensor:
    """True where an element differs from the one before it, and at the first."""
    return torch.cat([value.new_ones(1, dtype=torch.bool), value[1:] != value[:-1]])[: value.numel()]


def _hash(key: Tensor) -> Tensor:
    """31 well-mixed bits of an int64 (the finaliser of splitmix64; products wrap)."""
    key = (key ^ (key >> 30)) * -0x40A7B892E31B1A47
    key = (key ^ (key >> 27)) * -0x6B2FB644ECCEEE15
    return (key ^ (key >> 31)) & _HASH


def checked_edges(edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None) -> Tensor:
    """Check the arguments that describe a graph and return the edges as int64."""
    check_int("num_nodes", num_nodes, at_least=0)
    check_integers("edge_index", edge_index)
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index: expected shape (2, e), got {tuple(edge_index.shape)}")
    if edge_index.numel():
        lowest, highest = (int(bound) for bound in edge_index.aminmax())
        if lowest < 0 or highest >= num_nodes:
            raise ValueError(f"edge_index: expected numbers in 0 … {num_nodes - 1}, got {lowest} … {highest}")
    if edge_weight is not None:
        check_tensor("edge_weight", edge_weight)
        if not edge_weight.is_floating_point():
            raise TypeError(f"edge_weight: expected a floating point tensor, got {edge_weight.dtype}")
        if edge_weight.shape != edge_index.shape[1:]:
            raise ValueError(f"edge_weight: expected shape ({edge_index.shape[1]},), got {tuple(edge_weight.shape)}")
        bad = edge_weight[~(torch.isfinite(edge_weight) & (edge_weight >= 0))]
        if bad.numel():
            raise ValueError(f"edge_weight: expected finite weights >= 0, got {float(bad[0])}")
    return edge_index.long()
