"""Phase 2: parity of the fast backend with the reference, gradients included."""

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, attend, select_keys, testing


def parity(case, dtype, affinity="dot", logits=False, strided=False, c=8, c_v=5):
    """Results and gradients (fast, plain, exact) with the same indices."""
    layout, flat = case.layout(), case.flat_tokens(c=c, c_v=c_v)
    flat = [x.to(dtype) for x in flat]
    relevant = select_keys(*flat[:2], layout, kappa=3)
    extra = [torch.randn(relevant.shape).to(dtype)] if logits else []
    weight = torch.randn(*flat[0].shape[:3], flat[2].shape[-1]).to(dtype)

    def run(backend, wide):
        inputs = [(x.to(wide) if wide else x).clone() for x in (*flat, *extra)]
        if strided:  # heads behind elements, and every second channel of a tensor full of NaN
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
    kept = sampled.layout(case.query_shape, case.key_shape).members.order.sort().values
    q, k, v = (x.flatten(2, -2) for x in (q, k, v))
    expected = (q @ k[:, :, kept].mT / 8**0.5).softmax(-1) @ v[:, :, kept]
    assert (out - expected).abs().max() < 1e-12


def test_minus_two_answers_nan_and_minus_one_names_nothing(backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((6,), (6,))
    q, k, v = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    relevant = torch.tensor([[[[0, -1], [-2, -2], [-1, -1]]]])
    out = attend(q, k, v, layout, relevant, backend=backend)
    assert (out[:, :, :2] - (q[:, :, :2] @ k[:, :, :2].mT / 2).softmax(-1) @ v[:, :, :2]).abs().max() < 1e-12
    assert out[:, :, 2:4].isnan().all()
    assert (out[:, :, 4:] == 0).all()
    assert (attend(q, k, v, layout, relevant[..., :0], backend=backend) == 0).all()


@pytest.mark.parametrize("shape", [(0, 2, 12), (2, 0, 12)])
def test_an_empty_batch_gives_an_empty_result(shape, backend):
    layout = gpa_nd.audio(downsample=2, cells=3, kappa=1).layout((12,), (12,))
    q, k, v = (torch.randn(*shape, c) for c in (4, 4, 3))
    relevant = select_keys(q, k, layout, kappa=2, backend=backend)
    assert relevant.shape == (*shape[:2], 3, 2)
    assert attend(q, k, v, layout, relevant, backend=backend).shape == (*shape, 3)
    assert gpa_nd.gpa_attention(q, k, v, layout, kappa=9).shape == (*shape, 3)


def test_no_queries_give_an_empty_result(backend):
    gpa = gpa_nd.image(downsample=2, cells=2, kappa=1, backend=backend)
    k = torch.randn(1, 1, 4, 4, 3)
    assert gpa(torch.randn(1, 1, 0, 4, 3), k, k).shape == (1, 1, 0, 4, 3)


def test_an_image_looks_at_audio_with_gradients_everywhere(backend):
    from gpa_nd.ops import GridDownsampler
    from gpa_nd.partitioners import GridPartitioner

    gpa = GPA(GridPartitioner(2), GridDownsampler(4), key_downsampler=GridDownsampler(16), kappa=3, backend=backend)
    q = torch.randn(1, 2, 12, 16, 8, requires_grad=True)
    k, v = (torch.randn(1, 2, 200, 8, requires_grad=True) for _ in range(2))
    out = gpa(q, k, v)
    assert out.shape == q.shape
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(out.square().sum(), (q, k, v)))
