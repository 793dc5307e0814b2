"""The laws, for attention that does not see everything; see `seeing.py`."""

import pytest
import torch

from gpa_nd import attend, gpa_attention, select_keys, testing
from tests.seeing import KEY_HEADS, ROWS

ALL = 10**6


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def test_all_keys_selected_is_dense_attention_with_the_mask(row, backend):
    tokens = row.tokens()
    out = gpa_attention(layout=row.layout(), kappa=ALL, enable_gqa=row.heads > KEY_HEADS, backend=backend, **tokens)
    assert (out - row.dense(**tokens)).abs().max() < 1e-12


def test_few_keys_are_dense_attention_with_what_was_selected(row, backend):
    layout, tokens = row.layout(), row.tokens()
    settings = {"enable_gqa": row.heads > KEY_HEADS, "backend": backend}
    others = {name: x for name, x in tokens.items() if name != "v"}
    relevant = select_keys(layout=layout, kappa=2, **others, **settings)
    named = (relevant[..., None] == layout.key_groups.labels).any(-2)  # (b, h, m, n_k)
    chosen = relevant[relevant >= 0]
    assert chosen.numel()
    assert all(len(set(r)) == len(r) for r in _rows(relevant))  # no key twice
    k, v = (tokens[name].repeat_interleave(row.heads // KEY_HEADS, dim=1) for name in ("k", "v"))
    scores = tokens["q"] @ k.mT * k.shape[-1] ** -0.5
    if row.bias:
        scores = scores + tokens["key_bias"].repeat_interleave(row.heads // KEY_HEADS, dim=1)[:, :, None]
    seen = named[:, :, layout.fine_cells.labels] & row.seen()
    if row.mask:
        seen = seen & tokens["key_mask"][:, None, None]
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen.any(-1, keepdim=True), 0)
    out = gpa_attention(layout=layout, kappa=2, **tokens, **settings)
    assert (out - weights @ v).abs().max() < 1e-12


def _rows(relevant):
    return [[key for key in keys if key >= 0] for keys in relevant.flatten(0, 2).tolist()]


@pytest.mark.parametrize("row", [row for row in ROWS if row.layout().always is not None], ids=lambda row: row.name)
def test_always_on_keys_stand_beside_the_selected_ones(row, backend):
    layout, tokens = row.layout(), row.tokens()
    others = {name: x for name, x in tokens.items() if name != "v"}
    settings = {"enable_gqa": row.heads > KEY_HEADS, "backend": backend}
    relevant = select_keys(layout=layout, kappa=2, **others, **settings)
    assert relevant[..., 2:].equal(layout.always.expand_as(relevant[..., 2:]))
    assert not (relevant[..., :2, None] == layout.always[:, None].where(layout.always[:, None] >= 0, -9)).any()


def test_planted_keys_are_found(row, backend):
    layout = row.layout()
    cells, blocks = len(layout.query_cells), len(layout.key_groups)
    own = torch.arange(cells)
    ranked_by = own if layout.ranked_by is None else layout.ranked_by
    selectable = _selectable(layout)
    rng = torch.Generator().manual_seed(1)
    wanted = torch.where(selectable, torch.rand(cells, blocks, generator=rng), -1).argmax(-1)
    asked_by = torch.full((cells,), -1)  # what the queries of a cell ask for: the key of the cell that they rank for
    for cell in own.tolist():
        if selectable[cell].any() and asked_by[ranked_by[cell]] < 0:
            asked_by[ranked_by[cell]] = cell
    asked = own[selectable.any(-1) & (asked_by[ranked_by] == own)]
    assert len(asked)
    codes = 400 * torch.eye(blocks, dtype=torch.float64)
    q = codes[wanted[asked_by.clamp_min(0)]][layout.fine_cells.labels][None, None]
    k = codes[layout.key_groups.labels][None, None]
    kappa = (1,) + (ALL,) * (row.levels - 1)  # of another level, a cell asks for what several want
    found = select_keys(q, k, layout, kappa=kappa, backend=backend)[0, 0, :, 0]
    assert found[asked].equal(wanted[asked])


def _selectable(layout):
    """(m, n_k'): which coarse keys a cell may select, one by one."""
    blocks = torch.arange(len(layout.key_groups))
    selectable = torch.ones(len(layout.query_cells), len(blocks), dtype=torch.bool)
    if layout.key_ranges is not None:
        selectable &= (layout.key_ranges[:, :1] <= blocks) & (blocks < layout.key_ranges[:, 1:])
    if layout.coarse_positions is not None:
        of_cells, of_keys = layout.coarse_positions
        selectable &= (of_keys[None] <= of_cells[:, None]).all(-1)
    if layout.always is not None:
        selectable &= ~(layout.always[:, :, None] == blocks).any(1)
    return selectable


def test_gradients_with_the_indices_held(row, backend):
    layout, tokens = row.layout(), row.tokens(c=2, c_v=2)
    settings = {"enable_gqa": row.heads > KEY_HEADS, "backend": backend}
    others = {name: x for name, x in tokens.items() if name != "v"}
    relevant = select_keys(layout=layout, kappa=2, **others, **settings)
    mask = tokens.pop("key_mask", None)
    logits = torch.randn(relevant.shape, dtype=torch.float64)
    names = list(tokens)

    def attend_to_held(logits, *inputs):
        given = dict(zip(names, inputs, strict=True))
        return attend(layout=layout, relevant=relevant, logits=logits, key_mask=mask, **given, **settings)

    inputs = [x.requires_grad_() for x in (logits, *tokens.values())]
    assert torch.autograd.gradcheck(attend_to_held, inputs, fast_mode=True)


def test_backends_agree(row):
    layout, tokens = row.layout(), row.tokens(seed=3)
    settings = {"enable_gqa": row.heads > KEY_HEADS}
    others = {name: x for name, x in tokens.items() if name != "v"}
    relevant = [select_keys(layout=layout, kappa=3, **others, **settings, backend=b) for b in ("reference", "torch")]
    assert relevant[0].equal(relevant[1])
    outs = [gpa_attention(layout=layout, kappa=3, **tokens, **settings, backend=b) for b in ("reference", "torch")]
    assert (outs[0] - outs[1]).abs().max() < 1e-12


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bias_that_is_not_finite_makes_nan_of_whatever_may_see_its_key_and_of_nothing_else(row, backend, bad):
    layout, tokens = row.layout(), row.tokens()
    settings = {"layout": layout, "kappa": 2, "enable_gqa": row.heads > KEY_HEADS, "backend": backend}
    tokens.setdefault("key_bias", torch.zeros(tokens["k"].shape[:3], dtype=torch.float64))
    clean = gpa_attention(**tokens, **settings)
    seen = row.seen().any(0) if "key_mask" not in tokens else row.seen().any(0) & tokens["key_mask"][0]
    key = int(seen.nonzero()[len(seen.nonzero()) // 2])
    tokens["key_bias"][0, 1, key] = bad
    out = gpa_attention(**tokens, **settings)
    spoilt = torch.zeros(out.shape[:3], dtype=torch.bool)
    spoilt[0, row.heads // KEY_HEADS :, row.seen()[:, key]] = True
    assert out[spoilt].isnan().all()
    assert out[~spoilt].equal(clean[~spoilt])


def test_bfloat16_errs_no_more_than_plain_pytorch(row):
    layout, settings = row.layout(), {"enable_gqa": row.heads > KEY_HEADS}
    tokens = {name: x if name == "key_mask" else x.bfloat16() for name, x in row.tokens(seed=4).items()}
    others = {name: x for name, x in tokens.items() if name != "v"}
    relevant = [select_keys(layout=layout, kappa=3, **others, **settings, backend=b) for b in ("reference", "torch")]
    assert relevant[0].equal(relevant[1])
    exact = {name: x if name == "key_mask" else x.double() for name, x in tokens.items()}
    testing.assert_within_budget(
        *(
            attend(layout=layout, relevant=relevant[0], **given, **settings, backend=b)
            for given, b in ((tokens, "torch"), (tokens, "reference"), (exact, "reference"))
        )
    )
