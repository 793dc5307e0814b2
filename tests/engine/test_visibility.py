"""Who sees whom, in blocks: the fast backend against the reference, and what is computed at all."""

import io
from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, Layout, Partition, attend, gpa_attention, select_keys, testing
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.engine import reference
from gpa_nd.engine.blocked import phase2, positions, selection
from gpa_nd.engine.blocked.spans import plan
from gpa_nd.engine.blocked.widths import widths
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner

SEVERAL = {"causal": True, "always": [GridNeighbourhood(2), GlobalElements(torch.arange(2))]}


def packed(gpa, lengths):
    return Layout.concat([gpa.layout((n,), (n,)) for n in lengths])


def unequal_cells():
    """Cells of 17, 1, 1, 5 … coarse queries, each with a range of its own, some of them empty."""
    sizes = torch.tensor([17, 1, 1, 5, 2, 1, 9, 1])
    cells = Partition.from_labels(torch.arange(8).repeat_interleave(sizes)[torch.randperm(37)])
    ranges = torch.tensor([[0, 30], [29, 30], [7, 7], [3, 11], [0, 0], [4, 25], [30, 30], [10, 12]])
    each, pairs = Partition.from_labels(torch.arange(37)), Partition.from_labels(torch.arange(60) // 2)
    return Layout(each, cells, pairs, key_ranges=ranges, ranked_by=torch.tensor([1, 0, 2, 6, 4, 4, 3, 3]))


def scattered():
    """Positions that no range can say."""
    layout = gpa_nd.audio(2, 5, 1).layout((31,), (44,))
    of_cells, of_keys = torch.randint(9, (5, 2)), torch.randint(9, (22, 2))
    return replace(layout, coarse_positions=(of_cells, of_keys), positions=_spread(31, 44))


def _spread(n_q, n_k):
    return torch.randint(9, (n_q, 3)), torch.randint(9, (n_k, 3))


LAYOUTS = {
    "many tiny sequences": lambda: packed(gpa_nd.audio(2, 2, 1), torch.randint(1, 9, (40,)).tolist()),
    "a giant among tiny ones": lambda: packed(gpa_nd.audio(3, 6, 1), [2, 7, 1, 500, 3, 5, 9, 2]),
    "sequences of several sizes": lambda: packed(gpa_nd.audio(2, 4, 1, causal=True), [150, 3, 40, 300, 21]),
    "cells of unequal size": unequal_cells,
    "positions": scattered,
    "causal": lambda: gpa_nd.audio(2, 9, 1, **SEVERAL).layout((101,), (101,)),
    "causal on two axes": lambda: gpa_nd.image((2, 3), (4, 3), 1, causal=True).layout((15, 14), (15, 14)),
    "three levels": lambda: gpa_nd.audio(2, 9, (1, 1, 1), **SEVERAL).layout((150,), (150,)),
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    torch.manual_seed(1)
    return LAYOUTS[request.param]()


def tokens_of(layout, dtype=torch.float64, batch=2, heads=4, key_heads=2, c=8, c_v=5):
    n_q, n_k = layout.query_groups.num_elements, layout.key_groups.num_elements
    shapes = (batch, heads, n_q, c), (batch, key_heads, n_k, c), (batch, key_heads, n_k, c_v)
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]


def some_hidden(layout, batch=2, key_heads=2, dtype=torch.float32):
    """A bias in which every third key is masked, in one head all of the first half."""
    n_k = layout.key_groups.num_elements
    bias = torch.randn(batch, key_heads, n_k, dtype=dtype)
    bias[:, :, ::3] = -torch.inf
    bias[0, -1, : n_k // 2] = -torch.inf
    return bias


BIASES = {
    "no bias": lambda layout: None,
    "a bias": some_hidden,
    "a bias of all heads": lambda layout: some_hidden(layout, key_heads=1).expand(2, 2, -1),
    "a bias of all entries and heads": lambda layout: some_hidden(layout)[1:, 1:].expand(2, 2, -1),
    "a permuted bias": lambda layout: some_hidden(layout).permute(2, 1, 0).contiguous().permute(2, 1, 0),
}


# Phase 1


@pytest.mark.parametrize(
    ("affinity", "dtype"),
    [("dot", torch.float64), ("dot", torch.float32), ("dot", torch.bfloat16), ("euclidean", torch.float32)],
    ids=str,
)
@pytest.mark.parametrize("bias", BIASES)
def test_backends_select_the_same(layout, bias, dtype, affinity):
    q, k, _ = tokens_of(layout, dtype)
    settings = {"kappa": 5, "key_bias": BIASES[bias](layout), "affinity": affinity, "enable_gqa": True}
    one, other = (select_keys(q, k, layout, backend=b, **settings) for b in ("reference", "torch"))
    assert one.equal(other)


@pytest.mark.parametrize("limit", [1, 300, 7000])
def test_blocks_of_any_size_select_the_same(layout, limit, monkeypatch):
    q, k, v = tokens_of(layout)
    settings = {"kappa": 5, "key_bias": some_hidden(layout), "enable_gqa": True, "backend": "torch"}
    expected = gpa_attention(q, k, v, layout, **settings)
    for module in (selection, phase2):
        monkeypatch.setattr(module, "limit", lambda x: limit)
    assert (gpa_attention(q, k, v, layout, **settings) - expected).abs().max() < 1e-12


def candidates_of(layout, width=7):
    """Distinct coarse keys for each entry, head and cell, in no order, some of them −1, in one cell all."""
    shape = 2, 4, len(layout.query_cells)
    candidates = torch.rand(*shape, len(layout.key_groups)).argsort(-1)[..., :width]
    candidates[..., ::4] = -1
    candidates[:, :, -1] = -1
    return candidates


def ranked(backend, q, k, layout, kappa, candidates, affinity="dot"):
    from gpa_nd.engine import blocked

    if backend == "reference":
        return reference.select_keys(q, k, layout, kappa, 0.3, affinity, None, candidates, None)[0]
    return blocked.select_keys(q, k, layout, kappa, 0.3, affinity, None, candidates, None, False)[0]


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("kappa", [1, 4, 10**6])
def test_candidates_are_ranked_as_in_the_reference(layout, kappa, affinity):
    q, k, _ = tokens_of(layout)
    candidates = candidates_of(layout)
    one, other = (ranked(b, q, k, layout, kappa, candidates, affinity) for b in ("reference", "torch"))
    assert one.equal(other)
    assert (one[:, :, -1] == -1).all()


def test_of_candidates_that_are_alike_the_lower_number_is_taken():
    each = Partition.from_labels(torch.arange(40))
    layout = Layout(each, Partition.from_labels(torch.arange(40) // 2), each)  # sums of two have one order
    q, k = (torch.randint(-3, 4, (2, heads, 40, 8)).double() for heads in (4, 2))
    k = k[:, :, torch.arange(40) % 3]
    candidates = candidates_of(layout, width=12)
    one, other = (ranked(b, q, k, layout, 5, candidates) for b in ("reference", "torch"))
    assert one.equal(other)


def test_what_is_no_candidate_costs_nothing_and_may_be_anything(largest_tensor):
    layout = gpa_nd.audio(2, 64, 1).layout((8192,), (8192,))
    q, k, _ = tokens_of(layout, torch.float32, batch=1, heads=1, key_heads=1)
    candidates = torch.randint(0, 2000, (1, 1, 64, 8)).sort(-1).values
    candidates = candidates + torch.arange(8)  # distinct
    with largest_tensor() as seen:
        clean = ranked("torch", q, k, layout, 4, candidates)
    assert seen.numel <= q.numel()
    k[:, :, 2 * 2008 :] = torch.nan
    assert ranked("torch", q, k, layout, 4, candidates).equal(clean)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_hidden_coarse_keys_change_no_bit(bad):
    layout = unequal_cells()
    q, k, _ = tokens_of(layout, torch.float32)
    clean = select_keys(q, k, layout, kappa=5, enable_gqa=True, backend="torch")
    k[:, :, 2 * 11] = bad  # of the cells, 0 and 5 and 7 see coarse key 11
    out = select_keys(q, k, layout, kappa=5, enable_gqa=True, backend="torch")
    assert out.equal(select_keys(q, k, layout, kappa=5, enable_gqa=True, backend="reference"))
    others = torch.tensor([1, 2, 3, 4, 6])
    assert out[:, :, others].equal(clean[:, :, others])
    assert (out[:, :, [0, 5, 7]] == -2).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_key_that_earlier_cells_are_scored_beside_changes_no_bit_of_theirs(bad):
    layout = gpa_nd.audio(2, 9, 1, causal=True).layout((101,), (101,))
    spans, _ = plan(layout.host_ranges, layout.rankers.host_offsets.diff())
    assert max(len(span.cells) for span in spans) > 3
    q, k, _ = tokens_of(layout, torch.float32)
    clean = select_keys(q, k, layout, kappa=3, enable_gqa=True, backend="torch")
    last = int(layout.host_ranges[:, 1].max()) - 1
    k[:, :, 2 * last] = bad
    out = select_keys(q, k, layout, kappa=3, enable_gqa=True, backend="torch")
    sees = layout.key_ranges[:, 1] > last
    assert out[:, :, ~sees].equal(clean[:, :, ~sees])
    assert (out[:, :, sees] == -2).all()


# What is looked at together


def areas(layout):
    """Affinities that are computed, and those that are wanted."""
    sizes = layout.rankers.host_offsets.diff()
    spans, apart = plan(layout.host_ranges, sizes)
    computed = sum((span.stop - span.start) * int(sizes[span.cells].sum()) for span in spans)
    computed += sum(few.width * int(sizes[few.cells].sum()) for few in apart)
    return computed, int((layout.host_ranges.diff(dim=-1)[:, 0] * sizes).sum()), len(spans) + len(apart)


def test_every_cell_that_sees_something_is_looked_at_once(layout):
    if layout.host_ranges is None:
        pytest.skip("all cells see all")
    sizes = layout.rankers.host_offsets.diff()
    spans, apart = plan(layout.host_ranges, sizes)
    cells = torch.cat([part.cells for part in (*spans, *apart)])
    starts, stops = layout.host_ranges.unbind(-1)
    assert cells.sort().values.equal((stops > starts).nonzero()[:, 0])
    for span in spans:
        assert span.start == starts[span.cells].min()
        assert span.stop == stops[span.cells].max()
        assert span.alike == bool((stops - starts)[span.cells].eq(span.stop - span.start).all())
    assert all(few.width == (stops - starts)[few.cells].max() for few in apart)


def side_by_side(sizes):
    """Structures of so many coarse queries and keys, each in two cells, or in one if it is that small."""
    each, structure = Partition.from_labels(torch.arange(int(sizes.sum()))), torch.arange(len(sizes))
    structure = structure.repeat_interleave(sizes)
    last = sizes.cumsum(0)[structure]
    late = torch.arange(len(structure)) >= last - sizes[structure] // 2
    cells = Partition.from_labels((2 * structure + late).unique(return_inverse=True)[1])
    stop = last[cells.order[cells.offsets[:-1]]]
    start = stop - sizes[structure[cells.order[cells.offsets[:-1]]]]
    return Layout(each, cells, each, key_ranges=torch.stack([start, stop], dim=-1))


def test_thousands_of_structures_take_a_few_steps():
    computed, wanted, steps = areas(side_by_side(torch.randint(1, 15, (4000,))))
    assert steps < 20
    assert computed < 3 * wanted
    giants = torch.tensor([1000, *[3] * 1000, 2000, *[10] * 1000])
    computed, wanted, steps = areas(side_by_side(giants))
    assert steps < 20
    assert computed < 1.5 * wanted


def test_causal_ranks_about_half():
    computed, wanted, steps = areas(gpa_nd.audio(2, 512, 1, causal=True).layout((8192,), (8192,)))
    assert computed < 1.15 * wanted < 0.6 * 4096**2
    assert steps < 25


def test_windows_take_few_steps():
    cells = Partition.from_labels(torch.arange(4000))
    first = torch.arange(4000)
    for width in (50, 900):
        ranges = torch.stack([first, first + width], dim=-1)
        layout = Layout(cells, cells, Partition.from_labels(torch.arange(4900)), key_ranges=ranges)
        computed, wanted, steps = areas(layout)
        assert computed < 2 * wanted
        assert steps < 60


# Phase 2


def parity(layout, dtype, bias, logits, strided=False, affinity="dot"):
    """Results and gradients (fast, plain, exact) with the same indices."""
    inputs = tokens_of(layout, dtype, batch=2)
    relevant = select_keys(*inputs[:2], layout, kappa=4, enable_gqa=True, key_bias=bias)
    extra = [torch.randn(relevant.shape).to(dtype)] if logits else []
    weight = torch.randn(*inputs[0].shape[:3], inputs[2].shape[-1], dtype=torch.float64)

    def run(backend, wide):
        given = [x.to(wide or dtype).detach().clone() for x in (*inputs, *extra)]
        if strided:
            for i, x in enumerate(given[:3]):
                room = torch.full((x.shape[0], x.shape[2], x.shape[1], 2 * x.shape[3]), torch.nan, dtype=x.dtype)
                room[..., ::2] = x.transpose(1, 2)
                given[i] = room[..., ::2].transpose(1, 2)
        if bias is not None:
            given.append(bias.detach())
        given = [x.requires_grad_() for x in given]
        more = {"logits": given[3] if logits else None, "key_bias": None if bias is None else given[-1]}
        out = attend(*given[:3], layout, relevant, enable_gqa=True, affinity=affinity, backend=backend, **more)
        return [out, *torch.autograd.grad((out * weight.to(out.dtype)).sum(), given)]

    *narrow, exact = run("torch", None), run("reference", None), run("reference", torch.float64)
    return zip(*narrow, (x.double() for x in exact), strict=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", BIASES)
def test_errs_no_more_than_plain_pytorch(layout, bias, dtype):
    for which, (fast, plain, exact) in enumerate(parity(layout, dtype, BIASES[bias](layout), logits=bias == "a bias")):
        if dtype == torch.float64:
            assert (fast - exact).abs().max() < 1e-12 * max(1, exact.abs().max())
        else:
            testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


def test_strided_inputs_and_distances():
    layout = LAYOUTS["causal"]()
    for affinity in ("dot", "euclidean"):
        results = parity(layout, torch.float32, some_hidden(layout), logits=True, strided=True, affinity=affinity)
        for which, (fast, plain, exact) in enumerate(results):
            testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


def test_cells_beside_which_fewer_keys_are_always_on_gather_fewer():
    """Causal on both axes: 252 columns, of which cells need 128 in the mean."""
    layout = gpa_nd.image(4, (32, 32), 1, causal=True).layout((256, 256), (256, 256))
    relevant = torch.cat([torch.zeros(len(layout.query_cells), 12), layout.always], dim=1).long()[None]
    parts = widths(relevant, layout.always)
    assert torch.cat([cells for _, cells in parts]).sort().values.equal(torch.arange(1024))
    assert sum(columns * len(cells) for columns, cells in parts) < 1.2 * int((relevant >= 0).sum())
    assert len(parts) < 10


@pytest.mark.parametrize("logits", [False, True])
def test_keys_of_ones_own_are_attended_to_wherever_they_stand_in_a_row(logits):
    layout = LAYOUTS["causal on two axes"]()
    q, k, v = tokens_of(layout)
    always = layout.always.expand(2, 4, -1, -1)
    own = torch.rand(2, 4, len(layout.query_cells), len(layout.key_groups)).argsort(-1)[..., : always.shape[-1]]
    for relevant in (own, own.masked_fill(always < 0, -1), torch.cat([own[..., :3], always], dim=-1)):
        added = torch.randn(relevant.shape, dtype=torch.float64) if logits else None
        one, other = (
            attend(q, k, v, layout, relevant, logits=added, enable_gqa=True, backend=b) for b in ("reference", "torch")
        )
        assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("far", [0, 10**12, -(10**12)])
def test_positions_as_a_mask_and_as_arithmetic_give_the_same_bits(far, monkeypatch):
    layout = scattered()
    layout = replace(layout, positions=tuple(x + far for x in layout.positions))
    q, k, v = (x.requires_grad_() for x in tokens_of(layout, torch.float32))
    relevant = select_keys(q, k, layout, kappa=9, enable_gqa=True)

    def run():
        out = attend(q, k, v, layout, relevant, key_bias=some, enable_gqa=True, backend="torch")
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    some = some_hidden(layout)
    fast = run()
    monkeypatch.setattr(positions, "EXACT", 0)
    assert all(a.equal(b) for a, b in zip(fast, run(), strict=True))


def test_positions_at_the_ends_of_what_is_possible():
    ends = torch.iinfo(torch.int64)
    layout = gpa_nd.audio(2, 2, 1).layout((4,), (4,))
    layout = replace(layout, positions=(torch.tensor([ends.max, 0, 1, ends.min]), torch.tensor([ends.max, 1, 0, -1])))
    q, k, v = (torch.randn(1, 1, 4, 3, dtype=torch.float64) for _ in range(3))
    out = gpa_attention(q, k, v, layout, kappa=2, backend="torch")
    assert (out - gpa_attention(q, k, v, layout, kappa=2, backend="reference")).abs().max() < 1e-12
    assert (out[:, :, 3] == 0).all()


@pytest.mark.parametrize("exact", [True, False])
def test_a_query_that_sees_nothing_answers_zeros_were_it_not_a_number(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(positions, "EXACT", 0)
    layout = gpa_nd.audio(2, 2, 1).layout((8,), (8,))
    layout = replace(layout, positions=(torch.tensor([0, 9, 9, 9, 9, 9, 0, 9]), torch.arange(8) + 1))
    q, k, v = (torch.randn(1, 1, 8, 3) for _ in range(3))
    q[:, :, 0] = torch.nan
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = attend(*inputs, layout, torch.tensor([[[[0, 2], [1, 3]]]]), backend="torch")
    assert (out[:, :, [0, 6]] == 0).all()
    assert (out[:, :, [1, 2, 3, 4, 5, 7]] != 0).all()
    assert (torch.autograd.grad(out.sum(), q)[0][:, :, 6] == 0).all()


def test_masked_keys_may_be_anything_and_have_no_gradient():
    layout, bias = LAYOUTS["causal"](), some_hidden(LAYOUTS["causal"]())
    q, k, v = tokens_of(layout, torch.float32)
    hidden = bias.isneginf()[..., None]

    def run(value):
        inputs = [q.clone(), k.masked_fill(hidden, value), v.masked_fill(hidden, value), bias.clone()]
        inputs = [x.requires_grad_() for x in inputs]
        out = gpa_attention(*inputs[:3], layout, kappa=3, key_bias=inputs[3], enable_gqa=True, backend="torch")
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    clean = run(1.0)
    for value in (torch.nan, -torch.inf):
        assert all(a.equal(b) for a, b in zip(run(value), clean, strict=True))
    for grad in (clean[2], clean[3], clean[4][..., None]):
        assert not grad[hidden.expand_as(grad)].any()
        assert grad.isfinite().all()


def test_a_masked_key_has_no_gradient_beside_a_value_that_is_not_a_number():
    layout = gpa_nd.audio(2, 2, 1).layout((8,), (8,))
    q, k, v = torch.randn(3, 1, 1, 8, 4)
    v[:, :, 3] = torch.nan
    bias = torch.zeros(1, 1, 8).masked_fill(torch.arange(8) == 2, -torch.inf).requires_grad_()
    out = gpa_attention(q, k, v, layout, kappa=4, key_bias=bias, backend="torch")
    (grad,) = torch.autograd.grad(out.sum(), bias)
    assert grad[..., 2] == 0
    assert grad[..., 3].isnan()


def test_repeated_runs_agree_bit_for_bit_with_everything(layout):
    bias = some_hidden(layout)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        inputs = [x.requires_grad_() for x in (*tokens_of(layout, torch.float32), bias.clone())]
        out = gpa_attention(*inputs[:3], layout, kappa=3, key_bias=inputs[3], enable_gqa=True, backend="torch")
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_only_arguments_are_kept_for_the_backward_pass():
    layout = LAYOUTS["causal"]()
    inputs = [x.requires_grad_() for x in (*tokens_of(layout), some_hidden(layout, dtype=torch.float64))]
    kept = []
    relevant = select_keys(*inputs[:2], layout, kappa=2, enable_gqa=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        torch.ops.gpa_nd.blocked_attend(
            *inputs[:3], relevant, None, inputs[3], layout.fine_cells.tensors(), layout.members.tensors(),
            *layout.positions, layout.always, 0.3, "dot",
        )  # fmt: skip
    given = (*inputs, relevant, *layout.fine_cells.tensors(), *layout.members.tensors(), *layout.positions)
    given = (*given, layout.always)
    assert {x.data_ptr() for x in kept} <= {x.data_ptr() for x in given}


# To a compiler


def everything(**settings):
    cells, down = (GridPartitioner((4, 3)), GridPartitioner((2, 2))), (GridDownsampler((2, 3)),) * 2
    always = [GridNeighbourhood(1), GlobalElements(torch.arange(2))]
    return GPA(cells, down, kappa=(3, 2), causal=(True, False), always=always, backend="torch", **settings)


def test_compiled_without_a_break_and_without_a_difference():
    torch.compiler.reset()
    gpa = everything()
    compiled = torch.compile(gpa, fullgraph=True, backend="aot_eager")
    for shape in ((10, 13), (11, 14)):  # the compiled one is the first to see each
        inputs = [torch.randn(2, 2, *shape, 8, requires_grad=True) for _ in range(3)]
        mask, bias = torch.rand(2, *shape) > 0.2, torch.randn(2, 2, *shape, requires_grad=True)
        results = []
        for run in (compiled, gpa):
            out = run(*inputs, key_mask=mask, key_bias=bias)
            results.append((out, *torch.autograd.grad(out.square().sum(), (*inputs, bias))))
        assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_a_compiled_function_may_close_over_a_layout_that_nobody_used():
    torch.compiler.reset()
    layout = everything().layout((10, 13), (10, 13)).to("cpu")
    q, k, v = torch.randn(3, 2, 2, 130, 8)
    mask = torch.rand(2, 130) > 0.2

    def run(q, k, v):
        return gpa_attention(q, k, v, layout, kappa=(3, 2), key_mask=mask, backend="torch")

    assert torch.compile(run, fullgraph=True, backend="eager")(q, k, v).equal(run(q, k, v))


@pytest.mark.parametrize("strict", [False, True])
def test_exported_saved_and_loaded_it_gives_the_same_for_any_batch(strict):
    gpa, inputs = everything(), list(torch.randn(3, 2, 2, 10, 13, 8))
    mask = {"key_mask": torch.rand(2, 10, 13) > 0.2}
    batch = {0: torch.export.Dim("batch")}
    shapes = {"q": batch, "k": batch, "v": batch, "key_mask": batch}
    file = io.BytesIO()
    torch.export.save(torch.export.export(gpa, tuple(inputs), mask, dynamic_shapes=shapes, strict=strict), file)
    file.seek(0)
    run = torch.export.load(file).module()
    more = [torch.cat([x, x.flip(0), x]) for x in (*inputs, mask["key_mask"])]
    assert run(*more[:3], key_mask=more[3]).equal(gpa(*more[:3], key_mask=more[3]))


def test_pooling_is_an_operator_of_its_own():
    groups = gpa_nd.image(3, 2, 1).layout((7, 8), (7, 8)).query_groups
    x = torch.randn(2, 3, 56, 5)
    torch.library.opcheck(torch.ops.gpa_nd.blocked_pool.default, (x, groups.tensors()))
    line = gpa_nd.audio(4, 2, 1).layout((24,), (24,)).query_groups
    for part, values in ((groups, x), (line, x[:, :, :24]), (line, x.transpose(1, 2)[:, :24].transpose(1, 2))):
        assert (selection.pool(values, part) - part.mean(values)).abs().max() < 1e-6
