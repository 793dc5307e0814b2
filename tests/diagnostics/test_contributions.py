"""Key contributions: they are the weights that `attend` uses."""

from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import attend, select_keys
from gpa_nd.diagnostics import key_contributions


def some(n: int) -> torch.Tensor:
    """Half of n queries, in no order."""
    return torch.randperm(n)[: n // 2 + 1]


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("more", [False, True], ids=["plain", "logits and positions"])
def test_contributions_times_values_are_the_rows_of_attend(case, affinity, more):
    layout, (q, k, v) = case.layout(), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=3)
    settings = {"affinity": affinity, "scale": 0.7}
    if more:
        logits = torch.randn(relevant.shape, dtype=torch.float64)
        logits[..., 0] = -torch.inf
        settings |= {"logits": logits}
        layout = replace(layout, positions=(torch.arange(q.shape[2]), torch.arange(k.shape[2])))
    queries = some(q.shape[2])
    contributions = key_contributions(q, k, layout, relevant, queries, **settings)
    expected = attend(q, k, v, layout, relevant, **settings)[:, :, queries]
    assert contributions.shape == (*q.shape[:2], len(queries), k.shape[2])
    assert (contributions @ v - expected).abs().max() < 1e-12


def test_with_all_keys_selected_they_are_dense_softmax(case):
    layout, (q, k, _) = case.layout(), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=10**6)
    queries = some(q.shape[2])
    contributions = key_contributions(q, k, layout, relevant, queries)
    assert (contributions - (q[:, :, queries] @ k.mT / 8**0.5).softmax(-1)).abs().max() < 1e-12


def test_a_key_outside_the_selected_groups_contributes_nothing(case):
    layout, (q, k, _) = case.layout(), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=1)
    queries = torch.arange(q.shape[2])
    contributions = key_contributions(q, k, layout, relevant, queries)
    selected = relevant[:, :, layout.fine_cells.labels] == layout.key_groups.labels
    assert contributions[~selected].eq(0).all()
    assert contributions[selected].gt(0).all()
    assert (contributions.sum(-1) - 1).abs().max() < 1e-12


def test_elements_that_the_upsampler_leaves_out_contribute_nothing(case, every_other):
    gpa = case.make(kappa=2)
    gpa = case.make(kappa=2, key_upsampler=every_other(gpa.key_downsampler))
    layout, (q, k, v) = gpa.layout(case.query_shape, case.key_shape), case.flat_tokens()
    relevant = select_keys(q, k, layout, kappa=2)
    contributions = key_contributions(q, k, layout, relevant, torch.arange(q.shape[2]))
    assert (contributions @ v - attend(q, k, v, layout, relevant)).abs().max() < 1e-12


def test_heads_may_share_keys():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (10,))
    q, k, v = (torch.randn(1, heads, n, 4, dtype=torch.float64) for heads, n in ((4, 12), (2, 10), (2, 10)))
    relevant = select_keys(q, k, layout, kappa=2, enable_gqa=True)
    contributions = key_contributions(q, k, layout, relevant, torch.arange(12), enable_gqa=True)
    expected = attend(q, k, v, layout, relevant, enable_gqa=True)
    assert (contributions @ v.repeat_interleave(2, 1) - expected).abs().max() < 1e-12


def test_a_coarse_key_that_is_named_twice_counts_twice_as_in_attend():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k, v = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    relevant = torch.tensor([[[[0, 0, 1], [2, 1, 2], [1, 1, 1]]]])
    contributions = key_contributions(q, k, layout, relevant, torch.arange(6))
    assert (contributions @ v - attend(q, k, v, layout, relevant)).abs().max() < 1e-12


def test_minus_one_names_nothing_and_minus_two_answers_nan():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k = torch.randn(2, 1, 1, 6, 4)
    relevant = torch.tensor([[[[0, -1], [-2, -2], [-1, -1]]]])
    contributions = key_contributions(q, k, layout, relevant, torch.arange(6))[0, 0]
    assert (contributions[:2, 2:] == 0).all()
    assert (contributions[:2].sum(-1) - 1).abs().max() < 1e-6
    assert contributions[2:4].isnan().all()
    assert (contributions[4:] == 0).all()


def test_a_key_that_is_not_a_number_harms_only_those_that_select_it():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k = torch.randn(2, 1, 1, 6, 4)
    k[:, :, 0] = torch.nan
    contributions = key_contributions(q, k, layout, torch.tensor([[[[1, -1], [0, 1], [2, 1]]]]), torch.arange(6))
    assert contributions[0, 0].isfinite().all(-1).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_dtype_is_that_of_the_queries(dtype):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k = torch.randn(2, 1, 1, 6, 4).to(dtype)
    relevant = select_keys(q, k, layout, kappa=2)
    contributions = key_contributions(q, k, layout, relevant, torch.arange(6))
    exact = key_contributions(q.double(), k.double(), layout, relevant, torch.arange(6))
    assert contributions.dtype == dtype
    assert (contributions - exact).abs().max() < torch.finfo(dtype).eps


def test_they_are_differentiable():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k = torch.randn(2, 1, 1, 6, 4, dtype=torch.float64).requires_grad_()
    relevant = select_keys(q, k, layout, kappa=2)

    def contributions(q, k):
        return key_contributions(q, k, layout, relevant, torch.tensor([4, 1]))

    assert torch.autograd.gradcheck(contributions, (q, k))


@pytest.mark.parametrize(("batch", "asked"), [(0, 3), (2, 0)])
def test_nothing_asked_gives_an_empty_result(batch, asked):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (8,))
    q, k = torch.randn(batch, 1, 6, 4), torch.randn(batch, 1, 8, 4)
    relevant = select_keys(q, k, layout, kappa=2)
    assert key_contributions(q, k, layout, relevant, torch.arange(asked)).shape == (batch, 1, asked, 8)


LAYOUT = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (6,))
Q, K, RELEVANT = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 6, 4), torch.zeros(1, 1, 2, 3, dtype=torch.int64)
QUERIES = torch.arange(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: key_contributions(K, K, LAYOUT, RELEVANT, QUERIES), ValueError, "q: the layout is for 8 elements"),
        (lambda: key_contributions(Q, K, LAYOUT, RELEVANT + 3, QUERIES), ValueError, "relevant: expected coarse keys"),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES, affinity="l1"),
            ValueError,
            "affinity: expected one of",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES, key_mask=torch.ones(1, 5, dtype=torch.bool)),
            ValueError,
            r"key_mask: expected shape \(1, 6\), got \(1, 5\)",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, [0]),
            TypeError,
            "queries: expected an int64 or int32 tensor, got list",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES[None]),
            ValueError,
            r"queries: expected shape \(n,\), got \(1, 2\)",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES + 7),
            ValueError,
            r"queries: expected elements 0 … 7, got 7 … 8",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES - 1),
            ValueError,
            r"queries: expected elements 0 … 7, got -1 … 0",
        ),
        (
            lambda: key_contributions(Q, K, LAYOUT, RELEVANT, QUERIES.to("meta")),
            ValueError,
            "queries: expected them on cpu, where q is, got meta",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
