"""What a query may see, in both phases of backend "triton": positions, key biases, rankers, candidates and levels."""

import math

import pytest
import torch

pytest.importorskip("triton")

import gpa_nd
from gpa_nd import Layout, Partition, select_keys
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.engine import reference
from gpa_nd.engine.bias import CoarseBias
from gpa_nd.engine.fused import attention, chunks, gradients, pooling, selection, selection_tiles
from tests.engine.fused.test_attention import (
    DEVICE,
    assert_parity,
    audio,
    operands,
    placed,
    pytestmark,  # noqa: F401
    run,
    skewed,
    some_keys,
    tokens,
)
from tests.seeing import EVERYTHING

LOWEST = torch.finfo(torch.float32).min


def layout_of(gpa, *shape) -> Layout:
    return gpa.layout(shape, shape, DEVICE)


def three_structures() -> Layout:
    """Of very different sizes, with sinks that are always on."""
    sinks = [GlobalElements(torch.arange(2))]
    return Layout.concat([layout_of(gpa_nd.audio(4, 3, causal=True, always=sinks), n) for n in (5, 30, 13)])


def ranked_by_anybody() -> Layout:
    """Ragged cells that others rank, one of them most, some nobody; ranges and two coarse axes."""
    cells = Partition.from_labels(torch.tensor([0, 0, 1, 2, 2, 2, 3, 2, 2, 1]))
    each = Partition.from_labels(torch.arange(20) // 2)
    keys = Partition.from_labels(torch.arange(40) // 2)
    ranges = torch.tensor([[0, 20], [3, 18], [0, 0], [1, 20]])
    rng = torch.Generator().manual_seed(0)
    positions = tuple(torch.randint(-2, 3, (n, 2), generator=rng) + 2**40 for n in (4, 20))
    ranked_by = torch.tensor([2, 2, 1, 3])
    return Layout(
        each, cells, keys, key_ranges=ranges, coarse_positions=positions, ranked_by=ranked_by
    ).to(DEVICE)  # fmt: skip


# A layout, and κ of its levels.
LAYOUTS = {
    "one causal axis": lambda: (layout_of(gpa_nd.audio(2, 4, causal=True), 46), (3,)),
    "two causal axes": lambda: (layout_of(gpa_nd.image((2, 2), (3, 2), causal=True), 7, 10), (3,)),
    "one causal axis of two": lambda: (layout_of(gpa_nd.image((2, 2), (3, 2), causal=(True, False)), 9, 6), (3,)),
    "cells of one coarse query": lambda: (layout_of(gpa_nd.audio(1, 11, causal=True), 11), (3,)),
    "cells of more than a tile": lambda: (layout_of(gpa_nd.audio(1, 2, causal=True), 50), (3,)),
    "ragged and always on": lambda: (three_structures(), (2,)),
    "ranked by anybody": lambda: (ranked_by_anybody(), (7,)),
    "two levels": lambda: (layout_of(gpa_nd.audio(2, 4, kappa=(3, 2)), 46), (3, 2)),
    "three causal levels": lambda: (
        layout_of(gpa_nd.image(2, 4, kappa=(3, 2, 2), causal=True, always=[GridNeighbourhood(1)]), 8, 6),
        (3, 2, 2),
    ),
    "everything together": lambda: (EVERYTHING.layout().to(DEVICE), (2, 2)),
}
ALL = pytest.mark.parametrize("name", LAYOUTS)


def biased(x, seed=0, hidden=0.4):
    """(B, H_k, n_k) for keys or values, −∞ here and there."""
    rng = torch.Generator().manual_seed(seed)
    bias = torch.randn(x.shape[:3], generator=rng)
    return bias.masked_fill(torch.rand(x.shape[:3], generator=rng) < hidden, -math.inf).to(x.device)


def hidden_zero(bias, *tensors):
    return [x.masked_fill(bias.isneginf()[..., None], 0) for x in tensors]


# Phase 1 --------------------------------------------------------------------------------------------------------------


def assert_same_choice(q, k, layout, kappa, **settings):
    settings = {"kappa": kappa, "enable_gqa": True, **settings}
    got, right = (gpa_nd.select_keys(q, k, layout, backend=x, **settings) for x in ("triton", "reference"))
    assert got.equal(right)
    return got


@ALL
def test_the_reference_s_keys_are_chosen(name):
    layout, kappa = LAYOUTS[name]()
    q, k, _ = tokens(layout, heads=2, key_heads=1)
    assert_same_choice(q, k, layout, kappa)
    mask = torch.rand(1, k.shape[2], generator=torch.Generator().manual_seed(5)).to(DEVICE) > 0.3
    assert_same_choice(q, k, layout, kappa, key_mask=mask, key_bias=biased(k), scale=0.5)


@pytest.mark.parametrize("cells", [1, 4, 20], ids=["large cells", "small cells", "cells of one coarse query"])
@pytest.mark.parametrize("with_candidates", [False, True])
def test_what_is_hidden_takes_no_place_where_the_sums_of_what_is_seen_are_zero(cells, with_candidates):
    layout = layout_of(gpa_nd.audio(1, cells), 20)
    q, k = torch.ones(1, 1, 20, 16, device=DEVICE), torch.full((1, 1, 20, 16), -100.0, device=DEVICE)
    k[:, :, 8] = 100  # all weights beside its own underflow
    added = torch.zeros(1, 1, 20, device=DEVICE)
    added[..., [2, 3, 11, 19]] = -math.inf
    candidates = torch.arange(20, device=DEVICE).flip(0).expand(1, 1, cells, 20) if with_candidates else None
    bias = CoarseBias(added, torch.ones_like(added))
    chosen = selection.select_keys(q, k, layout, 18, 0.25, bias, candidates)[0]
    expected = [8, 0, 1, 4, 5, 6, 7, 9, 10, 12, 13, 14, 15, 16, 17, 18, -1, -1]
    assert chosen.equal(torch.tensor(expected, device=DEVICE).expand_as(chosen))


@pytest.mark.parametrize("scale", [0.0, -0.3])
def test_any_scale(scale):
    layout, kappa = LAYOUTS["two causal axes"]()
    q, k, _ = tokens(layout)
    assert_same_choice(q, k, layout, kappa, key_bias=biased(k), scale=scale)


@pytest.mark.parametrize("name", ["cells of one coarse query", "two causal axes", "cells of more than a tile"])
def test_what_cannot_be_ranked_is_of_those_who_see_it(name):
    layout, kappa = LAYOUTS[name]()
    q, k, _ = tokens(layout, heads=1, batch=2)
    q[0, 0, 3], k[1, 0, k.shape[2] // 2] = math.nan, math.inf
    chosen = assert_same_choice(q, k, layout, kappa, key_bias=biased(k, hidden=0.2))
    bad = (chosen == -2).any(-1)
    assert bad.any(-1).all()
    assert not bad.all()


@pytest.mark.parametrize("cells", [1, 9], ids=["large cells", "small cells"])
def test_a_bias_of_the_lowest_number_hides_nothing(cells):
    layout = layout_of(gpa_nd.audio(1, cells), 18)
    q, k, _ = tokens(layout, heads=1)
    bias = torch.full(k.shape[:3], LOWEST, device=DEVICE)
    bias[..., 3] = 0
    assert (assert_same_choice(q, k, layout, 18, key_bias=bias) >= 0).all()
    assert (assert_same_choice(q, k, layout, 18, key_bias=torch.full_like(bias, LOWEST)) >= 0).all()


def test_means_are_over_the_keys_that_are_seen():
    layout = layout_of(gpa_nd.audio(4, 2), 22)
    _, k, _ = tokens(layout, torch.float16, c=24)
    bias = biased(k)
    (k,) = hidden_zero(bias, k)
    coarse = gpa_nd.engine.bias.coarse_bias(bias, layout.key_groups)
    parts = selection.Groups(layout.key_groups.order, layout.key_groups.offsets, 4)
    low = pooling.pool(k, parts, selection.chip_of(k.device), 6, share=coarse.share)
    assert low[..., :24].equal(reference.pooled_keys(k, layout, coarse).flatten(0, 1))


# Candidates


def some_candidates(layout, heads, count, seed=0):
    """Distinct coarse keys of each cell in no order, with −1 among them."""
    rng = torch.Generator().manual_seed(seed)
    shape = 1, heads, len(layout.query_cells)
    chosen = torch.rand(*shape, len(layout.key_groups), generator=rng).argsort(-1)[..., :count]
    return chosen.masked_fill(torch.rand(chosen.shape, generator=rng) < 0.2, -1).to(DEVICE)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("ranked by anybody", count) for count in (1, 16, 19)),
        ("cells of one coarse query", 9),
        ("cells of more than a tile", 33),
    ],
)
def test_only_candidates_are_chosen_and_ties_go_to_the_lower_number(name, count):
    layout, _ = LAYOUTS[name]()
    q, k, _ = tokens(layout)
    twins = torch.arange(k.shape[2]) // 4 * 4  # every two groups, or four, are alike
    k = k[:, :, twins].round()
    candidates = some_candidates(layout, 2, count)
    few = (layout, 8, 0.25)
    for bias in (
        None,
        CoarseBias(biased(k)[..., : len(layout.key_groups)], torch.ones(1, 2, len(layout.key_groups), device=DEVICE)),
    ):
        if bias is not None:
            bias.added.copy_(bias.added.round())
        got = selection.select_keys(q.round(), k, *few, bias, candidates)[0]
        assert got.equal(reference.select_keys(q.round(), k, *few, "dot", bias, candidates, None)[0])
    nobody = candidates[..., :0]
    assert (selection.select_keys(q, k, *few, None, nobody)[0] == -1).all()


def test_candidates_are_ranked_a_chunk_at_a_time(monkeypatch):
    layout, _ = LAYOUTS["ranked by anybody"]()
    q, k, _ = tokens(layout)
    candidates = some_candidates(layout, 2, 19)
    expected = selection.select_keys(q, k, layout, 5, 0.25, None, candidates)[0]
    monkeypatch.setattr(chunks, "SUMS_AT_ONCE", 1)
    monkeypatch.setattr(selection_tiles, "SUMS_AT_ONCE", 1)
    assert selection.select_keys(q, k, layout, 5, 0.25, None, candidates)[0].equal(expected)


def test_a_candidate_that_is_not_finite_spoils_its_cell_alone():
    layout = layout_of(gpa_nd.audio(2, 4), 32)
    q, k, _ = tokens(layout, heads=1)
    candidates = torch.arange(16, device=DEVICE).view(1, 1, 4, 4)
    clean = selection.select_keys(q, k, layout, 3, 0.25, None, candidates)[0]
    k[:, :, 9] = math.nan  # of coarse key 4
    got = selection.select_keys(q, k, layout, 3, 0.25, None, candidates)[0]
    clean[:, :, 1] = -2
    assert got.equal(clean)


# Phase 2 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_positions_on_several_axes(axes, dtype):
    layout = audio() if axes == 2 else audio(24, 4, 3)
    q, k, v = tokens(layout, dtype)
    positions = tuple(torch.randint(-2, 3, (len(x), axes), device=DEVICE) + 2**40 for x in (q[0, 0], k[0, 0]))
    assert_parity(placed(layout, positions), q, k, v, some_keys(layout, q, 4))


@pytest.mark.parametrize(
    ("layout", "dtype", "with_logits", "with_positions"),
    [
        (lambda: audio(24, 4, 3), torch.float32, True, False),
        (lambda: audio(), torch.float16, False, True),
        (skewed, torch.float32, False, True),
        (lambda: audio(48, 4, 6), torch.bfloat16, False, False),
        (lambda: audio(48, 2, 24), torch.float32, False, False),  # cells and groups that are packed
        (lambda: audio(48, 2, 24), torch.float32, False, True),
    ],
    ids=["logits", "ragged", "skewed", "bfloat16", "packed", "packed, positions"],
)
def test_a_bias_errs_no_more_than_plain_pytorch(layout, dtype, with_logits, with_positions):
    layout = layout()
    q, k, v = tokens(layout, dtype, heads=2, key_heads=1, c=17, c_v=24)
    bias = biased(k, hidden=0.2)
    k, v = hidden_zero(bias, k, v)
    relevant = some_keys(layout, q, 4)
    logits = torch.randn(relevant.shape, device=DEVICE) if with_logits else None
    if with_positions:
        layout = placed(layout, tuple(torch.randint(-2, 3, (x.shape[2],), device=DEVICE) for x in (q, k)))
    assert_parity(layout, q, k, v, relevant, logits, bias)


def test_the_bias_of_a_key_that_every_cell_chose_has_a_gradient_from_all(monkeypatch):
    monkeypatch.setattr(gradients, "entries_per_slot", lambda *sizes: 2)
    layout = audio(48, 2, 12)
    q, k, v = tokens(layout, key_heads=1)
    relevant = some_keys(layout, q, kappa=3)
    relevant[..., 0] = 5
    relevant[..., 1:][relevant[..., 1:] == 5] = -1
    assert_parity(layout, q, k, v, relevant, None, biased(k, hidden=0))


def test_a_bias_of_any_strides_is_read_where_it_is():
    layout = audio(13, 4, 2)
    q, k, v = tokens(layout, batch=2)
    relevant = some_keys(layout, q)
    turned = torch.randn(13, 2, 2, device=DEVICE).permute(2, 1, 0)
    for bias in (torch.randn(1, 1, 13, device=DEVICE).expand(2, 2, 13), turned, torch.randn(2, 2, 26)[..., ::2]):
        strided, straight = (
            attention.attend(q, k, v, layout, relevant, None, x.to(DEVICE), 0.25) for x in (bias, bias.contiguous())
        )
        assert strided.equal(straight)
    assert_parity(layout, q, k, v, relevant, None, turned)


@pytest.mark.parametrize(
    ("make", "with_positions"),
    [(lambda: audio(24, 4, 3), False), (lambda: audio(24, 2, 12), False), (lambda: audio(13, 4, 3), True)],
    ids=["", "packed", "positions"],
)
def test_a_query_that_sees_nothing_answers_zeros_and_sends_no_gradient(make, with_positions):
    layout = make()
    q, k, v = tokens(layout)
    n = q.shape[2]
    if with_positions:
        layout = placed(layout, (torch.arange(n, device=DEVICE),) * 2)
    relevant = some_keys(layout, q)
    relevant[:, :, 0, :2] = relevant[:, :, 0, 2:]  # the first cell sees one coarse key, of which all is hidden
    hidden = torch.isin(layout.key_groups.labels, relevant[:, :, 0, 0])
    bias = torch.zeros(1, 2, n, device=DEVICE).masked_fill(hidden, -math.inf)
    k, v = hidden_zero(bias, k, v)
    q[0, 0, 0] = math.nan  # nor does it matter what it asks
    inputs = (q, k, v, bias)
    fused = run(lambda *x: attention.attend(*x[:3], layout, relevant, None, x[3], 0.25), inputs)
    plain = run(lambda *x: reference.attend(*x[:3], layout, relevant, None, x[3], 0.25, "dot"), inputs)
    first = layout.fine_cells.labels == 0
    assert (fused[0][:, :, first] == 0).all()
    assert (fused[1][:, :, first][:, :, 1:] == 0).all()
    assert (fused[4][:, :, hidden] == 0).all()
    for got, right in zip([fused[0], *fused[2:]], [plain[0], *plain[2:]], strict=True):
        seen = ~hidden if got.shape[2] == n and got is not fused[0] else slice(None)
        torch.testing.assert_close(got[:, :, seen], right[:, :, seen], atol=1e-5, rtol=1e-5)


def test_a_query_that_is_not_finite_sends_no_gradient_to_the_bias_of_what_is_hidden():
    layout = audio()
    q, k, v = tokens(layout)
    bias = torch.zeros(1, 2, 23, device=DEVICE)
    bias[..., ::3] = -math.inf
    k, v = hidden_zero(bias, k, v)
    q[:, :, 5] = math.nan
    relevant = torch.arange(6, device=DEVICE).expand(1, 2, 4, 6)
    *_, of_bias = run(lambda *x: attention.attend(*x[:3], layout, relevant, None, x[3], 0.25), (q, k, v, bias))
    assert (of_bias[..., ::3] == 0).all()
    assert of_bias[..., 1::3].isnan().all()


def test_keys_of_the_lowest_number_are_seen_where_there_is_nothing_else():
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q)
    bias = torch.full((1, 2, 24), LOWEST, device=DEVICE)
    bias[..., 7] = 0
    got = attention.attend(q, k, v, layout, relevant, None, bias, 0.25)
    assert (got - reference.attend(q, k, v, layout, relevant, None, bias, 0.25, "dot")).abs().max() < 1e-5


def test_the_gradient_of_a_mask_is_not_computed_and_that_of_a_bias_changes_no_other():
    layout = audio(13, 4, 2)
    q, k, v = tokens(layout, heads=1)
    bias = biased(k)
    inputs = operands(layout, q, *hidden_zero(bias, k, v), some_keys(layout, q), None, bias)
    with torch.no_grad():
        results = attention.fused_attend(*inputs)
        backward = (torch.randn_like(results[0]), *inputs[:3], *results, *inputs[3:])
        *without, nothing = attention.fused_attend_backward(*backward, False)
        *beside, of_bias = attention.fused_attend_backward(*backward, True)
    assert nothing.numel() == 0
    assert of_bias.shape == bias.shape
    assert all(a.equal(b) for a, b in zip(without, beside, strict=True))


# Both -----------------------------------------------------------------------------------------------------------------


def small_cells() -> Layout:
    """Four of which would share a tile."""
    return layout_of(gpa_nd.audio(2, 16, causal=True), 64)


@pytest.mark.parametrize("name", [*(x for x in LAYOUTS if x not in ("two levels", "ranked by anybody")), "small cells"])
def test_what_is_later_changes_no_bit(name):
    layout, kappa = (small_cells(), (2,)) if name == "small cells" else LAYOUTS[name]()
    q, k, v = tokens(layout, heads=1)
    bias = biased(k)
    of_queries, of_keys = layout.positions
    expected = gpa_nd.gpa_attention(q, k, v, layout, kappa=kappa, key_bias=bias, backend="triton")
    for seed, value in enumerate((None, math.nan)):
        t = of_queries[q.shape[2] * (seed + 1) // 4]
        ours, theirs = ((x > t).any(-1)[:, None] for x in (of_queries, of_keys))
        far = (lambda x: 9 * torch.randn_like(x)) if value is None else (lambda x: torch.full_like(x, math.nan))
        changed = [torch.where(where, far(x), x) for where, x in ((ours, q), (theirs, k), (theirs, v))]
        other = torch.where(theirs[:, 0], far(bias), bias)
        got = gpa_nd.gpa_attention(*changed, layout, kappa=kappa, key_bias=other, backend="triton")
        assert got[:, :, ~ours[:, 0]].equal(expected[:, :, ~ours[:, 0]])
        assert not got[:, :, ours[:, 0]].equal(expected[:, :, ours[:, 0]])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name",
    [*(x for x in LAYOUTS if x.startswith(("one causal axis", "cells", "two"))), "everything together"],
)  # fmt: skip
def test_a_bias_that_is_not_finite_makes_nan_of_what_the_reference_does(name, value):
    layout, kappa = LAYOUTS[name]()
    q, k, v = tokens(layout, heads=1)
    bias = biased(k, hidden=0)
    settings = {"layout": layout, "kappa": kappa}
    clean = gpa_nd.gpa_attention(q, k, v, key_bias=bias, backend="triton", **settings)
    bias[..., k.shape[2] // 2] = value
    got, right = (gpa_nd.gpa_attention(q, k, v, key_bias=bias, backend=b, **settings) for b in ("triton", "reference"))
    spoilt = right.isnan()
    assert got.isnan().equal(spoilt)
    assert got[~spoilt].equal(clean[~spoilt])


def test_a_module_answers_as_the_reference_does_gradients_included():
    settings = {"kappa": (3, 2), "causal": True, "always": [GridNeighbourhood(1)]}
    mask = torch.rand(1, 6, 7, device=DEVICE) > 0.3
    q, k, v = (torch.randn(1, 2, 6, 7, 16, device=DEVICE) for _ in "qkv")
    results = []
    for backend in ("triton", "reference"):
        gpa = gpa_nd.image(2, 3, backend=backend, **settings)
        inputs = [*(x.clone() for x in (q, k, v)), torch.zeros(1, 2, 6, 7, device=DEVICE)]
        results.append(run(lambda q, k, v, bias: gpa(q, k, v, key_mask=mask, key_bias=bias), inputs))  # noqa: B023
    for got, right in zip(*results, strict=True):
        torch.testing.assert_close(got, right, atol=2e-5, rtol=2e-5)


def test_it_compiles_into_one_graph():
    layout, _ = LAYOUTS["one causal axis"]()
    q, k, v = tokens(layout, heads=1)
    bias = biased(k)

    def both(q, k, v, bias):
        return gpa_nd.gpa_attention(q, k, v, layout, kappa=2, key_bias=bias, backend="triton")

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    pairs = zip(run(compiled, (q, k, v, bias)), run(both, (q, k, v, bias)), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_repeats_agree_bit_for_bit():
    layout = placed(audio(), (torch.arange(23, device=DEVICE),) * 2)
    q, k, v = tokens(layout)
    bias, relevant = biased(k), some_keys(layout, q)
    k, v = hidden_zero(bias, k, v)

    def repeat():
        return run(lambda *x: attention.attend(*x[:3], layout, relevant, None, x[3], 0.25), (q, k, v, bias))

    assert all(a.equal(b) for a, b in zip(repeat(), repeat(), strict=True))


def test_cells_of_several_tiles_see_no_key_that_is_later_along_any_axis():
    layout = layout_of(gpa_nd.image(1, 2, 3, causal=(True, True)), 10, 11)
    assert layout.rankers.largest > 16
    q, k = torch.randn(2, 1, 1, 110, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    one, other = (select_keys(q, k, layout, kappa=3, backend=x) for x in ("triton", "reference"))
    assert one.equal(other)
