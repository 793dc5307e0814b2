import pytest
import torch
import torch.nn.functional as F

import gpa_nd
from gpa_nd.nn import CopyAttention

GPA = gpa_nd.image(downsample=2, cells=2, kappa=10**6)
COPY = CopyAttention(3, 3, 3, GPA)
IMAGE = torch.zeros(1, 3, 4, 4)


def by_convolutions(copy, target, source):
    """The same block with 1×1 convolutions and dense attention, one head."""
    q, k, v = (
        F.conv2d(x, layer.weight[:, :, None, None], layer.bias).flatten(2).mT
        for x, layer in ((target, copy.query), (source, copy.key), (source, copy.value))
    )
    copied = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    return copied.mT.unflatten(2, target.shape[2:])


@pytest.mark.parametrize("fuse", ["concat", "residual"])
def test_it_is_three_convolutions_and_attention(fuse):
    copy = CopyAttention(6, 5, 6, GPA, key_channels=4, fuse=fuse).double()
    target, source = torch.randn(2, 6, 4, 6).double(), torch.randn(2, 5, 6, 4).double()
    out, copied = copy(target, source), by_convolutions(copy, target, source)
    expected = torch.cat([target, copied], 1) if fuse == "concat" else target + copied
    assert (out - expected).abs().max() < 1e-12


def test_heads_divide_the_channels():
    copy = CopyAttention(6, 5, 8, F.scaled_dot_product_attention, heads=2, key_channels=4).double()
    target, source = torch.randn(2, 6, 12).double(), torch.randn(2, 5, 9).double()
    q, k, v = copy.query(target.mT), copy.key(source.mT), copy.value(source.mT)
    heads = [
        (q[..., 2 * h : 2 * h + 2] @ k[..., 2 * h : 2 * h + 2].mT / 2**0.5).softmax(-1) @ v[..., 4 * h : 4 * h + 4]
        for h in range(2)
    ]
    assert (copy(target, source)[:, 6:] - torch.cat(heads, -1).mT).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("attention", "shape"),
    [
        (gpa_nd.audio(downsample=2, cells=2, kappa=2), (9,)),
        (gpa_nd.image(downsample=2, cells=2, kappa=2), (5, 6)),
        (gpa_nd.video(downsample=2, cells=2, kappa=2), (3, 4, 5)),
    ],
)
def test_any_number_of_axes(attention, shape):
    copy = CopyAttention(3, 4, 5, attention)
    target, source = torch.randn(2, 3, *shape, requires_grad=True), torch.randn(2, 4, *shape, requires_grad=True)
    out = copy(target, source)
    assert out.shape == (2, 8, *shape)
    out.square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in (target, source, *copy.parameters()) if x is not copy.key.bias)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CopyAttention(0, 4, 4, GPA), ValueError, "target_channels: expected at least 1, got 0"),
        (
            lambda: CopyAttention(4, 4, 5, GPA, heads=2),
            ValueError,
            "out_channels: expected a multiple of heads = 2, got 5",
        ),
        (lambda: CopyAttention(4, 4, 4, GPA, heads=2, key_channels=3), ValueError, "key_channels: expected a multiple"),
        (lambda: CopyAttention(4, 4, 4, "gpa"), TypeError, "attention: expected a callable"),
        (
            lambda: CopyAttention(4, 4, 4, GPA, fuse="add"),
            ValueError,
            "fuse: expected 'concat' or 'residual', got 'add'",
        ),
        (
            lambda: CopyAttention(4, 4, 5, GPA, fuse="residual"),
            ValueError,
            "out_channels: a residual expects .* 4, got 5",
        ),
        (
            lambda: CopyAttention(4, 4, 4, GPA)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 4)),
            ValueError,
            r"target: expected shape \(batch, 4, axes …\), got \(1, 3, 4, 4\)",
        ),
        (
            lambda: CopyAttention(4, 4, 4, GPA)(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4)),
            ValueError,
            "source: expected shape",
        ),
        (
            lambda: CopyAttention(4, 4, 4, GPA)(torch.zeros(2, 4, 4, 4), torch.zeros(1, 4, 4, 4)),
            ValueError,
            "source: expected a batch of 2 as target has, got 1",
        ),
        (
            lambda: COPY(IMAGE, IMAGE.double()),
            TypeError,
            "source: expected torch.float32 as target has, got torch.float64",
        ),
        (lambda: COPY(IMAGE, IMAGE.to("meta")), ValueError, "source: expected it on cpu, where target is, got meta"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
