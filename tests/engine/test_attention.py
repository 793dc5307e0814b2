"""Phase 2: parity of the fast backend with the reference, gradients included."""

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, attend, select_keys, testing
from gpa_nd.always import GridNeighbourhood


def parity(case, dtype, affinity="dot", logits=False, strided=False, c=8, c_v=5):
    """Results and gradients (fast, plain, exact) with the same indices."""
    layout, flat = case.layout(), case.flat_tokens(batch=8, c=c, c_v=c_v)  # enough for a steady largest error
    flat = [x.to(dtype) for x in flat]
    relevant = select_keys(*flat[:2], layout, kappa=3)
    extra = [torch.randn(relevant.shape).to(dtype)] if logits else []
    weight = torch.randn(*flat[0].shape[:3], flat[2].shape[-1]).to(dtype)

    def run(backend, wide):
        inputs = [(x.to(wide) if wide else x).clone() for x in (*flat, *extra)]
        if strided:  # heads after elements, and every second channel of a tensor full of NaN
            for i, x in enumerate(inputs[:3]):
                room = torch.full((x.shape[0], x.shape[2], x.shape[1], 2 * x.shape[3]), torch.nan, dtype=x.dtype)
                room[..., ::2] = x.transpose(1, 2)
                inputs[i] = room[..., ::2].transpose(1, 2)
        inputs = [x.requires_grad_() for x in inputs]
        added = inputs[3] if logits else None
        out = attend(*inputs[:3], layout, relevant, logits=added, affinity=affinity, backend=backend)
        return [out, *torch.autograd.grad((out * weight.to(out.dtype)).sum(), inputs)]

    return zip(run("torch", None), run("reference", None), run("reference", torch.float64), strict=True)


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_errs_no_more_than_plain_pytorch(case, dtype, affinity):
    for which, (fast, plain, exact) in enumerate(parity(case, dtype, affinity)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_join_the_scores(case, dtype):
    for which, (fast, plain, exact) in enumerate(parity(case, dtype, logits=True)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


def test_strided_inputs_change_nothing(case):
    for which, (fast, plain, exact) in enumerate(parity(case, torch.float32, strided=True)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


@pytest.mark.parametrize(("c", "c_v"), [(1, 1), (3, 16), (16, 3), (7, 7)])
def test_any_number_of_channels(c, c_v, case):
    for which, (fast, plain, exact) in enumerate(parity(case, torch.float32, c=c, c_v=c_v)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


@pytest.mark.parametrize("c", [16, 64, 256])
def test_distances_over_many_channels_lose_nothing(c, case):
    for which, (fast, plain, exact) in enumerate(parity(case, torch.float32, "euclidean", c=c, c_v=c)):
        testing.assert_within_budget(fast, plain, exact, factor=3.0 if which else 2.0)


def test_the_budget_catches_an_error():
    exact = torch.randn(100, dtype=torch.float64)
    plain = exact.float()
    testing.assert_within_budget(plain.clone(), plain, exact)
    with pytest.raises(AssertionError, match="over 2"):
        testing.assert_within_budget(plain + 1e-5, plain, exact)
    with pytest.raises(AssertionError, match="dtypes differ"):
        testing.assert_within_budget(exact, plain, exact)
    with pytest.raises(AssertionError, match="shapes differ"):
        testing.assert_within_budget(plain[:5], plain, exact)


def test_a_logit_of_minus_infinity_removes_a_key(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = torch.randn(3, 1, 1, 12, 4, dtype=torch.float64)
    relevant = select_keys(q, k, layout, kappa=3)
    logits = torch.zeros(relevant.shape, dtype=torch.float64)
    logits[..., 1] = -torch.inf
    out = attend(q, k, v, layout, relevant, logits=logits, backend=backend)
    without = attend(q, k, v, layout, relevant[..., [0, 2]], backend=backend)
    assert (out - without).abs().max() < 1e-12


def test_an_upsampler_may_leave_elements_out(case, backend, every_other):
    gpa = case.make(kappa=10**6, backend=backend)
    sampled = case.make(kappa=10**6, backend=backend, key_upsampler=every_other(gpa.key_downsampler))
    q, k, v = case.tokens()
    out = sampled(q, k, v).flatten(2, -2)
    labels = gpa.key_downsampler.groups(case.key_shape).labels.tolist()
    kept = [i for i, label in enumerate(labels) if labels[:i].count(label) % 2 == 0]
    assert len(kept) < len(labels) or max(map(labels.count, labels)) == 1
    q, k, v = (x.flatten(2, -2) for x in (q, k, v))
    expected = (q @ k[:, :, kept].mT / 8**0.5).softmax(-1) @ v[:, :, kept]
    assert (out - expected).abs().max() < 1e-12


@pytest.mark.parametrize("grad", [False, True])
def test_a_cell_whose_logits_are_all_minus_infinity_attends_to_nothing(backend, grad):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = torch.randn(3, 1, 1, 12, 4).requires_grad_(grad)
    relevant = select_keys(q, k, layout, kappa=2)
    logits = torch.zeros(relevant.shape, requires_grad=grad)
    removed = logits.masked_fill(torch.arange(3)[:, None] == 1, -torch.inf)
    out = attend(q, k, v, layout, relevant, logits=removed, backend=backend)
    assert (out[:, :, 4:8] == 0).all()
    assert (out[:, :, :4] != 0).all()
    if grad:
        assert torch.autograd.grad(out.sum(), logits)[0].isfinite().all()


def test_float32_logits_keep_their_precision_beside_bfloat16():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = torch.randn(3, 1, 1, 12, 4).bfloat16()
    relevant = select_keys(q, k, layout, kappa=3)
    logits = 100 + torch.rand(relevant.shape)  # bfloat16 would round these to halves
    out, plain = (attend(q, k, v, layout, relevant, logits=logits, backend=b) for b in ("torch", "reference"))
    exact = attend(*(x.double() for x in (q, k, v)), layout, relevant, logits=logits.double(), backend="reference")
    testing.assert_within_budget(out, plain, exact)


def test_distances_are_right_far_from_the_origin(case, backend):
    layout, (q, k, v) = case.layout(), case.flat_tokens()
    q, k = ((x + 1000).float() for x in (q, k))
    settings = {"kappa": 2, "affinity": "euclidean"}
    exact = gpa_nd.gpa_attention(q.double(), k.double(), v, layout, backend="reference", **settings)
    out = gpa_nd.gpa_attention(q, k, v.float(), layout, backend=backend, **settings)
    wrong = (out - exact).abs().amax(-1) > 1e-3
    assert wrong.float().mean() < 0.02  # a near tie may fall the other way: pooled numbers of 1000 are rounded to 6e-5


@pytest.mark.skipif(not torch.amp.is_autocast_available("cpu"), reason="needs autocast on the CPU")
def test_autocast_leaves_the_precision_of_the_inputs(case, backend):
    gpa = case.make(kappa=2, backend=backend)
    q, k, v = case.tokens(dtype=torch.float32)
    expected = gpa(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        assert gpa(q, k, v).equal(expected)


def test_skewed_cells_are_not_padded_to_the_largest_in_training(largest_tensor):
    from gpa_nd.ops import GraphDownsampler
    from gpa_nd.partitioners import GraphPartitioner

    n = 2048
    cells = torch.cat([torch.zeros(n // 2, dtype=torch.int64), torch.arange(1, n // 2 + 1)])
    gpa = GPA(GraphPartitioner(cells), GraphDownsampler(torch.arange(n)), kappa=4, backend="torch")
    q, k, v = torch.randn(3, 1, 1, n, 4, requires_grad=True)
    layout = gpa.layout((n,), (n,))
    relevant = select_keys(q, k, layout, kappa=4)
    with largest_tensor() as seen:
        attend(q, k, v, layout, relevant, backend="torch").sum().backward()
    assert seen.numel <= 4 * n * 4 * 4  # padded to the largest cell it would be n²


def test_minus_two_answers_nan_and_minus_one_names_nothing(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k, v = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    relevant = torch.tensor([[[[0, -1], [-2, -2], [-1, -1]]]])
    out = attend(q, k, v, layout, relevant, backend=backend)
    assert (out[:, :, :2] - (q[:, :, :2] @ k[:, :, :2].mT / 2).softmax(-1) @ v[:, :, :2]).abs().max() < 1e-12
    assert out[:, :, 2:4].isnan().all()
    assert (out[:, :, 4:] == 0).all()
    assert (attend(q, k, v, layout, relevant[..., :0], backend=backend) == 0).all()


def test_minus_two_answers_nan_also_where_there_is_a_single_coarse_key(backend):
    layout = gpa_nd.audio(downsample=4, cells=1, kappa=1).layout((4,), (4,))
    q, k, v = torch.randn(3, 2, 1, 4, 3, dtype=torch.float64)
    relevant = torch.tensor([[[[-2]]], [[[0]]]])
    out = attend(q, k, v, layout, relevant, backend=backend)
    assert out[0].isnan().all()
    torch.testing.assert_close(out[1], (q[1] @ k[1].mT / 3**0.5).softmax(-1) @ v[1])


def test_a_cell_that_is_nan_sends_no_gradient_to_keys(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k, v = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    q[:, :, 2] = torch.nan
    inputs = [x.requires_grad_() for x in (q, k, v)]
    relevant = torch.tensor([[[[0, 1], [-2, -2], [1, -1]]]])
    out = attend(*inputs, layout, relevant, backend=backend)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.nansum(), inputs)[1:])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_cell_without_keys_answers_zeros_whatever_the_first_key_holds(backend, bad):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k, v = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    k[:, :, 0] = v[:, :, 0] = bad
    relevant = torch.tensor([[[[1, 2], [-1, -1], [2, -1]]]])
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = attend(*inputs, layout, relevant, backend=backend)
    assert (out[:, :, 2:4] == 0).all()
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), inputs))


def test_gradients_of_distances_are_right_far_from_the_origin():
    layout = gpa_nd.audio(downsample=4, cells=3, kappa=1).layout((30,), (30,))
    q, k, v = torch.randn(3, 2, 2, 30, 8)
    q, k = q + 1000, k + 1000
    relevant = select_keys(q, k, layout, kappa=3)

    def run(backend, dtype):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = attend(*inputs, layout, relevant, affinity="euclidean", backend=backend)
        return torch.autograd.grad(out.square().sum(), inputs)

    three = run("torch", torch.float32), run("reference", torch.float32), run("reference", torch.float64)
    for fast, plain, exact in zip(*three, strict=True):
        testing.assert_within_budget(fast, plain, exact, factor=3.0)


@pytest.mark.parametrize("shape", [(0, 2, 12), (2, 0, 12)])
def test_an_empty_batch_gives_an_empty_result(shape, backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = (torch.randn(*shape, c) for c in (4, 4, 3))
    relevant = select_keys(q, k, layout, kappa=2, backend=backend)
    assert relevant.shape == (*shape[:2], 3, 2)
    assert attend(q, k, v, layout, relevant, backend=backend).shape == (*shape, 3)
    assert gpa_nd.gpa_attention(q, k, v, layout, kappa=9).shape == (*shape, 3)


def test_an_empty_batch_takes_part_in_training(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    inputs = [torch.randn(0, 1, 12, c, requires_grad=True) for c in (4, 4, 3)]
    gpa_nd.gpa_attention(*inputs, layout, kappa=2, backend=backend).sum().backward()
    assert all(x.grad.shape == x.shape for x in inputs)


def test_logits_of_an_empty_batch_take_part_in_training(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = torch.randn(3, 0, 1, 12, 4)
    logits = torch.zeros(0, 1, 3, 2, requires_grad=True)
    attend(q, k, v, layout, logits.detach().long(), logits=logits, backend=backend).sum().backward()
    assert logits.grad.shape == logits.shape


def test_logits_of_no_keys_at_all(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    inputs = [torch.randn(1, 1, 12, 4, requires_grad=True) for _ in range(3)]
    logits = torch.zeros(1, 1, 3, 0, requires_grad=True)
    out = attend(*inputs, layout, logits.detach().long(), logits=logits, backend=backend)
    assert (out == 0).all()
    out.sum().backward()
    assert logits.grad.shape == logits.shape
    assert all((x.grad == 0).all() for x in inputs)


def test_an_empty_batch_does_not_hide_that_a_backend_cannot_run():
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = torch.randn(3, 0, 1, 12, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="'triton' cannot run: it computes float16, bfloat16 and float32"):
        gpa_nd.gpa_attention(q, k, v, layout, kappa=2, backend="triton")


def test_no_queries_give_an_empty_result(backend):
    gpa = gpa_nd.image(downsample=2, cells=2, kappa=1, backend=backend)
    k = torch.randn(1, 1, 4, 4, 3)
    assert gpa(torch.randn(1, 1, 0, 4, 3), k, k).shape == (1, 1, 0, 4, 3)


@pytest.mark.parametrize("kappa", [1, 99, (1, 1)])
@pytest.mark.parametrize("always", [(), (GridNeighbourhood(2),)])
def test_no_keys_give_zeros_and_zero_gradients(kappa, always, backend):
    gpa = gpa_nd.image(2, 2, kappa, always=always, backend=backend)
    q = torch.randn(1, 2, 5, 4, 3).index_fill(2, torch.tensor([1]), torch.nan).requires_grad_()
    k, v = (torch.randn(1, 2, 0, 4, c, requires_grad=True) for c in (3, 5))
    bias = torch.zeros(1, 2, 0, 4, requires_grad=True)
    out = gpa(q, k, v, key_mask=torch.ones(1, 0, 4, dtype=torch.bool), key_bias=bias)
    assert out.equal(torch.zeros(1, 2, 5, 4, 5))
    for x, grad in zip((q, k, v, bias), torch.autograd.grad(out.sum(), (q, k, v, bias)), strict=True):
        assert grad.equal(torch.zeros_like(x))
    packed = gpa.packed(*(x.flatten(2, 3) for x in (q, k, v)), [(2, 4), (3, 4)], [(0, 4), (0, 4)])
    assert packed.equal(torch.zeros(1, 2, 20, 5))


def test_an_image_looks_at_audio_with_gradients_everywhere(backend):
    from gpa_nd.ops import GridDownsampler
    from gpa_nd.partitioners import GridPartitioner

    gpa = GPA(GridPartitioner(2), GridDownsampler(4), key_downsampler=GridDownsampler(16), kappa=3, backend=backend)
    q = torch.randn(1, 2, 12, 16, 8, requires_grad=True)
    k, v = (torch.randn(1, 2, 200, 8, requires_grad=True) for _ in range(2))
    out = gpa(q, k, v)
    assert out.shape == q.shape
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(out.square().sum(), (q, k, v)))
