"""The expected cost of attention against what PyTorch counts."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from examples.pose_morph.networks.attention import make_attention
from examples.pose_morph.networks.attention_cost import multiply_adds, peak_bytes
from examples.pose_morph.networks.settings import Full, Grid, Nystromformer, Performer

KINDS = [Full(), Grid(2, (16, 8), 4), Grid(4, (16, 8), 2), Nystromformer(128), Nystromformer(100), Performer(128)]


def allocated_peak(run) -> int:
    """Most bytes that PyTorch's allocator had given out during ``run`` and not got back."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = run()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    del kept
    return most


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(
    ("size", "channels", "values", "batch"),
    [((64, 32), 64, 64, 1), ((64, 32), 40, 16, 3), ((64, 64), 16, 48, 2)],
)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_expected_memory_is_what_the_allocator_gives(kind, size, channels, values, batch, cosine):
    torch.manual_seed(0)
    attention = make_attention(kind, size=size, key_channels=channels, sharpness=2.0 if cosine else 0.0)
    q, k, v = (torch.randn(batch, 1, *size, c, requires_grad=True) for c in (channels, channels, values))
    grad = torch.ones(batch, 1, *size, values)

    def run():
        out = attention(q, k, v)
        return out, torch.autograd.grad(out, (q, k, v), grad)

    found = allocated_peak(run)
    expected = peak_bytes(kind, size, channels, values, batch_size=batch, cosine=cosine)
    assert 0.7 < found / expected < 1.3, f"{found / 2**20:.1f} MiB, expected {expected / 2**20:.1f}"


@pytest.mark.parametrize("kind", [Full(), Nystromformer(128), Performer(128)], ids=str)
@pytest.mark.parametrize(("channels", "values"), [(24, 24), (40, 16)])
def test_multiply_adds_are_what_pytorch_counts(kind, channels, values):
    size = (32, 16)
    attention = make_attention(kind, size=size, key_channels=channels)
    q, k, v = (torch.randn(1, 1, *size, c) for c in (channels, channels, values))
    # What fused attention does on a CPU is not counted; the same in single steps is.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        attention(q, k, v)
    counted = counter.get_total_flops() / 2
    width = max(channels, values) if kind == Full() else values  # fused attention is given zeros up to one width
    assert counted == pytest.approx(multiply_adds(kind, size, channels, width), rel=0.02)


def test_gpa_takes_both_terms_of_section_2_2():
    """At the pivot's 256x256: the coarse affinities of 64x64 elements, and 12 · 4² keys for every query."""
    coarse, fine = 64 * 64, 256 * 256
    expected = coarse**2 * 160 + fine * 12 * 16 * (160 + 160)
    assert multiply_adds(Grid(4, (32, 32), 12), (256, 256), 160, 160) == expected
    assert expected < multiply_adds(Full(), (256, 256), 160, 160) / 200


def test_gpa_with_every_key_is_as_dear_as_full_attention_in_phase_2():
    size, c = (32, 16), 8
    every = Grid(2, (16, 8), 16 * 8)
    assert multiply_adds(every, size, c, c) - (16 * 8) ** 2 * c == multiply_adds(Full(), size, c, c)


def test_no_attention_costs_nothing():
    assert multiply_adds(None, (64, 64), 8, 8) == peak_bytes(None, (64, 64), 8, 8, batch_size=2, cosine=True) == 0


def test_memory_of_all_but_full_attention_grows_with_the_batch():
    for kind in KINDS:
        one, four = (peak_bytes(kind, (64, 64), 32, 32, batch_size=b, cosine=False) for b in (1, 4))
        assert math.isclose(four, 4 * one, rel_tol=0.35)
        assert four > 2 * one
