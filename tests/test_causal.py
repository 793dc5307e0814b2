"""Strictness: what comes after t sways nothing at or before t, by a single bit, selection included."""

from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import Layout, causal, gpa_attention, select_keys
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.ops import GridDownsampler
from gpa_nd.partition import Partition
from gpa_nd.partitioners import GridPartitioner
from tests.seeing import EVERYTHING, KEY_HEADS, on_grid

ROWS = [
    on_grid((29,), (3,), (4,), causal=(0,)),
    on_grid((17,), (1,), (17,), causal=(0,)),
    on_grid((17,), (1,), (4,), causal=(0,)),
    on_grid((26,), (2,), (5,), causal=(0,), always=[GridNeighbourhood(3), GlobalElements(torch.tensor([0, 25]))]),
    on_grid((40,), (2,), (10,), levels=2, causal=(0,)),
    on_grid((9, 8), (2, 3), (3, 2), causal=(1,)),
    on_grid((8, 9), (2, 2), (4, 3), causal=(0, 1)),
    on_grid((6, 4, 5), (1, 2, 2), (6, 2, 2), causal=(0,)),
    on_grid((5, 4, 4), (2, 2, 2), (2, 2, 1), causal=(0,)),
    EVERYTHING,
]


def changed_later(tokens, later, how):
    """The tokens with other numbers, or none, where ``later`` (n,) is True; there masks are turned round."""
    rng = torch.Generator().manual_seed(9)
    for name, x in tokens.items():
        if name == "key_mask":
            other = ~x
        else:
            other = torch.full_like(x, torch.nan) if how == "nan" else 9 * torch.randn(x.shape, generator=rng).to(x)
        tokens[name] = torch.where(later if name in ("key_mask", "key_bias") else later[:, None], other, x)
    return tokens


def sways_what_stands_before(row, layout, backend, how, dtype=torch.float32, **settings) -> bool:
    """Whether a change after any position reaches an output that is not after it."""
    tokens = {name: x if name == "key_mask" else x.to(dtype) for name, x in row.tokens().items()}
    settings |= {"layout": layout, "kappa": 2, "backend": backend, "enable_gqa": row.heads > KEY_HEADS}
    place = row.places()
    out = gpa_attention(**settings, **tokens)
    for t in place.unique(dim=0):
        later = (place > t).any(-1)
        other = gpa_attention(**settings, **changed_later(dict(tokens), later, how))
        if not out[:, :, ~later].equal(other[:, :, ~later]):
            return True
    return False


def ranked_by_others(row) -> bool:
    """Whether cells stand at more than one position, so that others must rank for them."""
    layout = row.layout()
    return not layout.ranked_by.equal(torch.arange(len(layout.query_cells)))


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


@pytest.mark.parametrize("how", ["numbers", "nan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_later_sways_a_bit(row, backend, dtype, how):
    assert not sways_what_stands_before(row, row.layout(), backend, how, dtype)


@pytest.mark.parametrize("how", ["numbers", "nan"])
@pytest.mark.parametrize("ranking", ["rms", "moments", "rerank"])
def test_nothing_later_sways_a_bit_however_keys_are_ranked_and_counted(row, backend, ranking, how):
    assert not sways_what_stands_before(row, row.layout(), backend, how, ranking=ranking, mass=0.6)


@pytest.mark.parametrize("row", [row for row in ROWS if ranked_by_others(row)], ids=lambda row: row.name)
def test_a_cell_that_ranks_for_itself_would_see_its_later_queries(row, backend):
    layout = row.layout()
    coarser = None if layout.coarser is None else replace(layout.coarser, ranked_by=None)
    assert sways_what_stands_before(row, replace(layout, ranked_by=None, coarser=coarser), backend, "numbers")


def test_a_range_that_ends_one_group_later_would_see_later_keys(backend):
    row = ROWS[0]
    layout = row.layout()
    ranges = layout.key_ranges + torch.tensor([0, 1])
    assert sways_what_stands_before(row, replace(layout, key_ranges=ranges), backend, "numbers")


def test_gradients_of_later_inputs_are_zero(row, backend):
    tokens = row.tokens(batch=1)
    inputs = [x.requires_grad_() for x in tokens.values() if x.is_floating_point()]
    out = gpa_attention(layout=row.layout(), kappa=2, backend=backend, enable_gqa=row.heads > KEY_HEADS, **tokens)
    place = row.places()
    t = place[len(place) // 2]
    later = (place > t).any(-1)
    for grad in torch.autograd.grad(out[:, :, ~later].sum(), inputs):
        assert not grad[:, :, later].any()


def test_groups_of_one_point_in_time_are_never_always_on():
    layout = gpa_nd.video((1, 2, 2), (6, 2, 2), 2, causal=(True, False, False)).layout((6, 4, 4), (6, 4, 4))
    assert layout.always is None


def test_audio_by_hand():
    layout = gpa_nd.audio(2, 3, 1, causal=True).layout((12,), (12,))
    assert layout.always.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layout.key_ranges.tolist() == [[0, 0], [0, 2], [0, 4]]
    assert layout.ranked_by.tolist() == [0, 0, 1]


def test_the_earlier_cell_ranks(backend):
    """Cell 2 attends to the past group that the queries of cell 1 ask for, not to the one that its own ask for."""
    layout = gpa_nd.audio(2, 3, 1, causal=True).layout((12,), (12,))
    codes = 40 * torch.eye(6, dtype=torch.float64)
    k = codes.repeat_interleave(2, 0)[None, None]
    q = codes[[0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3]][None, None]
    assert select_keys(q, k, layout, kappa=1, backend=backend)[0, 0, :, 0].tolist() == [-1, 0, 1]


def test_positions_of_a_graph_in_time(backend):
    """Events in any order: who is earlier is said by positions alone."""
    rng = torch.Generator().manual_seed(2)
    time = torch.randperm(24, generator=rng) // 2
    groups = Partition.from_labels(time // 3)
    layout = causal(Layout(groups, Partition.from_labels(torch.tensor([0, 1, 1, 2])), groups), time, time)
    q, k, v = torch.randn(3, 1, 1, 24, 4, generator=rng, dtype=torch.float64)
    out = gpa_attention(q, k, v, layout, kappa=9, backend=backend)
    seen = time <= time[:, None]
    expected = (q @ k.mT / 2).masked_fill(~seen, -torch.inf).softmax(-1) @ v
    assert (out - expected).abs().max() < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_cells_above_begin_in_time_in_whatever_order_elements_are(backend, seed):
    """Where the first query of a cell is not the earliest, the cell above that holds it may begin too late."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(24).flip(0) if seed == 0 else torch.randperm(24, generator=rng)
    each, pairs = Partition.from_labels(torch.arange(24)), Partition.from_labels(torch.arange(24) // 2)
    above = Layout(pairs, Partition.from_labels(torch.arange(12) // 2), pairs)
    layout = Layout(each, Partition.from_labels(torch.arange(24) * 5 // 24), each, coarser=above)
    layout = causal(layout, time, time)
    tokens = torch.randn(3, 1, 1, 24, 4, generator=rng, dtype=torch.float64)
    dense = tokens[0] @ tokens[1].mT / 2
    expected = dense.masked_fill(time > time[:, None], -torch.inf).softmax(-1) @ tokens[2]
    assert (gpa_attention(*tokens, layout, kappa=99, backend=backend) - expected).abs().max() < 1e-12
    out = gpa_attention(*tokens, layout, kappa=(1, 1), backend=backend)
    for t in range(24):
        later = time > t
        other = changed_later(dict(zip("qkv", tokens, strict=True)), later, "numbers")
        assert gpa_attention(**other, layout=layout, kappa=(1, 1), backend=backend)[:, :, ~later].equal(
            out[:, :, ~later]
        )


def test_structures_side_by_side_do_not_rank_for_each_other(backend):
    """Positions begin anew in each; what happened early in one must not choose for the other."""
    plain = gpa_nd.audio(2, 4, 1)
    each = [causal(plain.layout((n,), (n,)), torch.arange(n), torch.arange(n)) for n in (16, 24)]
    place = torch.cat([torch.arange(16), torch.arange(24)])
    together = causal(plain.packed_layout([(16,), (24,)]), place, place)
    tokens = torch.randn(3, 1, 2, 40, 4, dtype=torch.float64)
    out = gpa_attention(*tokens, together, kappa=2, backend=backend)
    for layout, of in zip(each, (slice(0, 16), slice(16, 40)), strict=True):
        alone = gpa_attention(*tokens[..., of, :], layout, kappa=2, backend=backend)
        assert (out[:, :, of] - alone).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gpa_nd.audio(causal=1), TypeError, "causal: expected a bool or a tuple of bools, one per axis, got 1"),
        (
            lambda: gpa_nd.image(causal=(True,)),
            ValueError,
            r"causal: expected one bool for each of 2 axes, got \(True,\)",
        ),
        (
            lambda: gpa_nd.GPA(GridPartitioner(2), GridDownsampler((2, 2)), kappa=1, causal=(False,)),
            ValueError,
            r"causal: expected one bool for each of 2 axes, got \(False,\)",
        ),
        (
            lambda: gpa_nd.GPA(GridPartitioner(2), GridDownsampler(2), kappa=1, causal=(True,)).layout((8, 8), (8, 8)),
            ValueError,
            r"causal: expected one bool for each of 2 axes, got \(True,\)",
        ),
        (
            lambda: gpa_nd.graph(torch.tensor([[0], [1]]), 2, causal=True),
            ValueError,
            "causal: expected False, as a graph has no axis to be causal along, got True; gpa_nd.causal takes",
        ),
        (
            lambda: gpa_nd.GPA(
                gpa_nd.partitioners.GraphPartitioner(torch.tensor([0])),
                gpa_nd.ops.GraphDownsampler(torch.tensor([0, 0])),
                kappa=1,
                causal=True,
            ),
            ValueError,
            "causal: expected operators of a grid, got GraphPartitioner, which has no axis to be causal along; gpa_nd",
        ),
        (
            lambda: gpa_nd.audio(causal=True).layout((8,), (9,)),
            ValueError,
            r"causal: expected keys as long as queries along axes \[0\], got queries of shape \(8,\) and keys of",
        ),
        (
            lambda: causal(gpa_nd.audio().layout((8,), (8,)), torch.arange(7), torch.arange(8)),
            ValueError,
            r"query_positions: expected shape \(8,\) or \(8, causal axes\), .*, got \(7,\)",
        ),
        (
            lambda: causal(gpa_nd.audio().layout((8,), (8,)), torch.arange(8.0), torch.arange(8)),
            TypeError,
            "query_positions: expected an int64 or int32 tensor, got torch.float32",
        ),
        (
            lambda: causal(gpa_nd.audio().layout((8,), (8,)), torch.arange(8), torch.zeros(8, 2, dtype=torch.int64)),
            ValueError,
            "key_positions: expected 1 axes as query_positions has, got 2",
        ),
        (
            lambda: causal(
                gpa_nd.audio(2, 2).layout((8,), (8,)), torch.arange(8), torch.arange(8), [torch.tensor([-1, 1])]
            ),
            ValueError,
            "before: expected a cell that ends before cell 1 begins, got 1",
        ),
        (
            lambda: causal(gpa_nd.audio(causal=True).layout((8,), (8,)), torch.arange(8), torch.arange(8)),
            ValueError,
            "layout: expected one that is not causal yet; give positions on all axes at once",
        ),
        (
            lambda: causal(gpa_nd.image(2, 2).layout((4, 4), (4, 4)), torch.zeros(4, 4).long(), torch.zeros(16).long()),
            ValueError,
            r"query_positions: expected shape \(16,\) or \(16, causal axes\), a row for each element, those of a grid "
            r"row-major, got \(4, 4\)",
        ),
        (lambda: causal(None, torch.arange(8), torch.arange(8)), TypeError, "layout: expected a Layout, got NoneType"),
        (
            lambda: causal(gpa_nd.audio().layout((8,), (8,)), torch.arange(8), torch.arange(8), 3),
            TypeError,
            "before: expected a sequence of tensors, got int",
        ),
        (
            lambda: causal(
                gpa_nd.audio(2, 2).layout((8,), (8,)), torch.arange(8), torch.arange(8), [torch.tensor([-1, 9])]
            ),
            ValueError,
            "before: expected cells −1 … 1, got -1 … 9",
        ),
        (
            lambda: gpa_nd.audio(causal=(False, True)),
            ValueError,
            r"causal: expected one bool for each of 1 axes, got \(False, True\)",
        ),
        (
            lambda: causal(gpa_nd.audio().layout((8,), (8,)), torch.arange(8), torch.arange(8), []),
            ValueError,
            "before: expected one tensor for each of 1 levels, got 0",
        ),
        (
            lambda: causal(gpa_nd.audio(2, 2).layout((8,), (8,)), torch.arange(8), torch.arange(8), [torch.arange(5)]),
            ValueError,
            r"before: expected shape \(2,\), one earlier cell for each, got \(5,\)",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
