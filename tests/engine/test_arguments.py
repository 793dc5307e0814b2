import pytest
import torch

import gpa_nd
from gpa_nd import attend, gpa_attention, select_keys

layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (6,))
q, k, v = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 6, 4), torch.zeros(1, 1, 6, 3)
relevant = torch.zeros(1, 1, 2, 3, dtype=torch.int64)
mask, bias = torch.ones(1, 6, dtype=torch.bool), torch.zeros(1, 1, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: select_keys(q, k, "2-D", kappa=1), TypeError, "layout: expected a Layout, got str"),
        (lambda: select_keys(q[0], k, layout, kappa=1), ValueError, r"q: expected shape \(batch, heads, elements"),
        (
            lambda: select_keys(q[..., None], k[..., None], layout, kappa=1),
            ValueError,
            r"q: expected shape \(batch, heads",
        ),
        (lambda: select_keys(k, k, layout, kappa=1), ValueError, "q: the layout is for 8 elements, got 6"),
        (lambda: select_keys(q, q, layout, kappa=1), ValueError, "k: the layout is for 6 elements, got 8"),
        (lambda: select_keys(q, k.half(), layout, kappa=1), TypeError, "k: expected torch.float32 as q has"),
        (lambda: select_keys(q, k, layout, kappa=0), ValueError, "kappa: expected at least 1"),
        (lambda: select_keys(q, k, layout, kappa=True), TypeError, "kappa: expected an int, got True"),
        (lambda: select_keys(q, k, layout, kappa=1, affinity="l1"), ValueError, "affinity: expected one of"),
        (lambda: select_keys(q, k, layout, kappa=1, backend="numpy"), ValueError, "backend: expected one of"),
        (
            lambda: select_keys(q.double(), k.double(), layout, kappa=1, backend="triton"),
            ValueError,
            "'triton' cannot run: it computes float16, bfloat16 and float32, and got torch.float64: its kernels",
        ),
        (
            lambda: select_keys(q, k, layout, kappa=1, scale=True),
            TypeError,
            "scale: expected a number or None, got bool",
        ),
        (
            lambda: select_keys(q.to("meta"), k.to("meta"), layout, kappa=1),
            ValueError,
            "layout: expected it on meta, where q is, got cpu",
        ),
        (
            lambda: gpa_attention(q, k, v[:, :, :5], layout, kappa=1),
            ValueError,
            r"v: expected elements \(6,\) as k has",
        ),
        (lambda: gpa_attention(q, k, v, layout, kappa=-1), ValueError, "kappa: expected at least 1"),
        (lambda: gpa_attention(q, k, v, layout, kappa=9, backend="x"), ValueError, "backend: expected one of"),
        (
            lambda: attend(q, k, v, layout, relevant.int()),
            TypeError,
            "relevant: expected an int64 tensor, got torch.int32",
        ),
        (lambda: attend(q, k, v, layout, [0]), TypeError, "relevant: expected an int64 tensor, got list"),
        (lambda: attend(q, k, v, layout, relevant[:, :, :1]), ValueError, r"relevant: expected shape \(1, 1, 2\) and"),
        (lambda: attend(q, k, v, layout, relevant[0]), ValueError, r"relevant: expected shape \(1, 1, 2\) and"),
        (
            lambda: attend(q, k, v, layout, relevant + 3),
            ValueError,
            "relevant: expected coarse keys 0 … 2, −1 or −2, got 3",
        ),
        (
            lambda: attend(q, k, v, layout, relevant - 3),
            ValueError,
            "relevant: expected coarse keys 0 … 2, −1 or −2, got -3",
        ),
        (lambda: attend(q, k, v, layout, relevant.to("meta")), ValueError, "relevant: expected it on cpu"),
        (
            lambda: attend(q, k, v, layout, relevant, logits=relevant),
            TypeError,
            "logits: expected a floating point tensor",
        ),
        (
            lambda: attend(q, k, v, layout, relevant, logits=torch.zeros(1, 1, 2, 2)),
            ValueError,
            r"logits: expected shape \(1, 1, 2, 3\) as relevant has, got \(1, 1, 2, 2\)",
        ),
        (
            lambda: attend(q, k, v, layout, relevant, logits=torch.zeros(1, 1, 2, 3, device="meta")),
            ValueError,
            "logits: expected it on cpu",
        ),
        (lambda: gpa_attention(q, k.int(), v, layout, kappa=1), TypeError, "k: expected float16, bfloat16, float32 or"),
        (lambda: gpa_attention(q, k, None, layout, kappa=1), TypeError, "v: expected a .*got NoneType"),
        (
            lambda: gpa_attention(q, k[..., :3], v, layout, kappa=1),
            ValueError,
            "k: expected 4 channels as q has, got 3",
        ),
        (lambda: gpa_attention(q[..., :0], k, v, layout, kappa=1), ValueError, "q: expected at least one channel, got"),
        (lambda: gpa_attention(q, k, v, layout, kappa=(1, 1)), ValueError, r"kappa: expected one .* of 1 levels, got"),
        (
            lambda: gpa_attention(q, k, v, layout, kappa=1, scale=torch.inf),
            ValueError,
            "scale: expected a finite number",
        ),
        (
            lambda: gpa_attention(q, k, v, layout, kappa=1, key_mask=mask[:, 1:]),
            ValueError,
            r"key_mask: expected shape \(1, 6\), got \(1, 5\)",
        ),
        (
            lambda: gpa_attention(q, k, v, layout, kappa=1, key_mask=mask.to("meta")),
            ValueError,
            "key_mask: expected it on cpu, where k is, got meta",
        ),
        (
            lambda: select_keys(q, k, layout, kappa=1, key_bias=bias.long()),
            TypeError,
            "key_bias: expected a floating point tensor, got torch.int64",
        ),
        (
            lambda: attend(q, k, v, layout, relevant, key_bias=bias[..., 1:]),
            ValueError,
            r"key_bias: expected shape \(1, 1, 6\), got \(1, 1, 5\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
