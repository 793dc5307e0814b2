"""Coarse fill: unselected groups in the same softmax, each as one pooled key."""

import pytest
import torch

import gpa_nd
from gpa_nd import gpa_attention, select_keys
from gpa_nd.engine import groups
from gpa_nd.selection import SoftTopK, StraightThrough
from tests.selection.rows import KEY_HEADS, SOME_ROWS
from tests.selection.toys import find_the_block

ALL = 10**6


@pytest.fixture(params=SOME_ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def settings_of(row, backend="torch"):
    return {"enable_gqa": row.heads > KEY_HEADS, "backend": backend, "unselected": "pooled"}


def test_where_the_keys_of_each_group_are_alike_it_is_dense_attention(row, backend):
    layout, tokens = row.layout(), row.tokens()
    first = layout.key_groups.order[layout.key_groups.offsets[:-1]][layout.key_groups.labels]
    alike = {name: x[:, :, first] if name in ("k", "v", "key_bias") else x for name, x in tokens.items()}
    out = gpa_attention(layout=layout, kappa=1, **alike, **settings_of(row, backend))
    assert (out - row.dense(**alike)).abs().max() < 1e-12
    without = gpa_attention(layout=layout, kappa=1, **alike, **{**settings_of(row, backend), "unselected": "ignored"})
    assert row.name.startswith("2-D (7, 6)") or (without - row.dense(**alike)).abs().max() > 1e-2


def test_all_keys_selected_is_dense_attention_with_the_mask(row, backend):
    tokens = row.tokens()
    out = gpa_attention(layout=row.layout(), kappa=ALL, **tokens, **settings_of(row, backend))
    assert (out - row.dense(**tokens)).abs().max() < 1e-12


def test_a_group_counts_as_one_key_for_as_many_as_it_has(backend):
    layout = gpa_nd.audio(downsample=3, cells=2, kappa=1).layout((11,), (11,))
    q, k, v = torch.randn(3, 1, 1, 11, 4, dtype=torch.float64)
    mask, bias = torch.ones(1, 11, dtype=torch.bool), torch.randn(1, 1, 11, dtype=torch.float64)
    mask[0, 4] = mask[0, 9:] = False  # one of group 1, and all of group 3
    chosen = select_keys(q, k, layout, kappa=1, key_mask=mask, key_bias=bias)[0, 0, :, 0]
    for cell, group in enumerate(chosen.tolist()):
        keys, values, added = [], [], []
        for g in range(3):
            some = (layout.key_groups.labels == g) & mask[0]
            if g == group:
                keys, values, added = [*keys, *k[0, 0, some]], [*values, *v[0, 0, some]], [*added, *bias[0, 0, some]]
            else:
                keys, values = [*keys, k[0, 0, some].mean(0)], [*values, v[0, 0, some].mean(0)]
                added = [*added, bias[0, 0, some].mean() + some.sum().double().log()]
        of_cell = layout.fine_cells.labels == cell
        weights = (q[0, 0, of_cell] @ torch.stack(keys).mT / 2 + torch.stack(added)).softmax(-1)
        out = gpa_attention(
            q, k, v, layout, kappa=1, key_mask=mask, key_bias=bias, unselected="pooled", backend=backend
        )
        assert (out[0, 0, of_cell] - weights @ torch.stack(values)).abs().max() < 1e-12


@pytest.mark.parametrize("selection", [None, SoftTopK(0.7)], ids=str)
def test_backends_agree_and_small_blocks_change_nothing(row, selection, monkeypatch):
    layout, tokens = row.layout(), row.tokens(seed=3)
    names = [name for name in tokens if name != "key_mask"]

    def results(backend):
        given = {name: x.clone().requires_grad_() if name in names else x for name, x in tokens.items()}
        out = gpa_attention(layout=layout, kappa=2, selection=selection, **given, **settings_of(row, backend))
        return [out, *torch.autograd.grad(out.square().sum(), [given[name] for name in names])]

    first = results("reference")
    monkeypatch.setattr(groups, "ROOM", 64)
    for other in (results("torch"), results("torch")):
        for a, b in zip(first, other, strict=True):
            assert (a - b).abs().max() < 1e-11
    assert all(a.equal(b) for a, b in zip(results("torch"), other, strict=True))


def test_gradients_with_coarse_fill(row, backend):
    layout, tokens = row.layout(), row.tokens(c=2, c_v=2, batch=1)
    mask = tokens.pop("key_mask", None)
    names = list(tokens)

    def attention(*inputs):
        given = dict(zip(names, inputs, strict=True))
        return gpa_attention(layout=layout, kappa=1, key_mask=mask, **given, **settings_of(row, backend))

    assert torch.autograd.gradcheck(attention, [x.requires_grad_() for x in tokens.values()], fast_mode=True)


@pytest.mark.parametrize("row", [row for row in SOME_ROWS if row.causal], ids=lambda row: row.name)
@pytest.mark.parametrize("bad", [10.0, torch.nan])
def test_nothing_later_sways_what_is_answered(row, bad, backend):
    place, layout, tokens = row.places(), row.layout(), row.tokens()
    settings = {"kappa": 1, **settings_of(row, backend)}
    out = gpa_attention(layout=layout, **tokens, **settings)
    for t in place.unique(dim=0)[:-1:3]:
        later = (place > t).any(-1)
        noise = {name: torch.randn_like(tokens[name]) * bad for name in ("q", "k", "v")}
        changed = {name: torch.where(later[:, None], noise[name], tokens[name]) for name in noise}
        other = gpa_attention(layout=layout, **{**tokens, **changed}, **settings)
        assert other[:, :, ~later].equal(out[:, :, ~later])


def test_what_is_no_number_reaches_who_sees_it_and_no_gradient_of_others():
    layout = gpa_nd.Layout.concat([gpa_nd.audio(4, 2, 1).layout((n,), (n,)) for n in (16, 16)])
    for name, reached in (("q", slice(16, 24)), ("k", slice(16, 32)), ("v", slice(16, 32))):
        tokens = dict(zip("qkv", torch.randn(3, 1, 1, 32, 4, dtype=torch.float64).unbind(), strict=True))
        tokens[name] = tokens[name].index_fill(2, torch.tensor([17]), torch.nan)
        inputs = {key: x.requires_grad_() for key, x in tokens.items()}
        out = gpa_attention(**inputs, layout=layout, kappa=1, unselected="pooled")
        assert out[:, :, reached].isnan().any(-1).all()
        others = torch.ones(32, dtype=torch.bool)
        others[reached] = False
        assert out[:, :, others].isfinite().all()
        grads = torch.autograd.grad(out[:, :, others].square().sum(), list(inputs.values()))
        assert all(x[:, :, :16].isfinite().all() for x in grads)


def test_a_cell_that_is_no_number_sends_no_gradient():
    layout = gpa_nd.audio(4, 4, 1).layout((32,), (32,))
    q, k, v = torch.randn(3, 1, 1, 32, 4, dtype=torch.float64)
    q[:, :, 3] = torch.nan
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = gpa_attention(*inputs, layout, kappa=1, unselected="pooled", backend="torch")
    assert out[:, :, :8].isnan().all()
    grads, of_others = (torch.autograd.grad(x.sum(), inputs, retain_graph=True) for x in (out, out[:, :, 8:]))
    assert all(a.isfinite().all() and a.equal(b) for a, b in zip(grads, of_others, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_dtype_is_answered_in_kind(dtype, backend):
    gpa = gpa_nd.image(downsample=2, cells=3, kappa=2, unselected="pooled", backend=backend)
    tokens = torch.randn(3, 2, 2, 9, 8, 8).to(dtype)
    exact = gpa(*tokens.double())
    q, k, v = (x.requires_grad_() for x in tokens.unbind())
    out = gpa(q, k, v)
    assert out.dtype == dtype
    assert (out - exact).abs().max() < (0.02 if dtype == torch.bfloat16 else 1e-5)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.square().sum(), (q, k, v)))


def test_memory_grows_with_the_inputs_alone(largest_tensor, monkeypatch):
    monkeypatch.setattr(groups, "ROOM", 2**14)
    gpa = gpa_nd.audio(downsample=8, cells=64, kappa=1, unselected="pooled", backend="torch")
    q, k, v = torch.randn(3, 1, 1, 4096, 4, requires_grad=True)
    gpa.layout((4096,), (4096,))
    with largest_tensor() as seen:
        gpa(q, k, v).sum().backward()
    assert seen.numel <= 2**18  # a block of Phase 1; n_q · n_k' is 2²¹


def test_straight_through_and_modules_take_it_too():
    q, k, v = torch.randn(3, 1, 1, 24, 4, dtype=torch.float64)
    given = {"downsample": 3, "cells": 4, "kappa": 1, "unselected": "pooled"}
    hard = gpa_nd.audio(**given)
    assert "unselected='pooled'" in repr(hard)
    assert gpa_nd.audio(**given, selection=StraightThrough(SoftTopK()))(q, k, v).equal(hard(q, k, v))
    assert hard.packed(q, k, v, torch.tensor([0, 24])).equal(hard(q, k, v))


def test_what_is_filled_finds_the_block_that_hard_selection_does_not():
    def attention(q, k, v, layout):
        return gpa_attention(q, k, v, layout, kappa=1, unselected="pooled")

    before, after, with_hard_selection = find_the_block(attention)
    assert before > 1
    assert after < 0.01
    assert with_hard_selection < 0.01


def test_compiled_it_is_one_graph_with_the_same_answers():
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=1, unselected="pooled")
    compiled = torch.compile(gpa, backend="aot_eager", fullgraph=True)

    def results(call):
        torch.manual_seed(0)
        q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 2, 30, 8, dtype=torch.float64))
        out = call(q, k, v)
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    for a, b in zip(results(compiled), results(gpa), strict=True):
        assert (a - b).abs().max() < 1e-12


def test_operators_keep_what_they_promise_to_pytorch():
    layout = gpa_nd.audio(downsample=4, cells=4, kappa=1).layout((30,), (30,))
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 2, 30, 4, dtype=torch.float64))
    relevant = select_keys(q, k, layout, kappa=2)
    pool = (q, layout.query_groups.tensors())
    torch.library.opcheck(torch.ops.gpa_nd.blocked_pool.default, pool)
    torch.library.opcheck(
        torch.ops.gpa_nd.blocked_pool_backward.default, (torch.randn(1, 2, 8, 4, requires_grad=True), pool[1])
    )
    parts = [layout.fine_cells.tensors(), layout.members.tensors()]
    arguments = (q, k, v, relevant, None, None, *parts, None, None, None, 0.3, "dot")
    torch.library.opcheck(torch.ops.gpa_nd.blocked_attend_with_sums.default, arguments)


@pytest.mark.parametrize("make", [gpa_nd.audio, gpa_nd.image, gpa_nd.video])
def test_bad_input_is_named(make):
    with pytest.raises(ValueError, match="unselected: expected one of 'ignored', 'pooled', got 'mean'"):
        make(unselected="mean")
    x = torch.zeros(1, 1, 8, 4)
    with pytest.raises(ValueError, match="unselected: expected one of"):
        gpa_attention(x, x, x, gpa_nd.audio(2, 2, 1).layout((8,), (8,)), kappa=1, unselected=None)
