"""Small cells and groups share a tile: each sees its own keys alone."""

import math

import pytest
import torch

import gpa_nd

pytest.importorskip("triton")
from gpa_nd.engine.fused.attention import attend
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.packs import unions
from tests.engine.fused.test_attention import DEVICE, assert_parity, placed, pytestmark, run, some_keys, tokens  # noqa: F401

# Elements, elements in a group, cells: of 1, 2, 3, 4, 6 and 8 elements, and of groups that are no power of two
SIZES = [(30, 1, 30), (30, 1, 15), (45, 3, 15), (64, 2, 16), (36, 3, 6), (48, 4, 6)]


@pytest.fixture(params=SIZES, ids=lambda size: "{} elements, groups of {}, {} cells".format(*size))
def layout(request):
    n, group, cells = request.param
    layout = gpa_nd.audio(downsample=group, cells=cells, kappa=1).layout((n,), (n,), DEVICE)
    for part in (layout.fine_cells, layout.members):
        assert Groups(part.order, part.offsets, part.largest).packable > 1
    return layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kappa", [2, 5, 12])
def test_packed_cells_err_no_more_than_plain_pytorch(layout, kappa, dtype):
    q, k, v = tokens(layout, dtype, batch=2, c=17, c_v=80)
    assert_parity(layout, q, k, v, some_keys(layout, q, kappa))


def test_positions_and_shared_key_heads(layout):
    q, k, v = tokens(layout, heads=4, key_heads=2)
    positions = tuple(torch.randint(-5, 5, (len(x),), device=DEVICE) for x in (q[0, 0], k[0, 0]))
    assert_parity(placed(layout, positions), q, k, v, some_keys(layout, q, 4))


def test_a_coarse_key_may_be_named_twice(layout):
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q, 3)
    relevant[..., 1] = relevant[..., 0]
    relevant[:, 0, 0, 2] = relevant[:, 0, 0, 0]
    assert_parity(layout, q, k, v, relevant)


def test_minus_one_and_minus_two_are_of_their_cell_alone(layout):
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q, 4)
    relevant[:, 0, 1, 2:] = -1
    relevant[:, 0, 2] = -1
    clean = run(lambda q, k, v: attend(q, k, v, layout, relevant, None, None, 0.25), (q, k, v))
    nobody = layout.fine_cells.labels == 2
    assert (clean[0][:, 0, nobody] == 0).all()
    assert (clean[1][:, 0, nobody] == 0).all()

    spoilt = relevant.clone()
    spoilt[:, 0, 2] = -2  # names nothing either, so that everything else stays as it was
    got = run(lambda q, k, v: attend(q, k, v, layout, spoilt, None, None, 0.25), (q, k, v))
    assert got[0][:, 0, nobody].isnan().all()
    assert got[0][:, 0, ~nobody].equal(clean[0][:, 0, ~nobody])
    assert got[0][:, 1].equal(clean[0][:, 1])
    assert all(a.equal(b) for a, b in zip(got[1:], clean[1:], strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_only_a_neighbour_named_does_not_leak(layout, value):
    q, k, v = tokens(layout)
    m = len(layout.query_cells)
    relevant = (torch.arange(m, device=DEVICE)[:, None] + torch.arange(2, device=DEVICE)) % len(layout.key_groups)
    relevant = relevant.expand(1, 2, m, 2).contiguous()
    named = (relevant == 1).any(-1)[0, 0]  # the cells that see coarse key 1
    theirs = named[layout.fine_cells.labels]
    assert theirs.any()
    assert not theirs.all()

    def results(k, v):
        out, dq, *_ = run(lambda q, k, v: attend(q, k, v, layout, relevant, None, None, 0.25), (q, k, v))
        return out, dq

    clean = results(k, v)
    bad = (layout.key_groups.labels == 1).to(DEVICE)
    for spoil in (k, v):
        was = spoil.clone()
        spoil[:, :, bad, 3] = value
        for got, right in zip(results(k, v), clean, strict=True):
            assert got[:, :, ~theirs].equal(right[:, :, ~theirs])
        assert not results(k, v)[0][:, :, theirs].equal(clean[0][:, :, theirs])
        spoil.copy_(was)


def test_a_query_that_is_not_finite_spoils_its_own_row(layout):
    q, k, v = tokens(layout)
    relevant = some_keys(layout, q, 3)
    clean = attend(q, k, v, layout, relevant, None, None, 0.25)
    q[:, :, 1, 3] = math.nan
    got = attend(q, k, v, layout, relevant, None, None, 0.25)
    own = torch.arange(q.shape[2], device=DEVICE) == 1
    assert got[:, :, own].isnan().all()
    assert got[:, :, ~own].equal(clean[:, :, ~own])


def test_unions_say_who_named_what():
    relevant = torch.tensor([[7, 2, -1], [2, 7, 7], [3, -2, 5], [-1, -1, -1]])[None, None]
    names, takers = unions(relevant, 2)
    assert names[0, 0].tolist() == [[2, 7, 7, -1, -1, -1], [-1] * 6]
    assert takers[0, 0, 0, :3].tolist() == [0b11, 0b11, 0b10]
    assert takers[0, 0, 1, 0] >> 32 == 0b01
    assert takers[0, 0, 0, 0] >> 32 == 0
