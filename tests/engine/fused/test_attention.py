"""Phase 2 in Triton's interpreter (or on a GPU): parity with the reference, gradients included."""

import math
import sys
from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, Layout, Partition, select_keys, testing
from gpa_nd.engine import reference
from gpa_nd.ops import GraphDownsampler
from gpa_nd.partitioners import GraphPartitioner
from tests.conftest import CASES

pytest.importorskip("triton")
from gpa_nd.engine.fused import attention, call, gradients
from gpa_nd.engine.fused.attention_settings import parts_of
from gpa_nd.engine.fused.launch import interpreted
from gpa_nd.engine.fused.lists import turned_round
from gpa_nd.engine.fused.tables import owners, slots_of
from tests.engine.fused.reserved import room

DEVICE = "cpu" if interpreted() else "cuda"
pytestmark = [
    pytest.mark.skipif(not interpreted() and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a GPU"),
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # numpy, under the interpreter
]
HALF = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def audio(n=23, downsample=4, cells=4) -> Layout:
    return gpa_nd.audio(downsample=downsample, cells=cells, kappa=1).layout((n,), (n,), DEVICE)


def tokens(layout, dtype=torch.float32, heads=2, key_heads=None, c=16, c_v=16, batch=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    n_q, n_k = layout.query_groups.num_elements, layout.key_groups.num_elements
    shapes = ((heads, n_q, c), (key_heads or heads, n_k, c), (key_heads or heads, n_k, c_v))
    return [torch.randn(batch, *shape, generator=rng, dtype=torch.float64).to(dtype).to(DEVICE) for shape in shapes]


def some_keys(layout, q, kappa=3, seed=0):
    """Distinct coarse keys for every cell, in no order."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.rand(*q.shape[:2], len(layout.query_cells), len(layout.key_groups), generator=rng)
    return weights.topk(min(kappa, weights.shape[-1])).indices.to(DEVICE)


def run(attend, inputs, wide=None):
    """The result and the gradients of all inputs, for one random gradient of the result."""
    inputs = [(x.to(wide) if wide else x).detach() for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    out = attend(*inputs)
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(out.shape, generator=rng, dtype=torch.float64).to(inputs[0].device)
    weight = weight.to(torch.bfloat16).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


def placed(layout, positions):
    """The layout, in which queries and keys stand at these positions."""
    return replace(layout, positions=positions)


def assert_parity(layout, q, k, v, relevant, logits=None, bias=None, scale=None):
    """Result and gradients err no more than plain PyTorch does."""
    extras = {name: x for name, x in (("logits", logits), ("bias", bias)) if x is not None}
    inputs = [q, k, v, *extras.values()]
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def given(more):
        named = dict(zip(extras, more, strict=True))
        return named.get("logits"), named.get("bias")

    def fused(q, k, v, *more):
        return attention.attend(q, k, v, layout, relevant, *given(more), scale)

    def plain(q, k, v, *more):
        return reference.attend(q, k, v, layout, relevant, *given(more), scale, "dot")

    three = zip(run(fused, inputs), run(plain, inputs), run(plain, inputs, torch.float64), strict=True)
    for which, (fast, slow, exact) in enumerate(three):
        assert fast.isfinite().all()
        testing.assert_within_budget(fast, slow, exact, factor=3.0 if which else 2.0)


# Parity ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits", [False, True], ids=["", "logits"])
@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, torch.float32 if i % 2 else HALF[i // 2 % 2]) for i, case in enumerate(CASES)],  # all would take minutes
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_errs_no_more_than_plain_pytorch(case, dtype, logits):
    layout = case.layout().to(DEVICE)
    q, k, v = tokens(layout, dtype, c=17, c_v=24)
    relevant = select_keys(q, k, layout, kappa=3, backend="reference")
    added = torch.randn(relevant.shape, device=DEVICE) if logits else None
    assert_parity(layout, q, k, v, relevant, added)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("c", "c_v"), [(1, 3), (3, 3), (16, 80), (17, 96), (24, 16), (80, 17), (96, 24), (200, 256), (256, 200)]
)
def test_any_number_of_channels(c, c_v, dtype):
    layout = audio()
    q, k, v = tokens(layout, dtype, c=c, c_v=c_v, batch=1 if c > 3 else 6)  # enough numbers for a steady largest error
    assert_parity(layout, q, k, v, some_keys(layout, q))


@pytest.mark.parametrize("key_heads", [1, 2])
def test_query_heads_share_key_heads(key_heads):
    layout = audio()
    q, k, v = tokens(layout, heads=4, key_heads=key_heads, batch=2)
    relevant = some_keys(layout, q)
    assert_parity(layout, q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


@pytest.mark.parametrize("groups", ["equal", "ragged"])
def test_an_element_is_seen_from_its_position_on(groups):
    layout = audio(24, 4, 3) if groups == "equal" else audio()
    q, k, v = tokens(layout)
    positions = tuple(torch.randint(-5, 5, (len(x),), device=DEVICE) + 2**40 for x in (q[0, 0], k[0, 0]))
    relevant = some_keys(layout, q)
    assert_parity(placed(layout, positions), q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


def test_strided_inputs_change_nothing():
    layout = audio()
    q, k, v = tokens(layout, c=17)
    relevant = some_keys(layout, q)

    def apart(x, step):  # heads after elements, in a tensor full of NaN
        room = torch.full((x.shape[0], 2 * x.shape[2], x.shape[1], step * x.shape[3] + 3), math.nan, device=x.device)
        room[:, ::2, :, : step * x.shape[3] : step] = x.transpose(1, 2)
        return room[:, ::2, :, : step * x.shape[3] : step].transpose(1, 2)

    def fused(q, k, v):
        return attention.attend(q, k, v, layout, relevant, None, None, 0.2)

    expected = run(fused, (q, k, v))
    for step in (1, 2):
        strided = [apart(x, step) for x in (q, k, v)]
        assert all(a.equal(b) for a, b in zip(run(fused, strided), expected, strict=True))


def test_a_gradient_of_any_strides_is_read_right():
    layout = audio()
    q, k, v = (x.requires_grad_() for x in tokens(layout))
    out = attention.attend(q, k, v, layout, some_keys(layout, q), None, None, 0.25)
    ones = torch.autograd.grad(out, (q, k, v), torch.ones_like(out), retain_graph=True)
    expanded = torch.autograd.grad(out, (q, k, v), torch.ones((), device=DEVICE).expand(out.shape), retain_graph=True)
    turned = torch.ones(out.shape[::-1], device=DEVICE).permute(3, 2, 1, 0)
    permuted = torch.autograd.grad(out, (q, k, v), turned)
    assert all(a.equal(b) and a.equal(c) for a, b, c in zip(ones, expanded, permuted, strict=True))


@pytest.mark.parametrize("mean", [4, 64])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_what_is_rounded_off_the_result_reaches_the_gradients(dtype, mean):
    layout = audio()
    q, k, v = tokens(layout, dtype)
    assert_parity(layout, q, k, v + mean, some_keys(layout, q))


@pytest.mark.parametrize("scale", [0.0, -0.3, 0.5])
def test_any_scale(scale):
    layout = audio()
    q, k, v = tokens(layout)
    assert_parity(layout, q, k, v, some_keys(layout, q), scale=scale)


def test_large_scores_lose_nothing_in_the_log_sum_exp():
    layout = audio()
    q, k, v = tokens(layout)
    q, k = (10 * q).round(), k.round()  # exact products: the interpreter adds up a transposed one in another order
    assert_parity(layout, q, k, v, some_keys(layout, q), scale=0.9)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that takes no room until it is touched")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_numbers_past_two_to_the_31_are_reached(which):
    layout = audio(6, 2, 3)
    inputs = tokens(layout, torch.bfloat16)
    relevant = some_keys(layout, inputs[0], 2)

    def fused(q, k, v):
        return attention.attend(q, k, v, layout, relevant, None, None, 0.25)

    expected = run(fused, inputs)
    far = room(5 * 2**29 + 32, DEVICE).as_strided(inputs[which].shape, (0, 16, 2**29, 1))
    inputs[which] = far.copy_(inputs[which])
    assert all(a.equal(b) for a, b in zip(run(fused, inputs), expected, strict=True))


def test_offsets_have_64_bits_where_a_tensor_needs_them():
    assert call.reach(torch.empty(9, 1, 2**24, 128, device="meta")) == 2**31
    assert call.reach(torch.empty(9, 1, 2**24, 127, device="meta")) < 2**31
    assert call.reach(torch.empty(1, 2**20, 16, 128, device="meta").transpose(1, 2)) == 2**31


# Which keys -----------------------------------------------------------------------------------------------------------


def skewed() -> Layout:
    """One group and one cell with most of the elements, and many of one."""
    groups = torch.cat([torch.zeros(70, dtype=torch.int64), torch.arange(1, 40)]).flip(0)
    cells = torch.cat([torch.arange(1, 10), torch.zeros(31, dtype=torch.int64)])
    gpa = GPA(GraphPartitioner(cells), GraphDownsampler(groups), kappa=1)
    return gpa.layout((len(groups),), (len(groups),), DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_groups_and_cells_of_very_different_sizes(dtype):
    layout = skewed()
    q, k, v = tokens(layout, dtype)
    relevant = some_keys(layout, q, kappa=5)
    assert_parity(layout, q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


@pytest.mark.parametrize("kappa", [1, 33, 40])
def test_lists_longer_than_a_block(kappa):
    layout = skewed()
    q, k, v = tokens(layout, heads=1)
    relevant = some_keys(layout, q, kappa)
    relevant[..., ::7] = -1
    assert_parity(layout, q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


@pytest.mark.parametrize("kappa", [33, 40])
def test_lists_longer_than_a_block_of_equal_groups(kappa):
    layout = audio(80, 2, 5)
    q, k, v = tokens(layout, heads=1)
    relevant = some_keys(layout, q, kappa)
    relevant[..., ::7] = -1
    assert_parity(layout, q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


@pytest.mark.parametrize("make", [lambda: audio(96, 2, 24), lambda: audio(95, 2, 24), skewed])
@pytest.mark.parametrize("per_slot", [1, 3, 16])
def test_a_key_that_every_cell_chose_is_shared_out(make, per_slot, monkeypatch):
    monkeypatch.setattr(gradients, "entries_per_slot", lambda *sizes: per_slot)
    layout = make()
    q, k, v = tokens(layout, heads=2, key_heads=1)
    giant = int(layout.members.sizes.argmax())
    relevant = some_keys(layout, q, kappa=3)
    relevant[..., 0] = giant
    relevant[..., 1:][relevant[..., 1:] == giant] = -1
    assert_parity(layout, q, k, v, relevant, torch.randn(relevant.shape, device=DEVICE))


def test_split_lists_of_neighbours_and_of_other_heads_do_not_mix(monkeypatch):
    monkeypatch.setattr(gradients, "entries_per_slot", lambda *sizes: 3)
    layout = audio()
    q, k, v = tokens(layout, batch=2)
    assert_parity(layout, q, k, v, some_keys(layout, q, kappa=6))  # all keys by all four cells: two parts each


@pytest.mark.parametrize("groups", [1, 3, 960, 4096])
@pytest.mark.parametrize("cell", [1, 30, 64, 4096])
def test_the_parts_of_split_lists_take_no_more_room_than_the_gradients(cell, groups):
    for length in (1, 40, 5000, 98304, 10**7):
        assert 2 * length // gradients.entries_per_slot(cell, length, groups) <= groups


def test_more_than_32_bits_can_count_is_refused():
    few, many = torch.empty(1, 4, 8, 16, device="meta"), torch.empty(1, 1, 2**31, 16, device="meta")
    relevant = torch.empty(1, 4, 2**20, 512, device="meta", dtype=torch.int64)
    call.check_reach(few, many[:, :, 1:], relevant[:, :, 1:])
    with pytest.raises(ValueError, match="fewer than 2³¹ of each, got 2147483648 keys"):
        call.check_reach(few, many, relevant[:, :, 1:])
    with pytest.raises(ValueError, match="got 2147483648 selected keys of a head"):
        call.check_reach(few, many[:, :, 1:], relevant)
    with pytest.raises(ValueError, match="got 2147483648 queries"):
        call.check_reach(many, many[:, :, 1:], relevant[:, :1, 1:])


def test_a_coarse_key_may_be_named_twice():
    layout = audio()
    q, k, v = tokens(layout)
    assert_parity(layout, q, k, v, torch.full((1, 2, 4, 3), 2, device=DEVICE))


def test_keys_that_nobody_chose_have_no_gradient():
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout)
    relevant = torch.tensor([0, 3, -1], device=DEVICE).expand(1, 2, 3, 3)
    _, _, dk, dv = run(lambda q, k, v: attention.attend(q, k, v, layout, relevant, None, None, 0.25), (q, k, v))
    chosen = torch.isin(torch.arange(24) // 4, torch.tensor([0, 3])).to(DEVICE)
    for grad in (dk, dv):
        assert (grad[:, :, ~chosen] == 0).all()
        assert (grad[:, :, chosen] != 0).all()


def test_members_may_leave_elements_out(every_other):
    for shape in ((24,), (23,)):
        gpa = gpa_nd.audio(downsample=4, cells=3, kappa=1)
        gpa = GPA(gpa.partitioner, gpa.downsampler, key_upsampler=every_other(gpa.downsampler), kappa=1)
        layout = gpa.layout(shape, shape, DEVICE)
        q, k, v = tokens(layout)
        assert_parity(layout, q, k, v, some_keys(layout, q))


@pytest.mark.parametrize("nothing", [lambda x: torch.full_like(x, -1), lambda x: x[..., :0]], ids=["-1", "kappa=0"])
def test_cells_without_keys_answer_zeros_and_send_no_gradient(nothing):
    layout = audio()
    q, k, v = tokens(layout)
    relevant = nothing(some_keys(layout, q))
    logits = torch.zeros(relevant.shape, device=DEVICE)
    results = run(lambda *x: attention.attend(*x[:3], layout, relevant, x[3], None, 0.25), (q, k, v, logits))
    assert all((x == 0).all() for x in results)


def test_one_minus_two_anywhere_in_a_long_list_spoils_its_cell():
    layout = audio(80, 2, 5)
    q, k, v = tokens(layout, heads=1)
    relevant = some_keys(layout, q, 40)
    relevant[:, :, 1, 37] = -2
    out, dq, *_ = run(lambda q, k, v: attention.attend(q, k, v, layout, relevant, None, None, 0.25), (q, k, v))
    cell = layout.fine_cells.labels == 1
    assert out.isnan().all(-1).equal(cell.expand(1, 1, 80))
    assert (dq == 0).all(-1).equal(cell.expand(1, 1, 80))


@pytest.mark.parametrize("c", [16, 80])
def test_minus_two_answers_nan_also_where_there_is_a_single_coarse_key(c):
    layout = audio(4, 4, 1)
    q, k, v = tokens(layout, heads=1, batch=2, c=c, c_v=c)
    relevant = torch.tensor([[[[-2]]], [[[0]]]], device=DEVICE)
    out = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    expected = reference.attend(q, k, v, layout, relevant, None, None, 0.25, "dot")
    assert out[0].isnan().all()
    torch.testing.assert_close(out, expected, equal_nan=True)


def test_minus_two_answers_nan_and_sends_no_gradient():
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout)
    q[:, :, 8] = math.nan
    spoilt, without = some_keys(layout, q), some_keys(layout, q)
    spoilt[:, :, 1, 2] = -2
    without[:, :, 1] = -1
    logits = torch.randn(spoilt.shape, device=DEVICE)
    cell = layout.fine_cells.labels == 1

    def results(relevant):
        return run(lambda *x: attention.attend(*x[:3], layout, relevant, x[3], None, 0.25), (q, k, v, logits))

    (out, *grads), (expected, *expected_grads) = results(spoilt), results(without)
    assert out[:, :, cell].isnan().all()
    assert out[:, :, ~cell].equal(expected[:, :, ~cell])
    assert all(a.equal(b) for a, b in zip(grads, expected_grads, strict=True))
    assert (grads[0][:, :, cell] == 0).all()
    assert (grads[3][:, :, 1] == 0).all()


# What is not finite ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("size", "c"), [(23, 16), (24, 160)])
def test_hidden_keys_and_values_do_not_leak(size, c, value):
    layout = audio(size, 4, 3)
    q, k, v = tokens(layout, c=c, c_v=c)
    layout = placed(layout, (torch.arange(size, device=DEVICE), torch.arange(size, device=DEVICE)))
    relevant = some_keys(layout, q)
    spoilt_k, spoilt_v = k.clone(), v.clone()
    spoilt_k[:, :, -3:], spoilt_v[:, :, -3:] = value, value

    def results(k, v):
        def fused(q, k, v):
            out = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
            return out.masked_fill((torch.arange(size, device=DEVICE) >= size - 3)[:, None], 0)

        return run(fused, (q, k, v))

    (out, dq, _, _), (expected, expected_dq, _, _) = results(spoilt_k, spoilt_v), results(k, v)
    assert out.equal(expected)
    assert dq[:, :, :-3].equal(expected_dq[:, :, :-3])


@pytest.mark.parametrize("channel", [3, 157])  # of the first part of the channels, of the second
def test_a_value_that_is_not_finite_reaches_those_that_see_its_key(channel):
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout, c_v=160)
    layout = placed(layout, (torch.arange(24, device=DEVICE), torch.arange(24, device=DEVICE)))
    relevant = torch.arange(6, device=DEVICE).expand(1, 2, 3, 6)
    v[:, :, 10, channel] = math.nan
    out = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    expected = torch.ones(24, 160, dtype=torch.bool, device=DEVICE)
    expected[10:, channel] = False
    assert out.isfinite().equal(expected.expand(1, 2, 24, 160))


@pytest.mark.parametrize("c", [16, 160])
def test_a_query_that_is_not_finite_sends_no_gradient_to_keys_that_it_does_not_see(c):
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout, c=c)
    q[:, :, 5] = math.nan
    layout = placed(layout, (torch.arange(24, device=DEVICE),) * 2)
    relevant = torch.arange(6, device=DEVICE).expand(1, 2, 3, 6)
    _, _, *grads = run(lambda *x: attention.attend(*x, layout, relevant, None, None, 0.25), (q, k, v))
    for grad in grads:
        assert grad.isfinite().all(-1).equal((torch.arange(24, device=DEVICE) > 5).expand(1, 2, 24))


@pytest.mark.parametrize("c", [16, 160])
def test_a_gradient_that_is_not_finite_reaches_the_keys_that_its_query_sees(c):
    layout = audio(24, 4, 3)
    inputs = [x.requires_grad_() for x in tokens(layout, c=c, c_v=c)]
    layout = placed(layout, (torch.arange(24, device=DEVICE),) * 2)
    relevant = torch.arange(6, device=DEVICE).expand(1, 2, 3, 6)
    out = attention.attend(*inputs, layout, relevant, None, None, 0.25)
    gradient = torch.ones_like(out)
    gradient[:, :, 5, c - 1] = math.nan
    dq, dk, dv = torch.autograd.grad(out, inputs, gradient)
    here = torch.arange(24, device=DEVICE)
    assert dq.isfinite().all(-1).equal((here != 5).expand(1, 2, 24))
    assert all(x.isfinite().all(-1).equal((here > 5).expand(1, 2, 24)) for x in (dk, dv))


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_query_that_is_not_finite_spoils_its_own_row(value, positions):
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout)
    k = k.abs() + 0.1  # all scores of the row are the same infinity
    layout = placed(layout, (torch.ones(24, dtype=torch.int64, device=DEVICE),) * 2 if positions else None)
    relevant = some_keys(layout, q)
    expected = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    q[0, 0, 5, 2] = value
    out = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    assert out[0, 0, 5].isnan().all()
    out[0, 0, 5] = expected[0, 0, 5]
    assert out.equal(expected)


def test_padding_does_not_leak():
    """A cell's own columns end within a tile: what other cells' keys hold there must not matter."""
    layout = audio()
    q, k, v = tokens(layout)
    relevant = torch.tensor([1, -1, 4], device=DEVICE).expand(1, 2, 4, 3)
    expected = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    other = ~torch.isin(layout.members.labels, torch.tensor([1, 4], device=DEVICE))
    k[:, :, other], v[:, :, other] = math.nan, math.inf
    assert attention.attend(q, k, v, layout, relevant, None, None, 0.25).equal(expected)


# The operators --------------------------------------------------------------------------------------------------------


def operands(layout, q, k, v, relevant, logits=None, bias=None):
    cells, members = layout.fine_cells, layout.members
    tables = (cells.order, cells.offsets, members.order, members.offsets, cells.largest, members.largest)
    return q, k, v, relevant, logits, bias, *(layout.positions or (None, None)), *tables, 0.25


@pytest.mark.parametrize("full", [False, True])
def test_opcheck(full):
    layout = audio()
    q, k, v = (x.requires_grad_() for x in tokens(layout))
    relevant = some_keys(layout, q)
    logits = torch.randn(relevant.shape, device=DEVICE).requires_grad_() if full else None
    bias = torch.randn(1, 2, 23, device=DEVICE).requires_grad_() if full else None
    layout = placed(layout, (torch.arange(23, device=DEVICE),) * 2 if full else None)
    inputs = operands(layout, q, k, v, relevant, logits, bias)
    torch.library.opcheck(torch.ops.gpa_nd.fused_attend.default, inputs)
    with torch.no_grad():
        results = attention.fused_attend(*inputs)
        inputs = [x.detach() if isinstance(x, torch.Tensor) else x for x in inputs]
        backward = (torch.randn_like(results[0]), *inputs[:3], *results, *inputs[3:], full)
        torch.library.opcheck(torch.ops.gpa_nd.fused_attend_backward.default, backward)


def test_the_log_sum_exp_is_in_base_2_and_minus_infinity_where_nothing_is_seen():
    layout = audio(24, 4, 3)
    q, k, v = tokens(layout, heads=1)
    relevant = torch.tensor([[0, 2], [-1, -1], [-2, -2]], device=DEVICE)[None, None]
    lse = attention.fused_attend(*operands(layout, q, k, v, relevant))[1].sum(0)
    keys = [*range(4), *range(8, 12)]
    expected = (q[0, 0, :8] @ k[0, 0, keys].mT * 0.25).logsumexp(-1) / math.log(2)
    assert (lse[0, 0, :8] - expected).abs().max() < 1e-5
    assert (lse[0, 0, 8:16] == -math.inf).all()
    assert lse[0, 0, 16:].isnan().all()


def test_compiles_into_one_graph():
    layout = audio()
    layout.fine_cells.largest, layout.members.largest  # noqa: B018  made here once, as GPA does
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q)

    def fused(q, k, v):
        return attention.attend(q, k, v, layout, relevant, None, None, 0.25) * 2

    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert all(a.equal(b) for a, b in zip(run(compiled, (q, k, v)), run(fused, (q, k, v)), strict=True))


def test_second_derivatives_are_refused():
    layout = audio()
    q, k, v = (x.requires_grad_() for x in tokens(layout))
    out = attention.attend(q, k, v, layout, some_keys(layout, q), None, None, 0.25)
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="backend='reference'"):
        grad.sum().backward()


def test_autocast_leaves_it_alone():
    layout = audio()
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q)
    expected = attention.attend(q, k, v, layout, relevant, None, None, 0.25)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert attention.attend(q, k, v, layout, relevant, None, None, 0.25).equal(expected)


def test_repeats_agree_bit_for_bit():
    layout = skewed()
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q)
    logits = torch.randn(relevant.shape, device=DEVICE)

    def repeat():
        return run(lambda *x: attention.attend(*x[:3], layout, relevant, x[3], None, 0.25), (q, k, v, logits))

    first = repeat()
    assert all(a.equal(b) for _ in range(3 if DEVICE == "cpu" else 50) for a, b in zip(repeat(), first, strict=True))


# Tables and lists -----------------------------------------------------------------------------------------------------


def test_lists_say_which_cells_chose_a_key():
    relevant = torch.randint(-1, 6, (2, 4, 5, 3), device=DEVICE)
    relevant[1, 2, 3, 0] = -2
    lists = turned_round(relevant, 6, key_heads=2)
    names = relevant.masked_fill((relevant == -2).any(-1, keepdim=True), -1).view(4, -1)
    assert lists.length == names.shape[1] == 30
    for head in range(4):
        for key in range(6):
            start, stop = lists.offsets[head, key : key + 2].tolist()
            own = (lists.entries[start:stop] - 30 * head).tolist()
            assert own == (names[head] == key).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("uniform", [False, True])
def test_every_share_of_every_tile_has_a_slot_and_room(uniform, seed):
    rng = torch.Generator().manual_seed(seed)
    count, rows, heads = 13, 16, 2
    sizes = torch.full((count,), 5 + 9 * seed) if uniform else torch.randint(1, 90, (count,), generator=rng)
    part = Partition.from_labels(torch.arange(count).repeat_interleave(sizes)).to(DEVICE)
    length, per_slot = 200, int(torch.randint(1, 40, (), generator=rng))
    names = torch.randint(0, count + 1, (heads, length), generator=rng).clamp(min=3 * seed).clamp(max=count)
    lengths = torch.stack([torch.bincount(x, minlength=count + 1)[:count] for x in names])
    lists = torch.cat([torch.zeros(heads, 1, dtype=torch.int64), lengths.cumsum(1)], 1)
    lists += torch.arange(heads)[:, None] * length
    table = owners(part.offsets, part.num_elements, part.largest, rows, lists.to(DEVICE), length, per_slot).cpu()
    assert table.shape == (heads, slots_of(count, part.num_elements, part.largest, rows, length, per_slot))
    for head in range(heads):
        room = 0
        for group in range(count):
            tiles = -(-int(sizes[group]) // rows)
            shares = max(1, -(-int(lengths[head, group]) // (tiles * per_slot)))
            assert (table[head] == group).sum() >= tiles * shares
            first = 2 * int(lists[head, group] - head * length) // per_slot
            if shares > 1:
                assert first >= room
                room = first + tiles * shares
        assert room <= 2 * length // per_slot


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("channels", [*range(16, 257, 7), 256])
def test_two_powers_of_two_hold_all_channels(channels, rows):
    first, second = parts_of(channels, rows)
    assert channels <= first + second < 2 * channels
    assert first.bit_count() == 1
    assert second.bit_count() <= 1
    assert second == 0 or second >= (16 if rows == 64 else 64)
