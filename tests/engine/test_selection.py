"""Phase 1 where the laws leave details open: ties, ranges, what cannot be ranked, memory."""

import pytest
import torch

import gpa_nd
from gpa_nd import Layout, Partition, gpa_attention, select_keys
from gpa_nd.engine.blocked import phase1, phase2, selection

CELLS = Partition.from_labels(torch.arange(6) // 2)


def layout_of(num_keys, ranges=None):
    """Three cells of two queries over keys that are not downsampled."""
    each = Partition.from_labels(torch.arange(num_keys))
    return Layout(Partition.from_labels(torch.arange(6)), CELLS, each, key_ranges=ranges)


def test_ranked_by_the_sum_over_the_cell_best_first(backend):
    k = torch.eye(4, dtype=torch.float64)
    q = torch.stack([9 * k[3], 5 * k[1], 9 * k[0], 9 * k[0], 2 * k[2], 9 * k[1]])
    relevant = select_keys(q[None, None], k[None, None], layout_of(4), kappa=2, scale=1.0, backend=backend)
    assert relevant[0, 0].tolist() == [[3, 1], [0, 1], [1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_of_identical_keys_go_to_the_lower_index(backend, dtype):
    rng = torch.Generator().manual_seed(5)
    for keys in (7, 16, 33, 130):
        distinct = torch.randint(-3, 4, (keys, 4), generator=rng).to(dtype)
        copies = torch.randperm(3 * keys, generator=rng)
        k = distinct.repeat(3, 1)[copies]
        q = torch.randint(-3, 4, (6, 4), generator=rng).to(dtype)
        relevant = select_keys(q[None, None], k[None, None], layout_of(3 * keys), kappa=keys + 1, backend=backend)
        weights = (q.double() @ k.double().mT / 2).softmax(-1).view(3, 2, -1).sum(1)
        first_twin = (k[:, None] == k).all(-1).int().argmax(-1)
        expected = weights[:, first_twin].sort(dim=-1, descending=True, stable=True).indices[:, : keys + 1]
        if dtype == torch.float64:
            assert relevant[0, 0].equal(expected)
        for row in range(3):
            chosen = relevant[0, 0, row]
            for key in chosen.tolist():  # of identical keys none may be left out that has a lower index
                twins = (k == k[key]).all(-1).nonzero()[:, 0]
                assert set(twins[twins < key].tolist()) <= set(chosen.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("queries", [5, 8, 33])
def test_identical_keys_tie_however_many_queries_rank_them(backend, queries, dtype):
    one_cell, q = Partition.from_labels(torch.zeros(queries, dtype=torch.int64)), torch.randn(queries, 4)
    for keys in (5, 13, 37, 70):  # which leave some over when vectors of 4, 8, 16 or 32 are full
        each = [Partition.from_labels(torch.arange(n)) for n in (queries, keys)]
        k = torch.tensor([[3.0, -1.0, 2.0, 0.0], [1.0, 2.0, -2.0, 1.0]])[torch.arange(keys) % 2]
        layout = Layout(each[0], one_cell, each[1])
        tokens = [x[None, None].to(dtype) for x in (q.round(), k)]
        chosen = select_keys(*tokens, layout, kappa=(keys + 1) // 2, backend=backend)[0, 0, 0].tolist()
        assert chosen in (list(range(0, keys, 2)), [*range(1, keys, 2), 0][: len(chosen)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_backends_pick_the_same_keys(case, dtype):
    layout, (q, k, _) = case.layout(), case.flat_tokens(dtype=dtype)
    kappa = max(1, len(layout.key_groups) // 3)
    picks = [select_keys(q, k, layout, kappa=kappa, backend=backend) for backend in ("reference", "torch")]
    assert picks[0].equal(picks[1])


def test_a_cell_sees_only_its_range(backend):
    ranges = torch.tensor([[0, 5], [2, 4], [3, 3]])
    layout = layout_of(5, ranges)
    q, k, v = torch.randn(1, 1, 6, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 3)
    relevant = select_keys(q, k, layout, kappa=3, backend=backend)
    assert set(relevant[0, 0, 1].tolist()) == {2, 3, -1}
    assert relevant[0, 0, 1, -1] == -1
    assert relevant[0, 0, 2].tolist() == [-1, -1, -1]
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    out = gpa_attention(*inputs, layout, kappa=5, backend=backend)
    assert gpa_attention(*inputs, layout.to("cpu"), kappa=5).sub(out).abs().max() < 1e-12
    hidden = torch.ones(6, 5, dtype=torch.bool)
    for cell, (start, stop) in enumerate(ranges.tolist()):
        hidden[2 * cell : 2 * cell + 2, start:stop] = False
    scores = (inputs[0] @ inputs[1].mT / 2).masked_fill(hidden, -torch.inf)[:, :, :4]
    assert (out[:, :, :4] - scores.softmax(-1) @ inputs[2]).abs().max() < 1e-12
    assert (out[:, :, 4:] == 0).all()
    grads = torch.autograd.grad(out.sum(), inputs)
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[0][:, :, 4:] == 0).all()


def test_nothing_is_kept_for_a_backward_of_the_selection(backend):
    q, k = torch.randn(1, 1, 6, 4, requires_grad=True), torch.randn(1, 1, 5, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        select_keys(q, k, layout_of(5), kappa=2, backend=backend)
    assert kept == []


@pytest.mark.parametrize("cells", [(64, 64), (16, 16), (1, 1)])
def test_neither_the_affinity_nor_all_gathered_keys_are_held(cells, largest_tensor):
    gpa = gpa_nd.image(downsample=4, cells=cells, kappa=64, backend="torch")
    layout = gpa.layout((256, 256), (256, 256))
    q, k, v = torch.randn(3, 1, 1, 65536, 8)
    with largest_tensor() as selecting:
        relevant = select_keys(q, k, layout, kappa=64, backend="torch")
    assert selecting.numel <= 2**21  # the affinity has 2^24 entries
    with largest_tensor() as attending:
        gpa_nd.attend(q, k, v, layout, relevant, backend="torch")
    gathered = relevant.numel() * 16 * 8
    assert attending.numel <= max(q.numel(), gathered // 4)


def test_many_heads_are_taken_a_few_at_a_time(monkeypatch):
    layout = gpa_nd.image(downsample=2, cells=3, kappa=1).layout((13, 11), (13, 11))
    q, k = torch.randn(2, 2, 5, 143, 4)
    expected = select_keys(q, k, layout, kappa=4, backend="torch")
    monkeypatch.setattr(phase1, "ROWS_AT_ONCE", 2**21 // (3 * 42))  # three heads of 42 coarse keys
    assert select_keys(q, k, layout, kappa=4, backend="torch").equal(expected)


@pytest.mark.parametrize("limit", [1, 100, 5000])
def test_blocks_of_any_size_give_the_same_answer(case, monkeypatch, limit):
    layout, (q, k, v) = case.layout(), case.flat_tokens()
    expected = gpa_attention(q, k, v, layout, kappa=3, backend="torch")
    monkeypatch.setattr(selection, "limit", lambda x: limit)
    monkeypatch.setattr(phase2, "limit", lambda x: limit)
    assert (gpa_attention(q, k, v, layout, kappa=3, backend="torch") - expected).abs().max() < 1e-12


# NaN and infinity


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_query_that_is_not_finite_spoils_its_row_and_at_most_its_cell(case, backend, bad):
    layout, (q, k, v) = case.layout(), case.flat_tokens(dtype=torch.float32)
    clean = gpa_attention(q, k, v, layout, kappa=2, backend=backend)
    row = q.shape[2] // 2
    q = q.clone()
    q[1, 0, row, 3] = bad
    out = gpa_attention(q, k, v, layout, kappa=2, backend=backend)
    cell = layout.fine_cells.labels == layout.fine_cells.labels[row]
    assert out[1, 0, row].isnan().all()
    assert out[1, 0, ~cell].equal(clean[1, 0, ~cell])
    assert out[0].equal(clean[0])
    assert out[1, 1].equal(clean[1, 1])


@pytest.mark.parametrize("kappa", [2, 10**6])
@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_key_that_is_not_finite_spoils_its_batch_entry_and_head(case, backend, bad, affinity, kappa):
    settings = {"kappa": kappa, "affinity": affinity}
    layout, (q, k, v) = case.layout(), case.flat_tokens(dtype=torch.float32)
    k_bad = k.clone()
    k_bad[0, 1, -1, 0] = bad
    for choice in (backend, "auto"):
        clean = gpa_attention(q, k, v, layout, backend=choice, **settings)
        out = gpa_attention(q, k_bad, v, layout, backend=choice, **settings)
        assert out[0, 1].isnan().all()
        assert out[1].equal(clean[1])
        assert out[0, 0].equal(clean[0, 0])


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_infinity_in_a_key_that_is_always_on_and_that_nobody_ranks_spoils_who_sees_it(backend, affinity):
    layout = gpa_nd.audio(2, 4, 1, causal=True).layout((8,), (8,))
    q, k, v = torch.randn(3, 1, 1, 8, 4)
    settings = {"kappa": 1, "affinity": affinity, "backend": backend}
    clean = gpa_attention(q, k, v, layout, **settings)
    for bad in (torch.inf, -torch.inf):  # one of them makes affinities of −∞
        k[:, :, 6, 0] = bad
        out = gpa_attention(q, k, v, layout, **settings)
        assert out[:, :, 6:].isnan().all()
        assert out[:, :, :6].equal(clean[:, :, :6])


def test_nan_in_one_head_changes_no_bit_of_another_where_groups_are_ragged(backend):
    gpa = gpa_nd.image(downsample=4, cells=(5, 7), kappa=12)
    layout = gpa.layout((61, 66), (61, 66))
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = torch.randn(3, 2, 2, 61 * 66, 16).to(dtype)
        clean = gpa_attention(q, k, v, layout, kappa=12, backend=backend)
        k[1, 0, 1234] = torch.nan
        out = gpa_attention(q, k, v, layout, kappa=12, backend=backend)
        assert out[1, 0].isnan().all()
        assert out[0].equal(clean[0])
        assert out[1, 1].equal(clean[1, 1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_spoils_exactly_those_who_attend_to_it(case, backend, bad):
    layout, (q, k, v) = case.layout(), case.flat_tokens(dtype=torch.float32)
    relevant = select_keys(q, k, layout, kappa=2, backend=backend)
    clean = gpa_attention(q, k, v, layout, kappa=2, backend=backend)
    key = 0  # where padding would point
    v = v.clone()
    v[0, 1, key, 2] = bad
    out = gpa_attention(q, k, v, layout, kappa=2, backend=backend)
    spoilt = torch.zeros_like(out, dtype=torch.bool)
    attending = (relevant[0, 1] == layout.key_groups.labels[key]).any(-1)
    spoilt[0, 1, :, 2] = attending[layout.fine_cells.labels]
    assert out.isfinite().logical_not().equal(spoilt)
    assert out[~spoilt].equal(clean[~spoilt])


def test_hidden_keys_may_be_anything(backend):
    layout = layout_of(5, torch.tensor([[0, 4], [1, 4], [4, 5]]))
    q, k, v = torch.randn(1, 1, 6, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 3)
    clean = gpa_attention(q, k, v, layout, kappa=5, backend=backend)
    k[..., 4, :], v[..., 4, :] = torch.nan, torch.inf
    out = gpa_attention(q, k, v, layout, kappa=5, backend=backend)
    assert out[:, :, :4].equal(clean[:, :, :4])
    assert select_keys(q, k, layout, kappa=2, backend=backend)[0, 0, 2].tolist() == [-2, -2]
    assert out[:, :, 4:].isnan().all()
