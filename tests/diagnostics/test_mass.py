"""Captured mass: what a dense softmax says, worked out without the library."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

import gpa_nd
from gpa_nd import Layout, select_keys
from gpa_nd.diagnostics import captured_mass, key_contributions, mass
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner
from tests.seeing import KEY_HEADS, ROWS


def dense_mass(q, k, layout, relevant, seen, key_mask=None, key_bias=None):
    """The weights of dense attention (B, H, n_q, n_k), and which of them a selection keeps."""
    heads = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(heads, dim=1)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if key_bias is not None:
        scores = scores + key_bias.repeat_interleave(heads, dim=1)[:, :, None]
    seen = seen.expand(scores.shape) if key_mask is None else seen & key_mask[:, None, None]
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    chosen = relevant[:, :, layout.fine_cells.labels]
    kept = (chosen[..., None] == layout.key_groups.labels).any(-2)
    return weights, kept


@pytest.mark.parametrize("pairs", [2**22, 40, 1], ids=["at once", "in blocks", "one query at a time"])
def test_it_is_the_dense_softmax_on_the_selected_keys(case, monkeypatch, pairs):
    monkeypatch.setattr(mass, "SCORES_AT_ONCE", pairs)
    layout, (q, k, _) = case.layout(), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=2)
    weights, kept = dense_mass(q, k, layout, relevant, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool))
    found = captured_mass(q, k, layout, relevant)
    assert (found.captured - (weights * kept).sum(-1)).abs().max() < 1e-12
    assert (found.share - kept.double().mean(-1)).abs().max() < 1e-7
    assert found.queries.equal(torch.arange(q.shape[2]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_not_seen_has_no_mass(row):
    layout, tokens = row.layout(), row.tokens()
    del tokens["v"]
    q, k = tokens.pop("q"), tokens.pop("k")
    settings = tokens | {"enable_gqa": row.heads != KEY_HEADS}
    relevant = select_keys(q, k, layout, kappa=2, **settings)
    weights, kept = dense_mass(q, k, layout, relevant, row.seen(), **tokens)
    expected = (weights * kept).sum(-1)  # NaN where nothing is seen
    found = captured_mass(q, k, layout, relevant, **settings)
    torch.testing.assert_close(found.captured, expected, rtol=0, atol=1e-12, equal_nan=True)
    evenly = (weights > 0) / (weights > 0).sum(-1, keepdim=True)
    torch.testing.assert_close(found.share, (evenly * kept).sum(-1).double(), rtol=0, atol=1e-6, equal_nan=True)


def test_it_says_of_how_many_keys_it_is_the_mass():
    layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
    x = torch.eye(4).repeat_interleave(2, 0)[None, None] * 3
    found = captured_mass(x, x, layout, torch.tensor([[[[0, 1], [2, 3]]]]))
    assert found.mean_share == 0.5
    assert str(found) == "97.8% captured in 50.00% of the keys, 97.8% at best: 100.0% of it"
    assert repr(found) == f"<{found}, of 8 queries>"


def test_where_the_best_choice_takes_larger_groups_it_says_of_how_many_keys():
    labels = torch.tensor([0] * 6 + [1, 1])
    gpa = gpa_nd.GPA(GraphPartitioner(torch.tensor([0, 0])), GraphDownsampler(labels), kappa=1)
    q = k = torch.zeros(1, 1, 8, 4)
    found = captured_mass(q, k, gpa.layout((8,), (8,)), torch.tensor([[[[1]]]]))
    assert found.best_share.equal(found.best)  # attention is spread evenly
    assert found.share.equal(found.captured)
    assert str(found) == "25.0% captured in 25.00% of the keys, 75.0% at best in 75.00%: 33.3% of it"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_with_all_keys_selected_it_is_one_or_nan_for_a_query_that_sees_nothing(row):
    layout, tokens = row.layout(), row.tokens()
    del tokens["v"]
    settings = tokens | {"enable_gqa": row.heads != KEY_HEADS}
    found = captured_mass(layout=layout, relevant=select_keys(layout=layout, kappa=10**6, **settings), **settings)
    nothing = ~(row.seen() if not row.mask else row.seen() & tokens["key_mask"][:, None, None]).any(-1)
    assert found.captured.isnan().equal(nothing.expand(found.captured.shape))
    assert (found.captured.nan_to_num(1) - 1).abs().max() < 1e-12
    assert found.ratio == pytest.approx(1)
    torch.testing.assert_close(found.best_share, found.share, equal_nan=True)


def test_no_choice_of_as_many_coarse_keys_holds_more_than_the_best(case):
    layout, (q, k, _) = case.layout(), case.flat_tokens(batch=1, heads=1)
    weights, _ = dense_mass(q, k, layout, torch.zeros(1, 1, len(layout.query_cells), 1).long(), torch.tensor(True))
    found = captured_mass(q, k, layout, select_keys(q, k, layout, kappa=2))
    of_groups = weights.new_zeros(q.shape[2], len(layout.key_groups)).index_add_(
        1, layout.key_groups.labels, weights[0, 0]
    )
    for cell in range(len(layout.query_cells)):
        rows = layout.fine_cells.labels == cell
        choices = combinations(of_groups[rows].sum(0).tolist(), min(2, len(layout.key_groups)))
        assert found.best[0, 0, rows].sum() == pytest.approx(max(map(sum, choices)), abs=1e-9)


def test_a_sample_of_cells_is_a_part_of_all(case):
    layout, (q, k, _) = case.layout(), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=1)
    cells = torch.randperm(len(layout.query_cells))[: len(layout.query_cells) // 2 + 1]
    some, everything = (captured_mass(q, k, layout, relevant, cells=x) for x in (cells, None))
    wanted = (layout.fine_cells.labels[:, None] == cells).any(-1)
    assert some.queries.equal(wanted.nonzero()[:, 0])
    torch.testing.assert_close(some.captured, everything.captured[:, :, wanted])
    torch.testing.assert_close(some.best, everything.best[:, :, wanted])


def test_elements_that_the_upsampler_leaves_out_are_missed(case, every_other):
    gpa = case.make(kappa=1)
    gpa = case.make(kappa=1, key_upsampler=every_other(gpa.key_downsampler))
    layout, (q, k, _) = gpa.layout(case.query_shape, case.key_shape), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=10**6)
    found = captured_mass(q, k, layout, relevant)
    weights, _ = dense_mass(q, k, layout, relevant, torch.tensor(True))
    assert (found.captured - weights[..., layout.members.order].sum(-1)).abs().max() < 1e-12
    assert found.captured.equal(found.best)


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_scale_and_affinity_are_those_of_the_attention(affinity):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k = torch.randn(2, 1, 1, 12, 4, dtype=torch.float64)
    settings = {"scale": 0.7, "affinity": affinity}
    everything = torch.arange(6).expand(1, 1, 3, 6)
    weights = key_contributions(q, k, layout, everything, torch.arange(12), **settings)
    relevant = select_keys(q, k, layout, kappa=2, **settings)
    kept = (relevant[:, :, layout.fine_cells.labels, :, None] == layout.key_groups.labels).any(-2)
    found = captured_mass(q, k, layout, relevant, **settings)
    assert (found.captured - (weights * kept).sum(-1)).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_added_up_in_float32(dtype):
    layout = gpa_nd.image(downsample=4, cells=4, kappa=2).layout((32, 32), (32, 32))
    q, k = torch.randn(2, 1, 1, 1024, 16).to(dtype)
    relevant = select_keys(q, k, layout, kappa=3)
    found, exact = captured_mass(q, k, layout, relevant), captured_mass(q.double(), k.double(), layout, relevant)
    assert found.captured.dtype == torch.float32
    assert (found.captured - exact.captured).abs().max() < 1e-5


def test_a_cell_that_could_not_be_ranked_is_nan_and_a_name_counts_once():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q = k = torch.zeros(1, 1, 6, 4)
    found = captured_mass(q, k, layout, torch.tensor([[[[0, -1], [-2, -2], [1, 1]]]]))
    assert found.captured[0, 0, [0, 1, 4, 5]].tolist() == pytest.approx([1 / 3] * 4)
    assert found.captured[0, 0, 2:4].isnan().all()
    assert found.best[0, 0, 2:4].isnan().all()


def test_memory_does_not_grow_with_the_number_of_pairs(largest_tensor):
    layout = gpa_nd.audio(downsample=16, cells=1, kappa=1).layout((8192,), (8192,))
    q, k = torch.randn(2, 1, 1, 8192, 4)
    with largest_tensor() as largest:
        captured_mass(q, k, layout, torch.zeros(1, 1, 1, 4, dtype=torch.int64))
    assert largest.numel <= 2**22


@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 6, 8), (1, 0, 8), (1, 6, 0)])
def test_without_queries_or_keys_nothing_is_captured(batch, queries, keys):
    gpa = gpa_nd.audio(downsample=2, cells=3, kappa=1)
    layout: Layout = gpa.layout((queries,), (keys,))
    q, k = torch.randn(batch, 1, queries, 4), torch.randn(batch, 1, keys, 4)
    found = captured_mass(q, k, layout, select_keys(q, k, layout, kappa=2))
    assert found.captured.shape == (batch, 1, queries)
    assert found.captured.isnan().all()


LAYOUT = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (6,))
Q, K, RELEVANT = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 6, 4), torch.zeros(1, 1, 2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: captured_mass(K, K, LAYOUT, RELEVANT), ValueError, "q: the layout is for 8 elements, got 6"),
        (lambda: captured_mass(Q, K, LAYOUT, RELEVANT + 3), ValueError, "relevant: expected coarse keys 0 … 2"),
        (lambda: captured_mass(Q, K, LAYOUT, RELEVANT, affinity="cosine"), ValueError, "affinity: expected one of"),
        (
            lambda: captured_mass(Q, K, LAYOUT, RELEVANT, key_mask=torch.ones(1, 6)),
            TypeError,
            "key_mask: expected a boolean tensor",
        ),
        (
            lambda: captured_mass(Q, K, LAYOUT, RELEVANT, cells=[0]),
            TypeError,
            "cells: expected an int64 or int32 tensor, got list",
        ),
        (
            lambda: captured_mass(Q, K, LAYOUT, RELEVANT, cells=torch.tensor([[0]])),
            ValueError,
            r"cells: expected shape \(n,\), got \(1, 1\)",
        ),
        (
            lambda: captured_mass(Q, K, LAYOUT, RELEVANT, cells=torch.tensor([0, 2])),
            ValueError,
            "cells: expected cells 0 … 1, got 0 … 2",
        ),
        (
            lambda: captured_mass(Q, K, LAYOUT, RELEVANT, cells=torch.tensor([0], device="meta")),
            ValueError,
            "cells: expected them on cpu, where the layout is, got meta",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_replaced_layout_is_measured_as_it_is():
    """Positions by hand, without what causal() adds: a query sees what is not later."""
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    layout = replace(layout, positions=(torch.arange(6), torch.arange(6)))
    q = k = torch.zeros(1, 1, 6, 4)
    found = captured_mass(q, k, layout, torch.zeros(1, 1, 3, 1, dtype=torch.int64))
    assert found.captured[0, 0].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 4, 2 / 5, 2 / 6])
