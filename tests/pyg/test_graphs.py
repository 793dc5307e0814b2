"""Batches of graphs: each graph as if it were alone, and GPS with other attention but the same answer."""

import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, GINEConv, GPSConv
from torch_geometric.transforms import Compose, ToUndirected
from torch_geometric.utils import to_dense_batch

from gpa_nd import Layout
from gpa_nd.engine import gpa_attention
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner
from gpa_nd.pyg import AddPartitions, GraphAttention, PartitionedGPSConv, graph_layout

CHANNELS = 8
SETTINGS = [
    {"downsample": 3, "groups_per_cell": 2},
    {"downsample": 2, "groups_per_cell": 3, "levels": 2},
    {"downsample": 2, "groups_per_cell": 1, "levels": 3, "neighbourhood": True},
    {"downsample": 4, "neighbourhood": True},
]


def graph(num_nodes, num_edges, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed + num_nodes)
    edges = torch.randint(max(1, num_nodes), (2, num_edges if num_nodes else 0), generator=rng)
    x = torch.randn(num_nodes, CHANNELS, generator=rng, dtype=dtype)
    return Data(x=x, edge_index=edges, edge_attr=torch.randn(edges.shape[1], CHANNELS, generator=rng, dtype=dtype))


def graphs(**settings):
    """A large one, one of isolated nodes only, a single node, empty ones in the middle and at the end."""
    return [graph(*size, **settings) for size in ((40, 90), (7, 0), (1, 0), (0, 0), (12, 9), (1, 2), (0, 0))]


@pytest.fixture(params=SETTINGS, ids=str)
def transform(request):
    return AddPartitions(**request.param)


def assert_same(one, other):
    for name in ("query_groups", "query_cells", "key_groups", "fine_cells"):
        assert getattr(one, name).labels.equal(getattr(other, name).labels)
    assert one.key_ranges.equal(other.key_ranges)
    assert (one.always is None) == (other.always is None)
    assert one.always is None or one.always.equal(other.always)
    assert one.levels == other.levels
    if one.coarser is not None:
        assert_same(one.coarser, other.coarser)


# the transform and its layout


def test_groups_and_cells_are_those_of_the_operators():
    data = graph(40, 90)
    layout = graph_layout(AddPartitions(3, 2)(data))
    down = GraphDownsampler.from_edges(data.edge_index, 40, 3)
    cut = GraphPartitioner.from_edges(data.edge_index, down, -(-down.coarse_shape((40,))[0] // 2))
    for one, other in ((layout.query_groups.labels, down.labels), (layout.key_groups.labels, down.labels)):
        assert (one[:, None] == one).equal(other[:, None] == other)
    cells = cut.cells(down.coarse_shape((40,))).labels[down.labels]
    fine = layout.fine_cells.labels
    assert (fine[:, None] == fine).equal(cells[:, None] == cells)
    assert layout.key_ranges is None
    assert layout.always is None


def test_the_layout_of_a_batch_is_that_of_each_graph_side_by_side(transform):
    each = [transform(data) for data in graphs()]
    assert_same(graph_layout(Batch.from_data_list(each)), Layout.concat([graph_layout(data) for data in each]))


def test_the_always_on_groups_are_those_around_a_cell():
    path = Data(edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]), num_nodes=6)
    path = AddPartitions(2, 1, neighbourhood=True)(path)
    assert path.gpa_group_index.tolist() == path.gpa_cell_index.tolist() == [[0, 0, 2, 2, 4, 4]]
    layout = graph_layout(Batch.from_data_list([path, path]))
    assert layout.always.tolist() == [[0, 1, -1], [0, 1, 2], [1, 2, -1], [3, 4, -1], [3, 4, 5], [4, 5, -1]]


def test_graphs_with_and_without_a_neighbourhood_go_together():
    plain, near = (AddPartitions(2, 1, neighbourhood=on)(graph(12, 9)) for on in (False, True))
    for each in ([plain, near], [near, plain]):
        layout = graph_layout(Batch.from_data_list(each))
        assert_same(layout, Layout.concat([graph_layout(data) for data in each]))
        assert layout.always is not None


def test_a_batch_gives_back_the_graphs_it_was_made_of(transform):
    each = [transform(data) for data in graphs()]
    for back, data in zip(Batch.from_data_list(each).to_data_list(), each, strict=True):
        for name in data.keys():
            assert back[name].equal(data[name])


def test_the_given_graph_stays_as_it_is(transform):
    data = graph(12, 20)
    transform(data)
    assert set(data.keys()) == {"x", "edge_index", "edge_attr"}
    assert set(pickle.loads(pickle.dumps(transform))(data).keys()) > set(data.keys())


def test_it_works_in_a_loader_and_in_a_compose():
    transform = Compose([ToUndirected(), AddPartitions(3)])
    for batch in DataLoader([transform(data) for data in graphs()], batch_size=3, shuffle=True):
        layout = graph_layout(batch)
        assert layout.query_groups.num_elements == batch.num_nodes
        assert batch.num_graphs in (1, 3)


# the layer


@pytest.mark.parametrize("kappa", [1, 2, 10**6])
def test_a_batch_is_each_graph_alone(transform, backend, kappa):
    layer = GraphAttention(CHANNELS, heads=2, kappa=kappa, backend=backend).double()
    each = [transform(data) for data in graphs()]
    batch = Batch.from_data_list(each)
    out = layer(batch.x, graph_layout(batch))
    assert out.equal(layer(batch.x, batch))
    alone = torch.cat([layer(data.x, graph_layout(data)) for data in each])
    assert (out - alone).abs().max() < 1e-12


def test_it_is_projections_around_the_functions(backend):
    data = AddPartitions(3)(graph(40, 90))
    layer, layout = GraphAttention(CHANNELS, heads=2, kappa=2, backend=backend).double(), graph_layout(data)
    q, k, v = (
        (data.x @ weight.T).view(1, 40, 2, 4).transpose(1, 2) for weight in layer.in_proj_weight.view(3, CHANNELS, -1)
    )
    out = gpa_attention(q, k, v, layout, kappa=2, backend=backend)
    assert (layer.out_proj(out.transpose(1, 2).reshape(40, CHANNELS)) - layer(data.x, layout)).abs().max() < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_groups_are_dense_attention(transform, backend, dtype, tolerance):
    layer = GraphAttention(CHANNELS, heads=4, kappa=10**6, backend=backend).to(dtype)
    torch.nn.init.normal_(layer.in_proj_bias)
    dense = torch.nn.MultiheadAttention(CHANNELS, 4, batch_first=True).to(dtype)
    dense.load_state_dict(layer.state_dict())
    batch = Batch.from_data_list([transform(data) for data in graphs(dtype=dtype) if data.num_nodes])
    x, mask = to_dense_batch(batch.x, batch.batch)
    expected = dense(x, x, x, key_padding_mask=~mask, need_weights=False)[0][mask]
    assert (layer(batch.x, batch) - expected).abs().max() < tolerance


def test_gradients_reach_features_and_weights(backend):
    layer = GraphAttention(4, kappa=1, backend=backend).double()
    batch = Batch.from_data_list([AddPartitions(2)(data) for data in (graph(5, 6), graph(1, 0), graph(3, 2))])
    layout, x = graph_layout(batch), batch.x[:, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, layout), x)
    layer(x, layout).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_batch_of_empty_graphs_only(backend):
    batch = Batch.from_data_list([AddPartitions()(graph(0, 0))] * 2)
    layer = GraphAttention(CHANNELS, backend=backend).double()
    assert layer(batch.x, batch).shape == (0, CHANNELS)


# GPS


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("norm", ["batch_norm", "graph_norm", None])
@pytest.mark.parametrize("local", [True, False])
def test_gps_with_all_groups_is_gps(backend, dtype, tolerance, norm, local):
    def conv():
        return GINEConv(torch.nn.Linear(CHANNELS, CHANNELS)) if local else None

    dense = GPSConv(CHANNELS, conv(), heads=2, norm=norm).to(dtype)
    for weights in dense.parameters():  # each norm is another
        weights.data += 0.3 * torch.randn_like(weights)
    gps = PartitionedGPSConv(CHANNELS, conv(), heads=2, norm=norm, kappa=10**6, backend=backend).to(dtype)
    gps.load_state_dict(dense.state_dict())
    batch = Batch.from_data_list([AddPartitions(3)(data) for data in graphs(dtype=dtype) if data.num_nodes])
    more = {"edge_attr": batch.edge_attr} if local else {}
    out = gps(batch.x, batch.edge_index, batch.batch, layout=graph_layout(batch), **more)
    expected = dense(batch.x, batch.edge_index, batch.batch, **more)
    assert (out - expected).abs().max() < tolerance


def test_gps_drops_out_only_in_training(backend):
    data = AddPartitions(3)(graph(40, 90))
    gps = PartitionedGPSConv(CHANNELS, GCNConv(CHANNELS, CHANNELS), dropout=0.5, kappa=2, backend=backend).double()
    once, again = (gps(data.x, data.edge_index, layout=data) for _ in range(2))
    assert not once.equal(again)
    gps.eval()
    once, again = (gps(data.x, data.edge_index, layout=data) for _ in range(2))
    assert once.equal(again)


def test_gps_starts_anew():
    gps = PartitionedGPSConv(CHANNELS, GCNConv(CHANNELS, CHANNELS), heads=2)
    before = gps.attn.in_proj_weight.clone()
    gps.reset_parameters()
    assert not gps.attn.in_proj_weight.equal(before)
    assert "attn_type=gpa" in repr(gps)


# errors


def batch_of_two():
    return Batch.from_data_list([AddPartitions(3)(graph(n, 20)) for n in (12, 9)])


def gps(**other):
    data = batch_of_two()
    return PartitionedGPSConv(8, None)(data.x, data.edge_index, **{"layout": data, **other})


def shuffled():
    data = batch_of_two()
    data.batch = data.batch.flip(0)
    return data


def with_batch(change):
    data = batch_of_two()
    data.batch = change(data.batch)
    return data


def cut(nodes):
    return batch_of_two().subgraph(torch.as_tensor(nodes))


def first_nodes():
    """Of a ring: groups and cells of what is left are still named by their first nodes."""
    ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
    return AddPartitions(2)(Data(x=torch.zeros(12, 1), edge_index=ring)).subgraph(torch.arange(4))


def other(name, change):
    data = Batch.from_data_list([AddPartitions(3, neighbourhood=True)(graph(n, 20)) for n in (12, 9)])
    data[name] = change(data[name])
    return data


def first_without_the_transform():
    return Batch.from_data_list([graph(9, 20), AddPartitions(3)(graph(12, 20))])


def across_graphs():
    data = batch_of_two()
    data.gpa_group_index = torch.zeros_like(data.gpa_group_index)
    return data


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: graph(5, 5), ValueError, "gpa_group_index, gpa_cell_index, .*, which the transform .*AddPartitions"),
        (first_without_the_transform, ValueError, "to each graph before a batch is made of them, got the attributes"),
        (lambda: torch.zeros(3), TypeError, "data: expected a torch_geometric Data or Batch, got Tensor"),
        (lambda: graph_layout(batch_of_two()), TypeError, "data: expected a torch_geometric Data or .*, got Layout"),
        (lambda: with_batch(torch.Tensor.float), TypeError, "batch: expected an int64 or int32 .*, got torch.float32"),
        (
            lambda: with_batch(lambda x: x[1:]),
            ValueError,
            r"batch: expected shape \(21,\), the graph of .* got \(20,\)",
        ),
        (lambda: with_batch(lambda x: x - 1), ValueError, "batch: expected numbers of at least 0, got -1"),
        (shuffled, ValueError, "batch: expected it sorted, got 0 after 1 at 9"),
        (
            lambda: cut(range(5, 20)),
            ValueError,
            "gpa_node_count: expected all 12 nodes .* of node 0 .*, got 7; .* last",
        ),
        (lambda: cut(range(20)), ValueError, "gpa_node_count: expected all 9 nodes .* of node 12 had .*, got 8"),
        (
            lambda: cut([*range(11, -1, -1), *range(12, 21)]),
            ValueError,
            "gpa_group_index: node 0 names 9, which is not",
        ),
        (first_nodes, ValueError, "gpa_node_count: expected all 12 nodes .* of node 0 had .*, got 4"),
        (lambda: other("gpa_node_count", lambda x: x[1:]), ValueError, r"gpa_node_count: expected shape \(21,\)"),
        (
            lambda: other("gpa_group_index", lambda x: x[0]),
            ValueError,
            r"gpa_group_index: expected shape \(levels, 21\)",
        ),
        (lambda: other("gpa_cell_index", torch.Tensor.float), TypeError, "gpa_cell_index: expected an int64 or int32"),
        (
            lambda: other("gpa_cell_index", lambda x: x.expand(2, -1)),
            ValueError,
            "gpa_cell_index: expected 1 levels as gpa_group_index has, got 2",
        ),
        (lambda: other("gpa_near_index", torch.Tensor.float), TypeError, "gpa_near_index: expected an int64 or int32"),
        (lambda: other("gpa_near_index", lambda x: x[:1]), ValueError, r"gpa_near_index: expected shape \(2, pairs\)"),
        (lambda: other("gpa_near_index", lambda x: x * 0 + 21), ValueError, r"first node of a cell .* got \[21, 21\]"),
        (
            lambda: other("gpa_near_index", lambda x: x * 0 - 1),
            ValueError,
            r"first node of a cell .* got \[-1, -1\] at 0",
        ),
        (
            lambda: other("gpa_near_index", lambda x: torch.tensor([[0, 0], [0, 12]])),
            ValueError,
            r"gpa_near_index: expected the first node of a cell and that of a group of one graph, got \[0, 12\] at 1",
        ),
        (across_graphs, ValueError, "gpa_group_index: node 12 names 0, which is not the first node of a group"),
    ],
)
def test_graphs_without_a_layout(make, error, message):
    with pytest.raises(error, match=message):
        graph_layout(make())


@pytest.mark.filterwarnings("ignore:Unable to accurately infer 'num_nodes'")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AddPartitions(0), ValueError, "downsample: expected at least 1, got 0"),
        (lambda: AddPartitions(2, 1.5), TypeError, "groups_per_cell: expected an int"),
        (lambda: AddPartitions(2, levels=0), ValueError, "levels: expected at least 1"),
        (lambda: AddPartitions()(HeteroData()), TypeError, "data: expected one graph, .* got HeteroData"),
        (lambda: AddPartitions()(batch_of_two()), TypeError, "data: expected one graph, .* got DataBatch"),
        (lambda: AddPartitions()(Data()), ValueError, "data: expected x or num_nodes"),
        (lambda: AddPartitions()(Data(num_nodes=3, edge_index=torch.tensor([[5], [0]]))), ValueError, "edge_index"),
        (lambda: GraphAttention(8, heads=3), ValueError, "channels: expected a multiple of heads = 3, got 8"),
        (lambda: GraphAttention(8, kappa=(2, 0)), ValueError, "kappa: expected at least 1, got 0"),
        (lambda: GraphAttention(8)(torch.zeros(21, 9), batch_of_two()), ValueError, r"x: expected shape \(21, 8\)"),
        (lambda: GraphAttention(8)(torch.zeros(20, 8), batch_of_two()), ValueError, r"x: expected .* got \(20, 8\)"),
        (lambda: GraphAttention(8)([0], batch_of_two()), TypeError, "x: expected a tensor, got list"),
        (lambda: GraphAttention(8)(torch.zeros(21, 8), None), TypeError, "layout: expected a Layout, .* got NoneType"),
        (lambda: GraphAttention(8)(torch.zeros(21, 8), torch.zeros(21)), TypeError, "layout: expected a .* got Tensor"),
        (lambda: gps(batch=torch.zeros(21)), TypeError, "batch: expected an int64 or int32 tensor, got torch.float32"),
        (lambda: gps(batch=torch.zeros(20).long()), ValueError, r"batch: expected shape \(21,\), .* got \(20,\)"),
        (lambda: gps(layout=torch.zeros(21)), TypeError, "layout: expected a Layout, .* got Tensor"),
        (
            lambda: GraphAttention(8, kappa=(2, 2))(torch.zeros(21, 8), batch_of_two()),
            ValueError,
            "kappa: expected one number for each of 1 levels",
        ),
        (lambda: GraphAttention(8, backend="cuda"), ValueError, "backend: expected one of"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
