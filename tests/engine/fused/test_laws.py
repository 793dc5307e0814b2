"""The laws of the design on backend "triton", in float32, over the geometries that are least alike."""

import pytest
import torch

from gpa_nd import Layout, attend, gpa_attention, select_keys
from gpa_nd.partition import Partition
from tests.conftest import CASES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter, where rows are NaN

ODD = [
    case
    for case in CASES
    if case.name.startswith(("1-D (23", "2-D (13", "2-D (12, 8) d=2", "3-D (5", "1-D (31", "graph, one giant"))
]


@pytest.fixture(params=ODD, ids=lambda case: case.name)
def case(request):
    return request.param


def tokens(case, batch=1, heads=2):
    return case.flat_tokens(batch=batch, heads=heads, c=16, c_v=20, dtype=torch.float32)


def test_the_cases_are_there():
    assert len(ODD) == 6


def test_all_keys_selected_is_dense_attention(case):
    q, k, v = tokens(case)
    out = gpa_attention(q, k, v, case.layout(), kappa=10**6, backend="triton")
    expected = (q.double() @ k.double().mT / 4).softmax(-1) @ v.double()
    assert (out - expected).abs().max() < 1e-5


def test_planted_keys_are_found(case):
    layout = case.layout()
    blocks, cells = len(layout.key_groups), len(layout.query_cells)
    rng = torch.Generator().manual_seed(1)
    wanted = torch.randint(blocks, (cells,), generator=rng)
    width = max(16, blocks)
    codes, values = 40 * torch.eye(width), torch.randn(blocks, 16, generator=rng)
    q = codes[wanted][layout.fine_cells.labels][None, None]
    k, v = codes[layout.key_groups.labels][None, None], values[layout.key_groups.labels][None, None]
    assert select_keys(q, k, layout, kappa=1, backend="triton")[0, 0, :, 0].equal(wanted)
    out = gpa_attention(q, k, v, layout, kappa=1, backend="triton")
    assert (out[0, 0] - values[wanted][layout.fine_cells.labels]).abs().max() < 1e-5


def test_renaming_keys_with_their_groups_changes_nothing(case):
    layout, (q, k, v) = case.layout(), tokens(case, heads=1)
    rng = torch.Generator().manual_seed(3)
    rename_group = torch.randperm(len(layout.key_groups), generator=rng)
    shuffle = torch.randperm(k.shape[2], generator=rng)
    renamed = Partition.from_labels(rename_group[layout.key_groups.labels[shuffle]])
    other = Layout(layout.query_groups, layout.query_cells, renamed)
    kappa = max(1, len(layout.key_groups) // 2)
    expected = gpa_attention(q, k, v, layout, kappa=kappa, backend="triton")
    out = gpa_attention(q, k[:, :, shuffle], v[:, :, shuffle], other, kappa=kappa, backend="triton")
    assert (out - expected).abs().max() < 1e-5


def test_repeated_runs_agree_bit_for_bit(case):
    layout, results = case.layout(), []
    for _ in range(2):
        q, k, v = (x.requires_grad_() for x in tokens(case, heads=1))
        out = gpa_attention(q, k, v, layout, kappa=2, backend="triton")
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_no_unselected_coarse_key_has_a_larger_sum_than_a_selected_one(case):
    layout, (q, k, _) = case.layout(), tokens(case, heads=1)
    kappa = max(1, len(layout.key_groups) // 2)
    relevant = select_keys(q, k, layout, kappa=kappa, backend="triton")[0, 0]
    q_low, k_low = layout.query_groups.mean(q.double()), layout.key_groups.mean(k.double())
    weights = (q_low @ k_low.mT / 4).softmax(-1)[0, 0]
    for cell in range(len(layout.query_cells)):
        sums = weights[layout.query_cells.labels == cell].sum(0)
        selected = torch.zeros(len(sums), dtype=torch.bool).scatter(0, relevant[cell], True)
        assert selected.sum() == kappa  # distinct
        ranked = sums[relevant[cell]]
        assert (ranked.diff() <= 1e-5).all()  # best first
        assert sums.masked_fill(selected, -1).max() <= ranked[-1] + 1e-5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_spoils_what_it_must_and_no_more(case, bad):
    layout, (q, k, v) = case.layout(), tokens(case)
    clean = gpa_attention(q, k, v, layout, kappa=2, backend="triton")
    row = q.shape[2] // 2
    spoilt = q.clone()
    spoilt[0, 0, row, 3] = bad
    out = gpa_attention(spoilt, k, v, layout, kappa=2, backend="triton")
    cell = layout.fine_cells.labels == layout.fine_cells.labels[row]
    assert out[0, 0, row].isnan().all()
    assert out[0, 0, ~cell].equal(clean[0, 0, ~cell])
    assert out[0, 1].equal(clean[0, 1])
    spoilt = k.clone()
    spoilt[0, 1, -1, 0] = bad
    out = gpa_attention(q, spoilt, v, layout, kappa=2, backend="triton")
    assert out[0, 1].isnan().all()
    assert out[0, 0].equal(clean[0, 0])
    spoilt = v.clone()
    spoilt[0, 1, 0, 2] = bad
    out = gpa_attention(q, k, spoilt, layout, kappa=2, backend="triton")
    relevant = select_keys(q, k, layout, kappa=2, backend="triton")
    attending = (relevant[0, 1] == layout.key_groups.labels[0]).any(-1)[layout.fine_cells.labels]
    expected = torch.zeros_like(out, dtype=torch.bool)
    expected[0, 1, :, 2] = attending
    assert out.isfinite().logical_not().equal(expected)
    assert out[~expected].equal(clean[~expected])


def test_an_upsampler_may_leave_elements_out(every_other):
    case = ODD[1]
    gpa = case.make(kappa=10**6)
    sampled = case.make(kappa=10**6, key_upsampler=every_other(gpa.key_downsampler))
    layout, (q, k, v) = sampled.layout(case.query_shape, case.key_shape), tokens(case)
    relevant = select_keys(q, k, layout, kappa=10**6)
    out = attend(q, k, v, layout, relevant, backend="triton")
    assert (out - attend(q, k, v, layout, relevant, backend="reference")).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.double(), "it computes float16, bfloat16 and float32, and got torch.float64"),
        (lambda x: x.repeat(1, 1, 1, 17), "its kernels take up to 256 channels, and got 272"),
    ],
)
def test_where_it_cannot_run_it_says_why_and_what_can(change, message):
    layout, x = ODD[0].layout(), tokens(ODD[0])
    with pytest.raises(ValueError, match=f"backend: 'triton' cannot run: {message}.*; 'torch' and 'reference' can"):
        gpa_attention(*(change(t[..., :16]) for t in x), layout, kappa=1, backend="triton")
    with pytest.raises(ValueError, match="affinity='dot' only, and got 'euclidean'"):
        gpa_attention(*x, layout, kappa=1, affinity="euclidean", backend="triton")
