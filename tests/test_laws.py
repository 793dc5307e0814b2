"""The laws of the design, over every geometry and backend of the case table."""

import itertools

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, Layout, attend, gpa_attention, select_keys, testing
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partition import Partition
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner


def dense(q, k, v, affinity="dot", scale=None, seen=None):
    """The formulas of dense attention; ``seen`` (B, H, n_q, n_k) hides keys."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.mT * scale if affinity == "dot" else -torch.cdist(q, k).square() * scale
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


# Law 1


def test_partition_composes_and_is_consistent(case):
    gpa = case.make(kappa=1)
    testing.assert_consistent(gpa.partitioner, gpa.downsampler, case.query_shape)
    testing.assert_partition(gpa.key_downsampler.groups(case.key_shape), torch.Size(case.key_shape).numel())


# Law 2


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_keys_selected_is_dense_attention(case, backend, affinity, dtype, tolerance):
    q, k, v = case.tokens()
    out = case.make(kappa=10**6, affinity=affinity, backend=backend)(*(x.to(dtype) for x in (q, k, v)))
    expected = dense(*(x.flatten(2, -2) for x in (q, k, v)), affinity)
    assert (out.flatten(2, -2).double() - expected).abs().max() < tolerance


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_automatic_dense_path_is_dense_attention(case, affinity):
    q, k, v = case.tokens()
    out = case.make(kappa=10**6, affinity=affinity, scale=0.3)(q, k, v)
    assert (out.flatten(2, -2) - dense(*(x.flatten(2, -2) for x in (q, k, v)), affinity, 0.3)).abs().max() < 1e-12


# Law 3


@pytest.mark.parametrize("kappa", [1, 2])
def test_planted_keys_are_found(case, backend, kappa):
    layout = case.layout()
    blocks, cells = len(layout.key_groups), len(layout.query_cells)
    rng = torch.Generator().manual_seed(1)
    wanted = torch.randint(blocks, (cells,), generator=rng)
    if blocks >= cells:
        wanted = torch.randperm(blocks, generator=rng)[:cells]
    codes, values = 40 * torch.eye(blocks, dtype=torch.float64), torch.randn(blocks, 3, generator=rng).double()
    q = codes[wanted][layout.fine_cells.labels][None, None]
    k, v = codes[layout.key_groups.labels][None, None], values[layout.key_groups.labels][None, None]
    assert select_keys(q, k, layout, kappa=kappa, backend=backend)[0, 0, :, 0].equal(wanted)
    out = gpa_attention(q, k, v, layout, kappa=kappa, backend=backend)
    assert (out[0, 0] - values[wanted][layout.fine_cells.labels]).abs().max() < 1e-12


# Law 4


def test_graph_that_spells_a_shuffled_grid_gives_the_shuffled_answer(backend):
    shape, factor, cells = (12, 10), (4, 3), (2, 2)
    shuffle = torch.randperm(120, generator=torch.Generator().manual_seed(2))
    down, cut = GridDownsampler(factor), GridPartitioner(cells)
    grid = GPA(cut, down, kappa=3, backend=backend)
    labels = down.groups(shape).labels[shuffle]
    graph = GPA(GraphPartitioner(cut.cells((3, 4)).labels), GraphDownsampler(labels), kappa=3, backend=backend)
    q, k, v = torch.randn(3, 2, 1, 120, 8, dtype=torch.float64)
    on_grid = grid(*(x.view(2, 1, *shape, 8) for x in (q, k, v))).flatten(2, 3)
    on_graph = graph(*(x[:, :, shuffle] for x in (q, k, v)))
    assert (on_graph - on_grid[:, :, shuffle]).abs().max() < 1e-12


# Law 5


def test_renaming_keys_with_their_groups_changes_nothing(case, backend):
    layout, (q, k, v) = case.layout(), case.flat_tokens()
    rng = torch.Generator().manual_seed(3)
    rename_group = torch.randperm(len(layout.key_groups), generator=rng)
    shuffle = torch.randperm(k.shape[2], generator=rng)
    renamed = Partition.from_labels(rename_group[layout.key_groups.labels[shuffle]])
    other = Layout(layout.query_groups, layout.query_cells, renamed)
    kappa = max(1, len(layout.key_groups) // 2)
    expected = gpa_attention(q, k, v, layout, kappa=kappa, backend=backend)
    out = gpa_attention(q, k[:, :, shuffle], v[:, :, shuffle], other, kappa=kappa, backend=backend)
    assert (out - expected).abs().max() < 1e-12


def test_batch_entries_and_heads_do_not_touch_each_other(case, backend):
    gpa = case.make(kappa=2, backend=backend)
    q, k, v = case.tokens(batch=2, heads=2)
    together = gpa(q, k, v)
    for b, h in itertools.product(range(2), range(2)):
        alone = gpa(*(x[b : b + 1, h : h + 1] for x in (q, k, v)))
        assert (together[b, h] - alone[0, 0]).abs().max() < 1e-12


# Law 6


def test_gradients_with_the_indices_held(case, backend):
    layout, (q, k, v) = case.layout(), case.flat_tokens(batch=1, heads=2, c=3, c_v=2)
    relevant = select_keys(q, k, layout, kappa=2, backend=backend)
    relevant[0, 0, 0, -1] = -1
    rng = torch.Generator().manual_seed(4)
    logits = torch.randn(relevant.shape, generator=rng, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (q, k, v, logits)]

    def attend_to_held(q, k, v, logits):
        return attend(q, k, v, layout, relevant, logits=logits, backend=backend)

    assert torch.autograd.gradcheck(attend_to_held, inputs, fast_mode=True)


def test_second_derivatives_through_the_reference():
    layout = gpa_nd.image(downsample=2, cells=2, kappa=1).layout((5, 4), (5, 4))
    q, k, v = (torch.randn(1, 1, 20, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    relevant = select_keys(q, k, layout, kappa=2)
    assert torch.autograd.gradgradcheck(
        lambda q, k, v: attend(q, k, v, layout, relevant, backend="reference"), (q, k, v), fast_mode=True
    )


def test_repeated_runs_agree_bit_for_bit(case, backend):
    gpa = case.make(kappa=2, backend=backend)
    results = []
    for _ in range(3):
        q, k, v = (x.float().requires_grad_() for x in case.tokens())
        out = gpa(q, k, v)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


# Law 7


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_no_unselected_coarse_key_has_a_larger_sum_than_a_selected_one(case, backend, affinity):
    layout, (q, k, _) = case.layout(), case.flat_tokens()
    kappa = max(1, len(layout.key_groups) // 2)
    relevant = select_keys(q, k, layout, kappa=kappa, affinity=affinity, backend=backend)
    q_low, k_low = means(q, layout.query_groups), means(k, layout.key_groups)
    scores = q_low @ k_low.mT / q.shape[-1] ** 0.5
    if affinity == "euclidean":
        scores = -torch.cdist(q_low, k_low).square() / q.shape[-1] ** 0.5
    weights = scores.softmax(-1)
    for cell in range(len(layout.query_cells)):
        sums = weights[:, :, layout.query_cells.labels == cell].sum(2)
        chosen = relevant[:, :, cell]
        selected = torch.zeros_like(sums, dtype=torch.bool).scatter(-1, chosen, True)
        assert (selected.sum(-1) == kappa).all()  # distinct
        ranked = sums.gather(-1, chosen)
        assert (ranked.diff(dim=-1) <= 1e-12).all()  # best first
        assert (sums.masked_fill(selected, -1).amax(-1) <= ranked[..., -1] + 1e-12).all()


def means(x, partition):
    return torch.stack([x[:, :, partition.labels == cell].mean(2) for cell in range(len(partition))], dim=2)


# Fewer keys than all, against dense attention with a mask, on grids, with nothing of the library but select_keys


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("key_shape", [(14, 9), (5, 21)])
def test_few_keys_equal_masked_dense_attention(backend, affinity, key_shape):
    query_shape, factor, cells, kappa = (14, 9), (4, 2), (2, 3), 3
    gpa = GPA(
        GridPartitioner(cells), GridDownsampler(factor), kappa=kappa, affinity=affinity, scale=0.7, backend=backend
    )
    q, k, v = (torch.randn(1, 2, *shape, 6, dtype=torch.float64) for shape in (query_shape, key_shape, key_shape))
    group_of_query, cell_of_query = by_hand(query_shape, factor, cells)
    group_of_key, _ = by_hand(key_shape, factor, cells)
    flat = [x.flatten(2, 3) for x in (q, k, v)]
    q_low, k_low = (
        torch.stack([x[:, :, group == i].mean(2) for i in range(int(group.max()) + 1)], dim=2)
        for x, group in ((flat[0], group_of_query), (flat[1], group_of_key))
    )
    scores = q_low @ k_low.mT * 0.7 if affinity == "dot" else -torch.cdist(q_low, k_low).square() * 0.7
    seen = torch.zeros(1, 2, len(group_of_query), len(group_of_key), dtype=torch.bool)
    for cell in range(6):
        in_cell = cell_of_query == cell
        coarse_in_cell = group_of_query[in_cell].unique()
        best = scores.softmax(-1)[:, :, coarse_in_cell].sum(2).topk(kappa).indices
        seen[:, :, in_cell] = (group_of_key[None, None, :, None] == best[:, :, None]).any(-1)[:, :, None]
    expected = dense(*flat, affinity, 0.7, seen)
    assert (gpa(q, k, v).flatten(2, 3) - expected).abs().max() < 1e-12


def by_hand(shape, factor, cells):
    """Group and cell of every element of a 2-D grid, by the rules of the design."""
    groups, owners = [], []
    coarse = [-(-size // f) for size, f in zip(shape, factor, strict=True)]
    for i, j in itertools.product(*map(range, shape)):
        a, b = i // factor[0], j // factor[1]
        groups.append(a * coarse[1] + b)
        owners.append((a * cells[0] // coarse[0]) * cells[1] + b * cells[1] // coarse[1])
    return torch.tensor(groups), torch.tensor(owners)
