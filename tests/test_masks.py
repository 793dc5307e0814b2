"""Key masks, key biases, and queries that see nothing."""

import pytest
import torch

import gpa_nd
from gpa_nd import select_keys


def tokens(*shape, requires_grad=False):
    return tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad) for _ in range(3))


def test_masked_keys_do_not_enter_the_means(backend):
    """The planted group's only visible key carries its code; its masked ones would drown it."""
    layout = gpa_nd.audio(4, 2, 1).layout((16,), (16,))
    codes = 40 * torch.eye(4, dtype=torch.float64)
    k = codes.repeat_interleave(4, 0)
    k[4:7], k[8:11] = -400, 400
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 4:7] = mask[0, 8:11] = False
    q = codes[[1, 2]].repeat_interleave(8, 0)
    relevant = select_keys(q[None, None], k[None, None], layout, kappa=1, key_mask=mask, backend=backend)
    assert relevant.flatten().tolist() == [1, 2]


def test_a_group_without_a_visible_key_takes_no_place(backend):
    layout = gpa_nd.audio(4, 2, 1).layout((16,), (16,))
    q, k, _ = tokens(1, 1, 16, 3)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 4:12] = False
    relevant = select_keys(q, k, layout, kappa=3, key_mask=mask, backend=backend)
    assert relevant[..., :2].sort().values.equal(torch.tensor([0, 3]).expand(1, 1, 2, 2))
    assert (relevant[..., 2] == -1).all()


def test_what_is_masked_may_be_anything(backend):
    gpa = gpa_nd.image(2, (2, 3), 2, backend=backend)
    q, k, v = tokens(2, 2, 6, 9, 4)
    mask = torch.rand(2, 6, 9) > 0.4
    bias = torch.randn(2, 2, 6, 9)
    out = gpa(q, k, v, key_mask=mask, key_bias=bias)
    k, v = (x.masked_fill(~mask[:, None, ..., None], bad) for x, bad in ((k, torch.nan), (v, torch.inf)))
    bias = bias.masked_fill(~mask[:, None], torch.nan)
    assert gpa(q, k, v, key_mask=mask, key_bias=bias).equal(out)


def test_nothing_to_see_gives_zeros_and_zero_gradients(backend):
    gpa = gpa_nd.image(2, (2, 3), 2, backend=backend)
    inputs = tokens(2, 2, 6, 9, 4, requires_grad=True)
    bias = torch.randn(2, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(2, 6, 9, dtype=torch.bool)
    mask[1] = True
    out = gpa(*inputs, key_mask=mask, key_bias=bias)
    assert not out[0].any()
    assert out[1].all()
    for grad in torch.autograd.grad(out.square().sum(), (*inputs, bias)):
        assert not grad[0].any()
        assert grad[1].isfinite().all()
        assert grad[1].any()


def test_a_bias_of_minus_infinity_is_a_mask(backend):
    gpa = gpa_nd.audio(3, 3, 2, backend=backend)
    q, k, v = tokens(2, 2, 20, 4)
    mask = torch.rand(2, 20) > 0.4
    bias = torch.zeros(2, 1, 20, dtype=torch.float64).masked_fill(~mask[:, None], -torch.inf).expand(2, 2, 20)
    assert gpa(q, k, v, key_bias=bias).equal(gpa(q, k, v, key_mask=mask))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_lowest_number_as_a_bias_is_no_mask(backend, dtype):
    """Some write it instead of −∞; its sum over a group overflows."""
    q, k, v = (x.to(dtype) for x in tokens(1, 1, 16, 4))
    bias = torch.zeros(1, 1, 16, dtype=dtype)
    bias[..., [0, 1, 2, 3, 5, 6, 9]] = torch.finfo(dtype).min
    out = gpa_nd.audio(4, 2, 99, backend=backend)(q, k, v, key_bias=bias)
    expected = (q.double() @ k.double().mT / 2).masked_fill(bias[:, :, None] < -1, -torch.inf).softmax(-1) @ v.double()
    assert (out - expected).abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_number_as_a_bias_is_all_that_counts(backend, dtype):
    """Its sum over a group overflows, too, and is no infinity for that."""
    q, k, v = (x.to(dtype) for x in tokens(1, 1, 16, 4))
    bias = torch.zeros(1, 1, 16, dtype=dtype)
    bias[..., [4, 6, 7]] = torch.finfo(dtype).max
    out = gpa_nd.audio(4, 2, 1, backend=backend)(q, k, v, key_bias=bias)
    assert (out - v[:, :, [4, 6, 7]].mean(2, keepdim=True)).abs().max() < 1e-6


def test_a_bias_sways_the_selection_by_its_mean(backend):
    layout = gpa_nd.audio(2, 1, 1).layout((8,), (8,))
    q, k = torch.zeros(2, 1, 1, 8, 1)
    bias = torch.tensor([0.0, 3.0, 2.0, 2.0, 1.0, 1.0, -9.0, 9.0])[None, None]
    assert select_keys(q, k, layout, kappa=4, key_bias=bias, backend=backend).flatten().tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"key_mask": torch.ones(2, 20)}, TypeError, "key_mask: expected a boolean tensor, got torch.float32"),
        ({"key_mask": [True]}, TypeError, "key_mask: expected a boolean tensor, got list"),
        (
            {"key_mask": torch.ones(2, 19, dtype=torch.bool)},
            ValueError,
            r"key_mask: expected shape \(2, 20\), got \(2, 19\)$",
        ),
        (
            {"key_bias": torch.ones(2, 20, dtype=torch.int64)},
            TypeError,
            "key_bias: expected a floating point tensor, got torch.int64",
        ),
        (
            {"key_bias": torch.ones(2, 1, 20)},
            ValueError,
            r"key_bias: expected shape \(2, 3, 20\), got \(2, 1, 20\); it is",
        ),
        (
            {"key_mask": torch.ones(1, 20, dtype=torch.bool)},
            ValueError,
            r"key_mask: expected shape \(2, 20\), got \(1, 20\); it is not broadcast, key_mask.expand\(2, 20\) fits",
        ),
        (
            {"key_bias": torch.ones(2, 3, 20, device="meta")},
            ValueError,
            "key_bias: expected it on cpu, where k is, got meta",
        ),
    ],
)
def test_bad_input_is_named(given, error, message):
    with pytest.raises(error, match=message):
        gpa_nd.audio()(*tokens(2, 3, 20, 4), **given)
