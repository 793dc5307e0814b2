"""Phase 1 of backend "triton", against the reference: in Triton's interpreter, or on a GPU where there is one."""

import math
import sys

import pytest
import torch

pytest.importorskip("triton")

from gpa_nd import Layout, Partition
from gpa_nd.engine import reference
from gpa_nd.engine.fused import best, chunks, pooling, ranking, selection, selection_tiles
from gpa_nd.engine.fused.groups import Groups
from gpa_nd.engine.fused.launch import Chip
from gpa_nd.engine.fused.selection_tiles import Tile, channel_parts, pool_tile, select_tile, sum_tile_of, tile_of
from tests.engine.fused.reserved import room

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SCALE = 0.25

# NumPy, which interprets the kernels on a CPU, warns of what GPUs compute in silence.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered:RuntimeWarning")


def partition(*sizes: int) -> Partition:
    """Shuffled cells of these sizes, so that no place is its own element number."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return Partition.from_labels(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))])


def each(n: int) -> Partition:
    """n cells of one element."""
    return Partition.from_labels(torch.arange(n))


# Kinds of cells: the one that ranks affinities, those that share a tile, those that take several tiles.
CELLS = {
    "of one coarse query": partition(*[1] * 9),
    "equal, a power of two": partition(*[4] * 5),
    "equal, not a power of two": partition(*[3] * 5),
    "ragged": partition(5, 1, 3, 5, 2),
    "large": partition(40, 33),
    "large beside small": partition(1, 37, 2, 18),
}


@pytest.fixture(params=CELLS.values(), ids=CELLS.keys())
def cells(request) -> Partition:
    return request.param


def layout_of(cells: Partition, keys: int, ranges=None, groups=None) -> Layout:
    """Queries in ragged groups; keys in ``groups``, or none."""
    rng = torch.Generator().manual_seed(len(cells))
    query_groups = partition(*torch.randint(1, 5, (cells.num_elements,), generator=rng).tolist())
    return Layout(query_groups, cells, each(keys) if groups is None else groups, key_ranges=ranges)


def tokens(layout: Layout, *, batch=1, heads=2, key_heads=None, c=16, dtype=torch.float32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, layout.query_groups.num_elements, c, generator=rng)
    k = torch.randn(batch, key_heads or heads, layout.key_groups.num_elements, c, generator=rng)
    return q.to(dtype), k.to(dtype)


def select(q, k, layout, kappa, scale=SCALE):
    return selection.select_keys(q.to(DEVICE), k.to(DEVICE), layout.to(DEVICE), kappa, scale)[0].cpu()


def expected(q, k, layout, kappa, scale=SCALE):
    return reference.select_keys(q, k, layout, kappa, scale, "dot", None, None, None)[0]


def use_tile(monkeypatch, tile: Tile) -> None:
    monkeypatch.setattr(selection, "tile_of", lambda *args: tile)


# What is chosen


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_geometry_has_the_reference_s_keys(case, dtype):
    layout = case.layout()
    q, k, _ = case.flat_tokens(batch=1, heads=1, c=16, dtype=dtype)
    kappa = max(1, len(layout.key_groups) // 3)
    assert select(q, k, layout, kappa).equal(expected(q, k, layout, kappa))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("c", [1, 16, 17, 40, 80, 96, 128, 192, 200, 256])
def test_any_head_size(c, dtype):
    layout = layout_of(CELLS["ragged"], 37)
    q, k = tokens(layout, heads=1, c=c, dtype=dtype)
    assert select(q, k, layout, 9, c**-0.5).equal(expected(q, k, layout, 9, c**-0.5))


TILES = [Tile(16, 64, 4, 2), Tile(64, 16, 4, 2, channels=16), Tile(128, 64, 8, 2), Tile(128, 32, 4, 2, channels=32)]


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_no_tile_changes_what_is_chosen(cells, tile, monkeypatch):
    layout = layout_of(cells, 150)
    q, k = tokens(layout, heads=1, c=80)
    use_tile(monkeypatch, tile)
    assert select(q, k, layout, 11).equal(expected(q, k, layout, 11))


@pytest.mark.parametrize("keys", [1, 33])
@pytest.mark.parametrize("kappa", [1, 3, 100])
def test_kappa_from_one_to_more_than_all_keys(cells, keys, kappa):
    layout = layout_of(cells, keys)
    q, k = tokens(layout, heads=1)
    chosen = select(q, k, layout, kappa)
    assert chosen.shape[-1] == min(kappa, keys)
    assert chosen.equal(expected(q, k, layout, kappa))


@pytest.mark.parametrize("sizes", [(1,) * 19, (4,) * 8, (3,) * 9, (1, 30, 2, 2, 9, 1), (70,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_groups_of_any_sizes_are_pooled_as_the_reference_pools(sizes, dtype):
    groups = partition(*sizes)
    x = tokens(layout_of(CELLS["ragged"], 0, groups=groups), c=24, dtype=dtype)[1]
    low = pooled(x, groups, stored=len(groups) + 5)
    mean = groups.mean(x).flatten(0, 1)
    eps = torch.finfo(dtype).eps if dtype == torch.float32 else 0  # float32 adds in another order
    assert (low[:, : len(groups), :24] - mean).abs().max() <= 2 * eps * x.abs().max()
    assert (low[:, len(groups) :] == 0).all()
    assert (low[:, :, 24:] == 0).all()


def pooled(x, groups, stored):
    parts = Groups(groups.order.to(DEVICE), groups.offsets.to(DEVICE), groups.largest)
    return pooling.pool(x.to(DEVICE), parts, selection.chip_of(torch.device(DEVICE)), stored).cpu()


def test_many_tiles_of_keys_make_blocks(monkeypatch):
    monkeypatch.setattr(selection_tiles, "BLOCKS_AT_MOST", 2)
    assert select_tile(7) == selection_tiles.SelectTile(blocks=2, tiles=4)
    layout = layout_of(CELLS["ragged"], 100)  # seven tiles of 16
    q, k = tokens(layout)
    assert select(q, k, layout, 30).equal(expected(q, k, layout, 30))


def test_grouped_query_heads_share_their_keys(cells):
    layout = layout_of(cells, 21)
    q, k = tokens(layout, batch=2, heads=4, key_heads=2)
    assert select(q, k, layout, 5).equal(expected(q, k, layout, 5))


def test_chunks_of_heads_share_their_keys(cells, monkeypatch):
    monkeypatch.setattr(chunks, "SUMS_AT_ONCE", 1)
    monkeypatch.setattr(selection_tiles, "SUMS_AT_ONCE", 1)
    layout = layout_of(cells, 21)
    q, k = tokens(layout, batch=2, heads=4, key_heads=2)
    assert select(q, k, layout, 5).equal(expected(q, k, layout, 5))


@pytest.mark.parametrize("scale", [-0.3, 0.0, 1e-30])
def test_any_scale(cells, scale):
    layout = layout_of(cells, 21)
    q, k = tokens(layout)
    got, want = select(q, k, layout, 5, scale), expected(q, k, layout, 5, scale)
    if scale == 1e-30 and cells.largest == 1:  # the softmax rounds all to one number, the affinities differ
        got, want = got[..., 0] * 0, want[..., 0] * 0
    assert got.equal(want)


# Ties


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_identical_keys_the_lower_index_goes_first(cells, dtype):
    rng = torch.Generator().manual_seed(1)
    copies = torch.randperm(3 * 20, generator=rng) % 20
    layout = layout_of(cells, len(copies))
    q, k = tokens(layout, heads=1, dtype=dtype)
    k = k[:, :, copies]
    for row in select(q, k, layout, 25).flatten(0, 2):
        kinds = copies[row]
        for kind in kinds.unique():
            twins = (copies == kind).nonzero()[:, 0]
            here = row[kinds == kind]
            assert here.equal(twins[: len(here)])


def test_all_keys_equal_are_chosen_in_order(cells):
    layout = layout_of(cells, 40)
    q, k = tokens(layout)
    chosen = select(q, k[:, :, :1].expand_as(k), layout, 18)
    assert chosen.equal(torch.arange(18).expand_as(chosen))


# Ranges


def ranges_of(m: int, keys: int, seed=0):
    """Random ranges, the first of them empty."""
    ranges = torch.randint(keys + 1, (m, 2), generator=torch.Generator().manual_seed(seed)).sort(-1).values
    ranges[0] = torch.tensor([keys // 2, keys // 2])
    return ranges


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cell_sees_only_its_range(cells, seed):
    layout = layout_of(cells, 70, ranges_of(len(cells), 70, seed))
    q, k = tokens(layout, heads=1)
    chosen = select(q, k, layout, 45)
    assert (chosen[:, :, 0] == -1).all()
    assert chosen.equal(expected(q, k, layout, 45))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_hidden_may_be_anything(cells, bad):
    ranges = torch.tensor([[20, 50]]).repeat(len(cells), 1)
    ranges[-1] = torch.tensor([5, 60])  # shares tiles with the others
    layout = layout_of(cells, 70, ranges)
    q, k = tokens(layout, heads=1)
    clean = select(q, k, layout, 9)
    k[:, :, 50:] = bad
    k[:, :, :20] = bad
    chosen = select(q, k, layout, 9)
    assert chosen[:, :, :-1].equal(clean[:, :, :-1])
    assert (chosen[:, :, -1] == -2).all()


# What cannot be ranked


@pytest.mark.parametrize(("bad", "dtype"), [(torch.nan, torch.float32), (-torch.inf, torch.bfloat16)], ids=str)
def test_a_query_that_is_not_finite_spoils_its_cell_alone(cells, bad, dtype):
    layout = layout_of(cells, 21)
    q, k = tokens(layout, dtype=dtype)
    clean = select(q, k, layout, 5)
    element = q.shape[2] // 2
    q[0, 1, element, 3] = bad
    spoilt = layout.fine_cells.labels[element]
    clean[0, 1, spoilt] = -2
    assert select(q, k, layout, 5).equal(clean)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_key_that_is_not_finite_spoils_its_batch_entry_and_head_alone(cells, bad):
    layout = layout_of(cells, 21)
    q, k = tokens(layout, batch=2)
    clean = select(q, k, layout, 5)
    k[0, 1, 20, 3] = bad
    clean[0, 1] = -2
    assert select(q, k, layout, 5).equal(clean)


def test_affinities_that_overflow_spoil_the_cell(cells):
    layout = layout_of(cells, 21)
    q, k = tokens(layout, heads=1)
    clean = select(q, k, layout, 5)
    q[:, :, layout.fine_cells.labels == 1] = 3e30
    k[:, :, 20] += 1e10
    assert (select(q, k, layout, 5)[:, :, 1] == -2).all()
    assert (clean[:, :, 1] >= 0).all()


def test_large_affinities_lose_nothing(cells):
    layout = Layout(each(cells.num_elements), cells, each(37))
    q, k = (x.round() for x in tokens(layout))
    q[..., 0], k[..., 0] = 2**11, 2**11  # integers, so that no product rounds: 2²² and a little more or less
    sums = weights_in_float64(q, k, layout, SCALE)
    chosen = select(q, k, layout, 12)
    least = sums.gather(-1, chosen)[..., -1:]
    others = sums.scatter(-1, chosen, 0)
    assert (others <= least * (1 + 1e-5)).all()


def weights_in_float64(q, k, layout, scale):
    weights = (q.double() @ k.double().mT * scale).softmax(-1)
    return torch.stack([cell.sum(-2) for cell in layout.query_cells.split(weights)], dim=-2)


@pytest.mark.parametrize("keys", [1, 20])
def test_affinities_of_minus_infinity_are_the_last_of_those_seen(cells, keys):
    ranges = torch.tensor([[0, keys]]).repeat(len(cells), 1)
    ranges[-1, 1] = keys - 1
    layout = layout_of(cells, keys, ranges)
    q, k = tokens(layout, heads=1)
    q[..., 0] = 1e30
    k[..., 0] = 0
    k[:, :, : keys // 2, 0] = -1e30
    chosen = select(q, k, layout, keys)
    assert chosen.equal(expected(q, k, layout, keys))
    if keys == 20:
        assert set(chosen[0, 0, 0, 10:].tolist()) == set(range(10))
        assert chosen[0, 0, -1, -1] == -1


def test_a_cell_that_sees_only_minus_infinity_cannot_be_ranked(cells):
    layout = layout_of(cells, 20)
    q, k = tokens(layout, heads=1)
    q[..., 0], k[..., 0] = 1e30, -1e30
    assert (select(q, k, layout, 5) == -2).all()


# Memory


@pytest.mark.parametrize("limit", [1, 1500])
def test_sums_are_held_a_chunk_at_a_time(cells, limit, monkeypatch):
    layout = layout_of(cells, 40, ranges_of(len(cells), 40))
    q, k = tokens(layout, heads=3)
    taken = []
    monkeypatch.setattr(chunks, "SUMS_AT_ONCE", limit)
    monkeypatch.setattr(selection_tiles, "SUMS_AT_ONCE", limit)
    run = ranking.take
    monkeypatch.setattr(ranking, "take", lambda *args: taken.append((args[1], args[6])) or run(*args))
    assert select(q, k, layout, 7).equal(expected(q, k, layout, 7))
    least = math.ceil(16 / (1 << (cells.largest - 1).bit_length())) * 48  # the cells of one tile
    assert taken[0][1].numel() <= max(limit, least)
    assert sum(chunk.heads * chunk.cells for chunk, _ in taken) == 3 * len(cells)


def test_neither_the_affinity_nor_all_sums_are_held(largest_tensor):
    layout = Layout(each(3000), each(3000), each(3000))
    q = torch.empty(1, 64, 3000, 16, device=DEVICE)
    with pytest.MonkeyPatch.context() as patch, largest_tensor() as largest:
        for module in (pooling, ranking, best):
            patch.setattr(module, "launch", lambda *args, **settings: None)
        selection.fused_select_keys._init_fn(q, q, *tables(layout), 4, SCALE, False)
    assert largest.numel <= 2**24  # the sums have 2^29 entries


def tables(layout):
    layout = layout.to(DEVICE)
    parts = (layout.query_groups, layout.query_cells, layout.key_groups)
    return [x for part in parts for x in (part.order, part.offsets, part.largest)] + [layout.key_ranges, *[None] * 5]


def test_strided_inputs_are_read_where_they_are():
    layout = layout_of(CELLS["ragged"], 21)
    q, k = tokens(layout, batch=2)
    clean = select(q, k, layout, 5)
    heads_last = [torch.full((2, x.shape[2], 3, 40), torch.nan) for x in (q, k)]
    every_other = [torch.full((2, 2, x.shape[2], 32), torch.nan) for x in (q, k)]
    for view, x in zip(heads_last, (q, k), strict=True):
        view[:, :, :2, 5:21] = x.transpose(1, 2)
    for view, x in zip(every_other, (q, k), strict=True):
        view[..., ::2] = x
    assert select(*(view.to(DEVICE)[:, :, :2, 5:21].transpose(1, 2) for view in heads_last), layout, 5).equal(clean)
    assert select(*(view.to(DEVICE)[..., ::2] for view in every_other), layout, 5).equal(clean)
    assert select(q[:1, :1].expand_as(q), k[:1, :1].expand_as(k), layout, 5).equal(clean[:1, :1].expand_as(clean))


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that takes no room until it is touched")
@pytest.mark.parametrize("stride", ["head", "row"])
def test_numbers_past_two_to_the_31_are_reached(stride):
    layout = Layout(each(6), partition(2, 2, 2), each(6))
    q, k = tokens(layout, heads=2, dtype=torch.bfloat16)
    strides = (0, 2**31 + 64, 16, 1) if stride == "head" else (0, 16, 2**29, 1)
    numbers = 1 + sum((n - 1) * s for n, s in zip(q.shape, strides, strict=True))
    far = room(numbers, DEVICE).as_strided(q.shape, strides)
    far.copy_(k)
    assert select(q, far, layout, 4).equal(expected(q, k, layout, 4))
    far.copy_(q)
    assert select(far, k, layout, 4).equal(expected(q, k, layout, 4))


def test_more_coarse_keys_than_the_kernels_hold_are_refused():
    layout = layout_of(CELLS["ragged"], 5)
    q, k = tokens(layout)
    arguments = tables(layout)
    arguments[7] = arguments[7][:1].expand(2**21 + 2)
    with pytest.raises(ValueError, match=r"134,217,728 coarse queries and 2,097,152 coarse keys, got 16 and 2,097,153"):
        selection.fused_select_keys(q, k, *arguments, 4, SCALE, False)


def test_nothing_of_uninitialised_memory_is_seen_and_repeats_agree_bit_for_bit(cells, monkeypatch):
    layout = layout_of(cells, 70, ranges_of(len(cells), 70), groups=None)
    q, k = tokens(layout, c=17)
    clean = select(q, k, layout, 20)
    empty = torch.empty

    def poisoned(*shape, **settings):
        made = empty(*shape, **settings)
        return made.fill_(torch.nan if made.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)
    for _ in range(2):
        assert select(q, k, layout, 20).equal(clean)


# The op


@pytest.mark.parametrize("ranges", [None, ranges_of(5, 21)], ids=["", "ranges"])
def test_the_op_passes_opcheck(ranges):
    layout = layout_of(CELLS["ragged"], 21, ranges)
    q, k = (x.to(DEVICE) for x in tokens(layout))
    torch.library.opcheck(selection.fused_select_keys, (q, k, *tables(layout), 5, SCALE, False))


def test_it_compiles_without_a_graph_break():
    layout = layout_of(CELLS["ragged"], 21).to(DEVICE)
    q, k = (x.to(DEVICE) for x in tokens(layout))
    eager = selection.select_keys(q, k, layout, 5, SCALE)[0]
    compiled = torch.compile(selection.select_keys, backend="aot_eager", fullgraph=True)
    assert compiled(q, k, layout, 5, SCALE)[0].equal(eager)


def test_it_has_no_gradient_and_autocast_does_not_touch_it():
    layout = layout_of(CELLS["ragged"], 21)
    q, k = (x.requires_grad_() for x in tokens(layout))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        with torch.autocast(DEVICE, torch.bfloat16):
            chosen = select(q, k, layout, 5)
    assert kept == []
    assert not chosen.requires_grad
    assert chosen.equal(expected(q.detach(), k.detach(), layout, 5))


# Configurations


@pytest.mark.parametrize("at_most", [16, 32, 64, 128, 256])
def test_channels_are_stored_in_two_powers_of_two_and_multiplied_in_parts_that_divide_them(at_most):
    for c in range(1, 257):
        main, rest = channel_parts(c)
        stored = main + rest
        assert c <= stored < max(17, c + 32, 1.34 * c)
        assert all(part & (part - 1) == 0 and part >= 16 for part in (main, rest or 16))
        main, rest = channel_parts(c, at_most)
        assert main + rest == stored or (main + rest <= at_most and stored % main == 0 and not rest)


@pytest.mark.parametrize("chip", ["sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "gfx942", "gfx90a", "interpreter"])
def test_every_chip_has_a_tile_for_every_head_size(chip):
    for dtype in DTYPES:
        for c in range(1, 257):
            tile = tile_of(c, dtype, Chip(chip, 100))
            assert tile.rows >= 16 <= tile.keys


def test_few_cells_share_a_tile_where_many_sums_could_not_be_held():
    tile = Tile(128, 64, 8, 2)
    assert sum_tile_of(tile, largest=1, keys=2**17).rows == 128
    assert sum_tile_of(tile, largest=1, keys=2**20).rows == 16
    assert sum_tile_of(tile, largest=64, keys=2**24).rows == 64
    assert sum_tile_of(tile, largest=4, keys=2**27).rows == 16
    assert sum_tile_of(tile, largest=4, keys=2**20) == Tile(64, 64, 4, 2)


def test_pool_tiles_hold_all_channels():
    for channels in (16, 48, 80, 256):
        assert pool_tile(channels, 5).width >= channels
