"""Coarsening: worked examples, the laws of groups and orders, and graphs that are hard to match."""

import itertools
from hashlib import sha256

import pytest
import torch

from gpa_nd.ops import coarsening
from gpa_nd.ops.coarsening import coarse_edges, coarsening_order, heavy_edge_matching


def edges(*pairs):
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T


def both_ways(edge_index):
    return torch.cat([edge_index, edge_index.flip(0)], dim=1)


def path(n):
    return torch.stack([torch.arange(n - 1), torch.arange(1, n)])


def star(leaves):
    return torch.stack([torch.zeros(leaves, dtype=torch.int64), torch.arange(1, leaves + 1)])


def grid(height, width):
    node = torch.arange(height * width).reshape(height, width)
    across = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    return torch.cat([across, torch.stack([node[:-1].flatten(), node[1:].flatten()])], dim=1)


def clique(n):
    return torch.combinations(torch.arange(n)).T


def tree(n, seed=0):
    child = torch.arange(1, n)
    parent = (torch.rand(n - 1, generator=torch.Generator().manual_seed(seed)) * child).long()
    return torch.stack([parent, child])


def random_graph(n, e, seed=0):
    return torch.randint(n, (2, e), generator=torch.Generator().manual_seed(seed))


def spider(legs):
    """A hub with a leg of every length from 1 to `legs`: no two legs shrink alike."""
    pairs, node = [], 1
    for length in range(1, legs + 1):
        chain = [0, *range(node, node + length)]
        pairs += itertools.pairwise(chain)
        node += length
    return edges(*pairs)


GRAPHS = {
    "no nodes": (edges(), 0),
    "one node": (edges((0, 0)), 1),
    "no edges": (edges(), 5),
    "path": (path(1000), 1000),
    "star": (star(1000), 1001),
    "grid": (grid(23, 31), 23 * 31),
    "clique": (clique(60), 60),
    "tree": (tree(1000), 1000),
    "spider": (spider(40), 821),
    "sparse random: many components": (random_graph(1000, 500), 1000),
    "dense random: loops and repetitions": (random_graph(50, 3000), 50),
}
graphs = pytest.mark.parametrize(("edge_index", "n"), GRAPHS.values(), ids=GRAPHS)
factors = pytest.mark.parametrize("factor", [1, 2, 3, 5, 16, 10**6])


def components(edge_index, n):
    component = torch.arange(n)
    while True:
        lowest = component.scatter_reduce(0, edge_index[0], component[edge_index[1]], "amin")
        lowest = lowest.scatter_reduce(0, edge_index[1], lowest[edge_index[0]], "amin")
        if torch.equal(lowest, component):
            return component
        component = lowest


def cut(edge_index, labels):
    return (labels[edge_index[0]] != labels[edge_index[1]]).sum().item()


def contiguous_cells(order, cells):
    labels = torch.empty_like(order)
    labels[order] = torch.arange(order.numel()) * cells // order.numel()
    return labels


# heavy_edge_matching


def test_path_of_four_makes_two_pairs():
    assert heavy_edge_matching(path(4), 4, factor=2).tolist() == [0, 0, 1, 1]


def test_path_of_eight_makes_two_quads():
    assert heavy_edge_matching(path(8), 8, factor=8).tolist() == [0] * 8
    assert heavy_edge_matching(path(4), 4, factor=4).tolist() == [0] * 4


def test_the_heavy_edge_wins():
    square = edges((0, 1), (1, 2), (2, 3), (3, 0))
    assert heavy_edge_matching(square, 4, 2, torch.tensor([5.0, 1.0, 5.0, 1.0])).tolist() == [0, 0, 1, 1]
    assert heavy_edge_matching(square, 4, 2, torch.tensor([1.0, 5.0, 1.0, 5.0])).tolist() == [0, 1, 1, 0]


def test_parallel_edges_add_up():
    square = edges((0, 1), (1, 2), (2, 3), (3, 0), (2, 1), (0, 3))
    assert heavy_edge_matching(square, 4, factor=2).tolist() == [0, 1, 1, 0]


def test_two_leaves_of_a_hub_pair_up():
    labels = heavy_edge_matching(star(3), 4, factor=2)
    assert labels.bincount().tolist() == [2, 2]


@graphs
@factors
def test_groups_are_numbered_without_gaps_and_hold_at_most_factor_nodes(edge_index, n, factor):
    labels = heavy_edge_matching(edge_index, n, factor)
    assert labels.shape == (n,)
    assert labels.dtype == torch.int64
    sizes = labels.bincount()
    assert (sizes >= 1).all()
    assert (sizes <= factor).all()


@graphs
@factors
def test_groups_never_span_two_components(edge_index, n, factor):
    labels, component = heavy_edge_matching(edge_index, n, factor), components(edge_index, n)
    lowest = torch.full_like(labels, n).scatter_reduce(0, labels, component, "amin")
    assert torch.equal(lowest[labels], component)


def test_factor_one_is_the_identity():
    assert torch.equal(heavy_edge_matching(grid(5, 5), 25, 1), torch.arange(25))


def test_isolated_nodes_stay_alone():
    assert heavy_edge_matching(edges((1, 3), (2, 2)), 5, factor=4).tolist() == [0, 1, 2, 1, 3]


@pytest.mark.parametrize("factor", [3, 16])
def test_a_star_shrinks_by_the_whole_factor(factor):
    labels = heavy_edge_matching(star(100_000), 100_001, factor)
    assert int(labels.max()) + 1 <= 100_001 / factor + 2


def test_groups_of_a_grid_are_large_and_compact():
    edge_index = grid(256, 256)
    labels = heavy_edge_matching(edge_index, 256 * 256, 16)
    assert 256 * 256 / (int(labels.max()) + 1) >= 11
    assert labels.bincount().min() >= 2
    assert cut(edge_index, labels) <= 0.4 * edge_index.shape[1]  # 16 in a row: 0.53, 4 x 4 squares: 0.25


@graphs
def test_result_repeats_and_ignores_order_direction_and_scale(edge_index, n):
    weight = torch.randint(1, 9, (edge_index.shape[1],), generator=torch.Generator().manual_seed(1)).float()
    labels = heavy_edge_matching(edge_index, n, 8, weight)
    order = coarsening_order(edge_index, n, weight)
    shuffle = torch.randperm(edge_index.shape[1], generator=torch.Generator().manual_seed(2))
    turned = torch.where(shuffle % 2 == 0, edge_index[:, shuffle], edge_index[:, shuffle].flip(0))
    doubled = both_ways(edge_index)
    for same, same_weight in [
        (edge_index, weight),
        (turned, weight[shuffle]),
        (doubled, weight.repeat(2) * 4),
        (edge_index.int(), weight.double().requires_grad_()),
    ]:
        assert torch.equal(heavy_edge_matching(same, n, 8, same_weight), labels)
        assert torch.equal(coarsening_order(same, n, same_weight), order)


@graphs
def test_no_weights_means_one_each_and_self_loops_do_nothing(edge_index, n):
    weight = torch.ones(edge_index.shape[1] + n)
    weight[edge_index.shape[1] :] = 1e6
    loops = torch.arange(n).expand(2, n)
    looped = torch.cat([edge_index, loops], dim=1)
    assert torch.equal(heavy_edge_matching(looped, n, 8, weight), heavy_edge_matching(edge_index, n, 8))


def test_zero_weights_still_connect():
    assert heavy_edge_matching(path(4), 4, 4, torch.zeros(3)).tolist() == [0, 0, 0, 0]


# coarsening_order


@graphs
def test_order_is_a_permutation_that_keeps_components_together(edge_index, n):
    order = coarsening_order(edge_index, n)
    assert torch.equal(order.sort().values, torch.arange(n))
    component = components(edge_index, n)[order]
    assert component.unique_consecutive().numel() == component.unique().numel()


def test_order_follows_a_shuffled_path():
    shuffle = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    order = coarsening_order(shuffle[path(64)], 64)
    labels = contiguous_cells(order, 8)
    assert cut(shuffle[path(64)], labels) <= 10  # at least 7


@pytest.mark.parametrize("cells", [4, 16, 64, 256])
def test_contiguous_pieces_of_a_grid_are_compact(cells):
    edge_index, n = grid(64, 64), 64 * 64
    compact = cut(edge_index, contiguous_cells(coarsening_order(edge_index, n), cells))
    random = cut(edge_index, contiguous_cells(torch.randperm(n), cells))
    squares = 2 * 64 * (cells**0.5 - 1)
    assert compact < 2.2 * squares
    assert compact < 0.4 * random


def test_a_slope_of_weights_does_not_serialise_the_matching(monkeypatch):
    # Heaviness changes steadily along such a path, so every node prefers the same side and few choices are mutual.
    levels = []
    merge = coarsening._merge
    monkeypatch.setattr(coarsening, "_merge", lambda *args: levels.append(1) or merge(*args))
    coarsening_order(path(2000), 2000, torch.arange(1.0, 2000.0))
    assert len(levels) <= 15


FROZEN = {
    "path": "6c981cf3e128e78c",
    "star": "eb94a99418d90cca",
    "grid": "5a03255d8b527046",
    "clique": "260ef48833538e70",
    "tree": "80ddb7f70761712f",
    "spider": "48d101ac13393705",
    "sparse random: many components": "1b1b8e2b5b504458",
    "dense random: loops and repetitions": "59deabae60332042",
}


@pytest.mark.parametrize(("name", "digest"), FROZEN.items(), ids=FROZEN)
def test_a_graph_has_the_groups_and_the_order_that_models_were_trained_with(name, digest):
    edge_index, n = GRAPHS[name]
    weight = torch.arange(edge_index.shape[1]).remainder(7).add(1) / 4
    found = [coarsening_order(edge_index, n), coarsening_order(edge_index, n, weight)]
    for factor in (2, 3, 16):
        found += [heavy_edge_matching(edge_index, n, factor), heavy_edge_matching(edge_index, n, factor, weight)]
    assert sha256(torch.cat(found).numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize(("factor", "levels"), [(2, 2), (4, 3), (15, 5), (16, 5), (17, 6)])
def test_groups_take_a_level_for_each_doubling_and_one_more(factor, levels, monkeypatch):
    taken = []
    merge = coarsening._merge
    monkeypatch.setattr(coarsening, "_merge", lambda *args: taken.append(1) or merge(*args))
    heavy_edge_matching(path(2000), 2000, factor, torch.arange(1.0, 2000.0))
    assert len(taken) == levels


def test_groups_and_order_are_made_on_the_device_of_the_edges():
    edge_index, weight = grid(5, 6), torch.rand(49)
    with torch.device("meta"):  # where a tensor lands that is made without a device
        made = heavy_edge_matching(edge_index, 30, 4, weight), coarsening_order(edge_index, 30, weight)
    assert {x.device.type for x in made} == {"cpu"}


# coarse_edges


def test_coarse_edges_of_a_path_count_and_add():
    edge_index = edges((0, 2), (1, 2), (2, 1), (0, 1), (3, 3), (2, 3))
    labels = torch.tensor([0, 0, 1, 2])
    coarse, count = coarse_edges(edge_index, labels)
    assert coarse.tolist() == [[0, 1, 1], [1, 0, 2]]
    assert count.tolist() == [2.0, 1.0, 1.0]
    coarse, weight = coarse_edges(edge_index, labels, torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    assert coarse.tolist() == [[0, 1, 1], [1, 0, 2]]
    assert weight.tolist() == [3.0, 4.0, 32.0]


@pytest.mark.parametrize("weight", [None, torch.ones(3, dtype=torch.float64)])
def test_coarse_edges_inside_one_group_vanish(weight):
    coarse, summed = coarse_edges(path(4), torch.zeros(4, dtype=torch.int64), weight)
    assert coarse.shape == (2, 0)
    assert summed.shape == (0,)
    assert summed.dtype == (torch.float32 if weight is None else torch.float64)


@graphs
def test_coarse_edges_keep_the_total_that_is_cut(edge_index, n):
    labels = heavy_edge_matching(edge_index, n, 4)
    coarse, count = coarse_edges(edge_index, labels)
    assert count.sum() == cut(edge_index, labels)
    assert torch.equal(coarse.unique(dim=1), coarse)


# errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0], [1]], 2, 2), TypeError, r"edge_index: expected an int64 or int32 tensor, got list"),
        ((torch.zeros(2, 3), 2, 2), TypeError, r"edge_index: .* got torch.float32"),
        ((path(4).T, 4, 2), ValueError, r"edge_index: expected shape \(2, e\), got \(3, 2\)"),
        ((path(4)[0], 4, 2), ValueError, r"edge_index: expected shape \(2, e\), got \(3,\)"),
        ((path(4), 3, 2), ValueError, r"edge_index: expected numbers in 0 … 2, got 0 … 3"),
        ((path(4) - 1, 3, 2), ValueError, r"edge_index: expected numbers in 0 … 2, got -1 … 2"),
        ((path(4), -1, 2), ValueError, r"num_nodes: expected at least 0, got -1"),
        ((path(4), 4.0, 2), TypeError, r"num_nodes: expected an int, got 4.0"),
        ((path(4), 4, 0), ValueError, r"factor: expected at least 1, got 0"),
        ((path(4), 4, True), TypeError, r"factor: expected an int, got True"),
        ((path(4), 4, 2, torch.ones(2)), ValueError, r"edge_weight: expected shape \(3,\), got \(2,\)"),
        ((path(4), 4, 2, torch.ones(3).long()), TypeError, r"edge_weight: expected a floating point .* torch.int64"),
        ((path(4), 4, 2, torch.tensor([1.0, -2.0, 1.0])), ValueError, r"edge_weight: expected finite .* got -2.0"),
        ((path(4), 4, 2, torch.tensor([1.0, torch.nan, 1.0])), ValueError, r"edge_weight: expected finite .* got nan"),
        ((path(4), 4, 2, torch.tensor([1.0, torch.inf, 1.0])), ValueError, r"edge_weight: expected finite .* got inf"),
    ],
)
def test_errors_name_the_argument_what_was_expected_and_what_came(arguments, error, message):
    with pytest.raises(error, match=message):
        heavy_edge_matching(*arguments)


def test_other_functions_check_their_arguments():
    with pytest.raises(ValueError, match=r"edge_index: expected numbers in 0 … 2"):
        coarsening_order(path(4), 3)
    with pytest.raises(TypeError, match=r"labels: expected an int64 or int32 tensor"):
        coarse_edges(path(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"labels: expected shape \(n,\) and no negative number"):
        coarse_edges(path(4), torch.tensor([0, 0, -1, 0]))
