"""The coarse branch and its gate."""

import pytest
import torch

import gpa_nd
from gpa_nd import coarse_attention, gpa_attention
from gpa_nd.engine import groups
from gpa_nd.nn import GatedCoarse
from gpa_nd.selection import SoftTopK
from tests.selection.rows import KEY_HEADS, SOME_ROWS
from tests.selection.toys import find_the_block


@pytest.fixture(params=SOME_ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def shared(row):
    return {"enable_gqa": row.heads > KEY_HEADS}


def by_hand(row, q, k, v, key_mask=None, key_bias=None):
    """Softmax over the means of what is visible, by loops over groups."""
    layout = row.layout()
    k, v = (x.repeat_interleave(row.heads // KEY_HEADS, dim=1) for x in (k, v))
    bias = torch.zeros(k.shape[:3], dtype=k.dtype)
    if key_bias is not None:
        bias = key_bias.repeat_interleave(row.heads // KEY_HEADS, dim=1)
    visible = torch.ones_like(bias, dtype=torch.bool) if key_mask is None else key_mask[:, None].expand(bias.shape)
    wholly = torch.stack(
        [row.seen()[:, layout.key_groups.labels == g].all(1) for g in range(len(layout.key_groups))], 1
    )
    of_cells = layout.fine_cells.labels
    wholly = torch.stack([wholly[of_cells == cell].all(0) for cell in range(len(layout.query_cells))])  # (m, n_k')
    if row.causal and layout.key_ranges is not None:  # a cell that nobody ranks for selects nothing
        wholly &= (layout.key_ranges.diff() > 0).expand_as(wholly)
    if layout.positions is None:
        for group in range(len(layout.query_groups)):
            some = layout.query_groups.labels == group
            q = torch.where(some[:, None], q[:, :, some].mean(2, keepdim=True), q)
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b in range(len(q)):
        for h in range(q.shape[1]):
            scores, means = [], []
            for g in range(len(layout.key_groups)):
                some = (layout.key_groups.labels == g) & visible[b, h]
                there = wholly[of_cells, g] & some.any()
                score = q[b, h] @ k[b, h, some].mean(0) * q.shape[-1] ** -0.5 + bias[b, h, some].mean()
                scores.append(torch.where(there, score, -torch.inf))
                means.append(v[b, h, some].mean(0).nan_to_num())
            scores = torch.stack(scores, -1)
            weights = scores.softmax(-1).masked_fill(scores.isneginf().all(-1, keepdim=True), 0)
            out[b, h] = weights @ torch.stack(means)
    return out


def test_it_is_a_softmax_over_the_means_of_visible_groups(row, monkeypatch):
    layout, tokens = row.layout(), row.tokens()
    expected = by_hand(row, **tokens)
    assert (coarse_attention(layout=layout, **tokens, **shared(row)) - expected).abs().max() < 1e-12
    monkeypatch.setattr(groups, "ROOM", 64)
    assert (coarse_attention(layout=layout, **tokens, **shared(row)) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("room", [groups.ROOM, 64])
def test_gradients_of_the_coarse_branch(row, room, monkeypatch):
    monkeypatch.setattr(groups, "ROOM", room)
    layout, tokens = row.layout(), row.tokens(c=2, c_v=2, batch=1)
    mask = tokens.pop("key_mask", None)
    names = list(tokens)

    def attention(*inputs):
        return coarse_attention(layout=layout, key_mask=mask, **dict(zip(names, inputs, strict=True)), **shared(row))

    inputs = [x.requires_grad_() for x in tokens.values()]
    if attention(*inputs).requires_grad:
        assert torch.autograd.gradcheck(attention, inputs, fast_mode=True)


@pytest.mark.parametrize("row", [row for row in SOME_ROWS if row.causal], ids=lambda row: row.name)
@pytest.mark.parametrize("bad", [10.0, torch.nan])
def test_nothing_later_sways_the_coarse_branch(row, bad):
    place, layout, tokens = row.places(), row.layout(), row.tokens()
    out = coarse_attention(layout=layout, **tokens)
    for t in place.unique(dim=0)[:-1:3]:
        later = (place > t).any(-1)
        noise = {name: torch.randn_like(tokens[name]) * bad for name in ("q", "k", "v")}
        changed = {name: torch.where(later[:, None], noise[name], tokens[name]) for name in noise}
        other = coarse_attention(layout=layout, **{**tokens, **changed})
        assert other[:, :, ~later].equal(out[:, :, ~later])


def test_what_is_no_number_reaches_who_sees_it_and_no_gradient_of_others():
    layout = gpa_nd.Layout.concat([gpa_nd.audio(4, 2, 1).layout((n,), (n,)) for n in (16, 16)])
    for name in range(3):
        tokens = [x.clone() for x in torch.randn(3, 1, 1, 32, 4, dtype=torch.float64)]
        tokens[name][:, :, 18] = torch.nan
        inputs = [x.requires_grad_() for x in tokens]
        out = coarse_attention(*inputs, layout)
        assert out[:, :, :16].isfinite().all()
        assert out[:, :, 16:20].isnan().all()
        grads = torch.autograd.grad(out[:, :, :16].square().sum(), inputs)
        assert all(x.isfinite().all() for x in grads)


def test_memory_of_the_coarse_branch_grows_with_the_inputs_alone(largest_tensor, monkeypatch):
    monkeypatch.setattr(groups, "ROOM", 2**14)
    layout = gpa_nd.audio(downsample=2, cells=64, kappa=2).layout((4096,), (4096,))
    q, k, v = torch.randn(3, 1, 1, 4096, 4, requires_grad=True)
    with largest_tensor() as seen:
        coarse_attention(q, k, v, layout).sum().backward()
    assert seen.numel <= 4 * 4096 * 4  # n_q'² would be 2²²


def test_the_gate_begins_near_plain_attention_and_opens_for_each_query():
    gpa = gpa_nd.image(downsample=(2, 3), cells=2, kappa=1, scale=0.3)
    q, k, v = torch.randn(3, 2, 2, 7, 8, 5, dtype=torch.float64)
    mask, bias = torch.rand(2, 7, 8) > 0.3, torch.randn(2, 2, 7, 8, dtype=torch.float64)
    gated = GatedCoarse(gpa, 5, initial=1e-9).double()
    plain = gpa(q, k, v, key_mask=mask, key_bias=bias)
    assert (gated(q, k, v, key_mask=mask, key_bias=bias) - plain).abs().max() < 1e-8
    torch.nn.init.normal_(gated.gate.weight)
    layout = gpa.layout((7, 8), (7, 8))
    flat = [x.flatten(2, 3) for x in (q, k, v)]
    coarse = coarse_attention(*flat, layout, key_mask=mask.flatten(1), key_bias=bias.flatten(2), scale=0.3)
    expected = plain + (q @ gated.gate.weight.mT + gated.gate.bias).sigmoid() * coarse.unflatten(2, (7, 8))
    assert (gated(q, k, v, key_mask=mask, key_bias=bias) - expected).abs().max() < 1e-12


def test_the_coarse_branch_finds_most_blocks_that_hard_selection_does_not():
    gated = GatedCoarse(gpa_nd.audio(4, 8, 1), 8, initial=0.1)

    def attention(q, k, v, layout):
        gate = gated.gate(q).sigmoid()
        return gpa_attention(q, k, v, layout, kappa=1) + gate * coarse_attention(q, k, v, layout)

    before, after, with_hard_selection = find_the_block(attention, more=tuple(gated.parameters()))
    assert before > 1.5
    assert after < 0.3  # seven cells of eight have found theirs when the gate closes
    assert with_hard_selection < 0.3


x = torch.zeros(1, 1, 8, 4)
GPA_OF_8 = gpa_nd.audio(downsample=2, cells=2, kappa=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: coarse_attention(x, x, x, None), TypeError, "layout: expected a Layout, got NoneType"),
        (
            lambda: coarse_attention(x, x, x, GPA_OF_8.layout((8,), (8,)), affinity="cosine"),
            ValueError,
            "affinity: expected one of",
        ),
        (lambda: GatedCoarse(SoftTopK(), 4), TypeError, "gpa: expected an instance of GPA, got SoftTopK"),
        (lambda: GatedCoarse(GPA_OF_8, 0), ValueError, "channels: expected at least 1, got 0"),
        (lambda: GatedCoarse(GPA_OF_8, 4, 0.0), ValueError, "initial: expected a finite number above 0, got 0.0"),
        (lambda: GatedCoarse(GPA_OF_8, 4, 1.0), ValueError, "initial: expected a number below 1, got 1.0"),
        (lambda: GatedCoarse(GPA_OF_8, 3)(x, x, x), ValueError, "q: expected 3 channels as the gate has, got 4"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
