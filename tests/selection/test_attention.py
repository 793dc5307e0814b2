"""Attention whose selection learns: the laws, on every structure of `seeing.py`."""

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, attend, gpa_attention, select_keys
from gpa_nd.engine import mass
from gpa_nd.selection import PerturbedTopK, Selection, SoftTopK, StraightThrough
from tests.selection.rows import KEY_HEADS, SOME_ROWS

ALL = 10**6


class Alike(Selection):
    """All candidates have weight 1: no selection, but a law."""

    def weights(self, scores, kappa):
        return (~scores.isneginf()).to(scores.dtype)


class Rising(Selection):
    """Weights that differ, and none of which is 0."""

    def weights(self, scores, kappa):
        return scores.masked_fill(scores.isneginf(), -9).sigmoid().masked_fill(scores.isneginf(), 0)


@pytest.fixture(params=SOME_ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def settings_of(row, backend="torch"):
    return {"enable_gqa": row.heads > KEY_HEADS, "backend": backend}


def without_v(tokens):
    return {name: x for name, x in tokens.items() if name != "v"}


def test_all_candidates_with_weight_one_is_dense_attention(row, backend):
    tokens = row.tokens()
    settings = {"kappa": (1,) + (ALL,) * (row.levels - 1), "selection": Alike(ALL), **settings_of(row, backend)}
    out = gpa_attention(layout=row.layout(), **tokens, **settings)
    assert (out - row.dense(**tokens)).abs().max() < 1e-12


def test_towards_temperature_zero_it_is_hard_attention(row, backend):
    tokens, settings = row.tokens(), settings_of(row, backend)
    kappa = (2,) + (ALL,) * (row.levels - 1)
    hard = gpa_attention(layout=row.layout(), kappa=kappa, **tokens, **settings)
    out = gpa_attention(layout=row.layout(), kappa=kappa, selection=SoftTopK(1e-9, ALL), **tokens, **settings)
    assert (out - hard).abs().max() < 1e-12


def test_weights_come_from_the_attention_that_coarse_queries_pay(row):
    layout, tokens = row.layout(), row.tokens()
    others, settings = without_v(tokens), settings_of(row)
    relevant = select_keys(layout=layout, kappa=3, **others, **settings)
    masses = log_masses(row, relevant, **others)
    out = gpa_attention(layout=layout, kappa=3, selection=Rising(3), **tokens, **settings)
    weights = Rising(3).weights(masses, 3)
    always = 0 if layout.always is None else layout.always.shape[1]
    weights[..., weights.shape[-1] - always :] = 1
    expected = attend(layout=layout, relevant=relevant, logits=weights.log(), **tokens, **settings)
    assert (out - expected).abs().max() < 1e-12


def log_masses(row, relevant, q, k, key_mask=None, key_bias=None):
    """log Σ softmax over the candidates, by loops."""
    layout = row.layout()
    k = k.repeat_interleave(row.heads // KEY_HEADS, dim=1)
    bias = torch.zeros(k.shape[:3], dtype=k.dtype)
    if key_bias is not None:
        bias = key_bias.repeat_interleave(row.heads // KEY_HEADS, dim=1)
    seen = torch.ones_like(bias, dtype=torch.bool) if key_mask is None else key_mask[:, None].expand(bias.shape)
    groups, ranked_by = layout.key_groups.labels, layout.ranked_by
    found = torch.full(relevant.shape, -torch.inf, dtype=q.dtype)
    always = 0 if layout.always is None else layout.always.shape[1]
    for b in range(len(q)):
        for h in range(q.shape[1]):
            groups_of_q = [layout.query_groups.labels == i for i in range(len(layout.query_groups))]
            q_low = torch.stack([q[b, h, some].mean(0) for some in groups_of_q])
            for cell in range(len(layout.query_cells)):
                asked_by = cell if ranked_by is None else int(ranked_by[cell])
                of_cell = q_low[layout.query_cells.labels == asked_by]
                named = [g for g in relevant[b, h, cell, : relevant.shape[-1] - always].tolist() if g >= 0]
                beside = [g for g in relevant[b, h, cell].tolist()[relevant.shape[-1] - always :] if g >= 0]
                beside = [g for g in beside if selectable(layout, cell, g) and (seen[b, h] & (groups == g)).any()]
                if not named:
                    continue
                scores = []
                for g in named + beside:
                    some = (groups == g) & seen[b, h]
                    scores.append(of_cell @ k[b, h, some].mean(0) * q.shape[-1] ** -0.5 + bias[b, h, some].mean())
                masses = torch.stack(scores, -1).softmax(-1).sum(0).log()
                found[b, h, cell, : len(named)] = masses[: len(named)]
    return found


def selectable(layout, cell, key):
    if layout.key_ranges is not None and not layout.key_ranges[cell, 0] <= key < layout.key_ranges[cell, 1]:
        return False
    if layout.coarse_positions is None:
        return True
    of_cells, of_keys = layout.coarse_positions
    return bool((of_keys[key] <= of_cells[cell]).all())


def test_gradients_reach_everything_through_the_choice(row, backend):
    layout, tokens = row.layout(), row.tokens(c=2, c_v=2, batch=1)
    mask = tokens.pop("key_mask", None)
    names = list(tokens)

    def attention(*inputs):
        given = dict(zip(names, inputs, strict=True))
        return gpa_attention(
            layout=layout, kappa=2, selection=Rising(4), key_mask=mask, **given, **settings_of(row, backend)
        )

    assert torch.autograd.gradcheck(attention, [x.requires_grad_() for x in tokens.values()], fast_mode=True)


@pytest.mark.parametrize("rule", [SoftTopK(0.6), StraightThrough(SoftTopK(0.6))], ids=repr)
def test_backends_agree_and_small_blocks_change_nothing(row, rule, monkeypatch):
    layout, tokens = row.layout(), row.tokens(seed=3)
    names = [name for name in tokens if name != "key_mask"]

    def results(backend):
        given = {name: x.clone().requires_grad_() if name in names else x for name, x in tokens.items()}
        out = gpa_attention(layout=layout, kappa=2, selection=rule, **given, **settings_of(row, backend))
        grads = torch.autograd.grad(out.square().sum(), [given[name] for name in names])
        return [out, *grads]

    first = results("reference")
    monkeypatch.setattr(mass, "ROOM", 64)
    for other in (results("torch"), results("torch")):
        for a, b in zip(first, other, strict=True):
            assert (a - b).abs().max() < 1e-11
    assert all(a.equal(b) for a, b in zip(results("torch"), other, strict=True))


def test_straight_through_is_hard_selection_with_a_soft_gradient(row):
    layout, tokens, settings = row.layout(), row.tokens(), settings_of(row)
    soft = SoftTopK(0.8)
    given = [{name: x.clone() for name, x in tokens.items()} for _ in range(2)]
    for each in given:
        each["q"].requires_grad_()
    out = gpa_attention(layout=layout, kappa=2, selection=StraightThrough(soft), **given[0], **settings)
    assert out.equal(gpa_attention(layout=layout, kappa=2, **tokens, **settings))
    softly = gpa_attention(layout=layout, kappa=2, selection=soft, **given[1], **settings)
    weight = torch.randn_like(out)
    of_hard = torch.autograd.grad((out * weight).sum(), given[0]["q"])[0]
    assert of_hard.equal(torch.autograd.grad((softly * weight).sum(), given[1]["q"])[0])


@pytest.mark.parametrize("row", [row for row in SOME_ROWS if row.causal], ids=lambda row: row.name)
def test_nothing_later_sways_what_is_answered(row, backend):
    place, layout, tokens = row.places(), row.layout(), row.tokens()
    settings = {"kappa": 2, "selection": SoftTopK(0.7), **settings_of(row, backend)}
    out = gpa_attention(layout=layout, **tokens, **settings)
    rng = torch.Generator().manual_seed(5)
    for t in place.unique(dim=0)[:-1:3]:
        later = (place > t).any(-1)
        changed = dict(tokens)
        for name in ("q", "k", "v"):
            noise = torch.randn(tokens[name].shape, generator=rng, dtype=torch.float64) * 10
            changed[name] = torch.where(later[:, None], noise, tokens[name])
        other = gpa_attention(layout=layout, **changed, **settings)
        assert other[:, :, ~later].equal(out[:, :, ~later])


RULES = [SoftTopK(3.0), PerturbedTopK(2.0, generator=torch.Generator()), StraightThrough(SoftTopK(3.0))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_choice_has_a_gradient_that_hard_selection_lacks(rule, backend):
    """Where all keys and values of a group are alike, hard selection of one does not depend on q at all."""
    layout = gpa_nd.audio(downsample=4, cells=4, kappa=1).layout((32,), (32,))
    q = torch.randn(1, 1, 32, 4, dtype=torch.float64, requires_grad=True)
    k, v = torch.randn(2, 1, 1, 8, 4, dtype=torch.float64).repeat_interleave(4, dim=3)
    k.requires_grad_()
    hard = gpa_attention(q, k, v, layout, kappa=1, backend=backend)
    assert all(x.abs().max() < 1e-12 for x in torch.autograd.grad(hard.square().sum(), (q, k)))
    out = gpa_attention(q, k, v, layout, kappa=1, selection=rule, backend=backend)
    assert all(x.abs().max() > 1e-3 for x in torch.autograd.grad(out.square().sum(), (q, k)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_what_is_no_number_stays_where_it_is(rule, backend):
    layout = gpa_nd.audio(downsample=4, cells=4, kappa=1).layout((32,), (32,))
    q, k, v = torch.randn(3, 1, 2, 32, 4, dtype=torch.float64)
    q[0, 0, 9] = torch.nan  # cell 1 of head 0
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = gpa_attention(*inputs, layout, kappa=1, selection=rule, backend=backend)
    assert out[0, 0, 8:16].isnan().all()
    assert out.isnan().sum() == 8 * 4
    kept = torch.ones(2, 32, dtype=torch.bool)
    kept[0, 8:16] = False
    of_q, of_k, of_v = torch.autograd.grad(out[0][kept].square().sum(), inputs)
    assert of_k.isfinite().all()
    assert of_v.isfinite().all()
    assert of_q[0][kept].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_every_dtype_is_answered_in_kind(dtype, backend):
    gpa = gpa_nd.image(downsample=2, cells=3, kappa=2, selection=SoftTopK(), backend=backend)
    tokens = torch.randn(3, 2, 2, 9, 8, 8, dtype=torch.float64)
    exact = gpa(*tokens)
    q, k, v = (x.to(dtype).requires_grad_() for x in tokens)
    out = gpa(q, k, v)
    assert out.dtype == dtype
    assert (out - exact).abs().median() < 0.02
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.square().sum(), (q, k, v)))


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_modules_pass_on_their_selection(affinity, backend):
    given = {"downsample": 3, "cells": 4, "kappa": 2, "affinity": affinity, "backend": backend}
    soft = SoftTopK(0.5, candidates=5)
    q, k, v = torch.randn(3, 1, 2, 40, 4, dtype=torch.float64)
    gpa = gpa_nd.audio(**given, selection=soft)
    assert gpa.selection is soft
    assert "selection=SoftTopK(candidates=5, temperature=0.5)" in repr(gpa)
    out = gpa(q, k, v)
    layout = gpa.layout((40,), (40,))
    settings = {"affinity": affinity, "backend": backend}
    assert out.equal(gpa_attention(q, k, v, layout, kappa=2, selection=soft, **settings))
    gpa.selection = None
    assert not gpa(q, k, v).equal(out)
    packed = gpa_nd.audio(**given, selection=soft).packed(q, k, v, torch.tensor([0, 13, 40]))
    alone = gpa_nd.audio(**given, selection=soft)(*(x[:, :, 13:] for x in (q, k, v)))
    assert (packed[:, :, 13:] - alone).abs().max() < 1e-12
    path = torch.stack([torch.arange(39), torch.arange(1, 40)])
    assert all(make(kappa=2, selection=soft).selection is soft for make in (gpa_nd.image, gpa_nd.video))
    assert gpa_nd.graph(path, 40, kappa=2, selection=soft).selection is soft
    assert gpa(q[:, :, :0], k[:, :, :0], v[:, :, :0]).shape == (1, 2, 0, 4)


def test_memory_grows_with_the_inputs_alone(largest_tensor, monkeypatch):
    monkeypatch.setattr(mass, "ROOM", 2**14)
    gpa = gpa_nd.audio(downsample=2, cells=512, kappa=2, selection=SoftTopK(), backend="torch")
    q, k, v = torch.randn(3, 1, 1, 2048, 4, requires_grad=True)
    gpa.layout((2048,), (2048,))
    with largest_tensor() as seen:
        gpa(q, k, v).sum().backward()
    assert seen.numel <= 2**18  # a block of Phase 1; n_q'² would be 2²⁰


CUT, DOWN = gpa_nd.audio(cells=2).partitioner, gpa_nd.audio(downsample=2).downsampler
TOKENS = torch.zeros(3, 1, 1, 8, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: GPA(CUT, DOWN, kappa=1, selection="soft"),
            TypeError,
            "selection: expected a Selection or None",
        ),
        (
            lambda: GPA(CUT, DOWN, kappa=1, selection=SoftTopK),
            TypeError,
            "selection: expected a Selection or None",
        ),
        (
            lambda: GPA(CUT, DOWN, kappa=4, selection=SoftTopK(candidates=3)),
            ValueError,
            "selection: expected at least kappa = 4 candidates, got 3",
        ),
        (
            lambda: gpa_attention(*TOKENS, GPA(CUT, DOWN, kappa=1).layout((8,), (8,)), kappa=1, selection=0.5),
            TypeError,
            "selection: expected a Selection or None, got float",
        ),
        (
            lambda: gpa_nd.audio(2, 2, 2, selection=StraightThrough(SoftTopK(candidates=1))),
            ValueError,
            "selection: expected at least kappa = 2 candidates, got 1",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Rule(Selection):
    """Whatever a user may have written."""

    def __init__(self, make):
        super().__init__(candidates=4)
        self.make = make

    def weights(self, scores, kappa):
        return self.make(scores)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda scores: None, TypeError, r"Rule.weights: expected a floating point tensor, got NoneType"),
        (lambda scores: scores > 0, TypeError, r"Rule.weights: expected a floating point tensor, got torch.bool"),
        (
            lambda scores: scores[..., :2],
            ValueError,
            r"Rule.weights: expected shape \(1, 1, 4, 4\) as scores have, got",
        ),
        (lambda scores: 3 * scores.sigmoid(), ValueError, r"Rule.weights: expected weights in \[0, 1\], got"),
        (lambda scores: scores, ValueError, r"Rule.weights: expected weights in \[0, 1\], got"),
    ],
    ids=["nothing", "choices", "too few", "too large", "negative"],
)
def test_bad_input_of_a_rule_that_breaks_its_law_is_named(make, error, message, backend):
    layout = gpa_nd.audio(downsample=4, cells=4, kappa=1).layout((32,), (32,))
    q, k, v = torch.randn(3, 1, 1, 32, 4)
    with pytest.raises(error, match=message):
        gpa_attention(q, k, v, layout, kappa=2, selection=Rule(make), backend=backend)


def test_bad_input_of_a_class_in_place_of_a_rule_is_named():
    with pytest.raises(TypeError, match="selection: expected a Selection or None, got the class SoftTopK; make one"):
        gpa_nd.audio(selection=SoftTopK)
