"""What a GPA will cost is what PyTorch is then asked to do, operation by operation."""

import pytest
import torch

import gpa_nd
from benchmarks.counting import Counted
from gpa_nd import GPA
from gpa_nd.always import GlobalElements, GridNeighbourhood
from gpa_nd.diagnostics import cost
from gpa_nd.nn import TokenAttention
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK, StraightThrough

NEAR = 0.2  # as far as an estimate may be off

EDGES = torch.randint(700, (2, 2000), generator=torch.Generator().manual_seed(0))
BETWEEN = GPA(GridPartitioner((4, 4)), GridDownsampler(4), key_downsampler=GridDownsampler(8), kappa=5, backend="torch")
CASES = {
    "an image": (gpa_nd.image(4, (8, 8), 6), (48, 48), {}),
    "an image that nothing divides": (gpa_nd.image(4, (5, 7), 6), (45, 61), {"batch": 2, "heads": 2}),
    "cells of one group": (gpa_nd.image(4, (12, 12), 2), (48, 48), {"value_channels": 3}),
    "one cell": (gpa_nd.audio(8, 1, 6), (1000,), {}),
    "audio": (gpa_nd.audio(16, 32, 8), (4096,), {"channels": 32}),
    "video": (gpa_nd.video((2, 4, 4), (2, 3, 4), 6), (7, 22, 31), {}),
    "a graph": (gpa_nd.graph(EDGES, 700, 8, 12, 4), (700,), {}),
    "causal audio": (gpa_nd.audio(8, 32, 6, causal=True), (3000,), {}),
    "causal video": (gpa_nd.video((1, 4, 4), (6, 3, 4), 6, causal=(True, False, False)), (6, 24, 32), {}),
    "causal along both axes": (gpa_nd.image(4, (6, 6), 3, causal=True), (45, 48), {}),
    "two levels": (gpa_nd.audio(4, 64, (8, 6)), (4096,), {}),
    "three levels, causal": (gpa_nd.audio(4, 64, (8, 6, 4), causal=True), (4096,), {}),
    "a window and a sink": (
        gpa_nd.audio(8, 16, 4, always=[GridNeighbourhood(9), GlobalElements(torch.arange(2))]), (2048,), {},
    ),
    "a pack": (gpa_nd.audio(8, 8, 4), [(900,), (3000,), (100,)], {}),
    "an image and audio": (BETWEEN, (40, 40), {"key_shape": (3000,)}),
    "bfloat16": (gpa_nd.image(4, (8, 8), 6), (48, 48), {"dtype": torch.bfloat16, "channels": 32}),
    "float64": (gpa_nd.image(4, (8, 8), 6), (48, 48), {"dtype": torch.float64}),
    "shared heads": (gpa_nd.image(4, (8, 8), 6, enable_gqa=True), (48, 48), {"heads": 4, "key_heads": 2}),
    "distances": (gpa_nd.image(4, (8, 8), 6, affinity="euclidean"), (48, 48), {}),
    "rms": (gpa_nd.image(4, (8, 8), 6, ranking="rms"), (48, 48), {}),
    "rms, d = 2": (gpa_nd.image(2, (8, 8), 6, ranking="rms"), (40, 44), {"batch": 2}),
    "rms, two levels": (gpa_nd.audio(4, 64, (8, 6), ranking="rms"), (4096,), {}),
    "moments": (gpa_nd.image(4, (4, 4), 6, ranking="moments"), (48, 48), {"heads": 2}),
    "moments, d = 2": (gpa_nd.image(2, (8, 8), 6, ranking="moments"), (45, 44), {}),
    "moments, two levels": (gpa_nd.audio(4, 64, (8, 6), ranking="moments"), (4096,), {}),
    "rerank": (gpa_nd.image(4, (6, 6), 6, ranking="rerank"), (48, 48), {}),
    "rerank, d = 2": (gpa_nd.image(2, (8, 8), 6, ranking="rerank"), (40, 44), {"heads": 2}),
    "rerank of what nothing divides": (gpa_nd.image(4, (5, 7), 6, ranking="rerank"), (45, 61), {}),
    "rerank, causal": (gpa_nd.audio(8, 32, 6, ranking="rerank", causal=True), (3000,), {}),
    "rerank, three levels": (gpa_nd.audio(4, 64, (8, 6, 4), ranking="rerank"), (4096,), {}),
    "rerank, shared heads": (
        gpa_nd.image(4, (8, 8), 6, ranking="rerank", enable_gqa=True), (48, 48), {"heads": 4, "key_heads": 2},
    ),
    "rerank of distances": (gpa_nd.image(4, (8, 8), 6, ranking="rerank", affinity="euclidean"), (48, 48), {}),
    "rerank, bfloat16": (gpa_nd.image(4, (8, 8), 6, ranking="rerank"), (48, 48), {"dtype": torch.bfloat16}),
    "rerank of groups of one": (gpa_nd.image(1, (6, 6), 6, ranking="rerank"), (24, 24), {}),
    "rerank of a graph": (gpa_nd.graph(EDGES, 700, 8, 12, 4, ranking="rerank"), (700,), {}),
    "a mass": (gpa_nd.image(4, (8, 8), 24, mass=0.5), (64, 64), {}),
    "rerank and a mass": (gpa_nd.image(4, (8, 8), 6, ranking="rerank", mass=0.5), (48, 48), {}),
    "rerank of all, and a mass": (gpa_nd.image(4, (8, 8), 200, ranking="rerank", mass=0.5), (48, 48), {}),
    "many of many": (gpa_nd.audio(4, 64, 40, ranking="rms"), (8192,), {}),
}  # fmt: skip

BESIDE_ALWAYS_ON = gpa_nd.audio(
    8, 16, 4, always=[GridNeighbourhood(9)], selection=SoftTopK(candidates=9), unselected="pooled", backend="torch"
)
BESIDE = {
    "soft": (gpa_nd.image(4, (6, 6), 6, selection=SoftTopK()), (48, 48), {}),
    "soft, d = 2": (gpa_nd.image(2, (6, 6), 6, selection=SoftTopK(candidates=8)), (40, 44), {"heads": 2}),
    "soft, causal": (gpa_nd.audio(8, 16, 4, selection=SoftTopK(), causal=True), (2048,), {"heads": 2}),
    "soft, two levels": (gpa_nd.audio(4, 64, (8, 6), selection=SoftTopK()), (4096,), {"channels": 32}),
    "soft and rerank": (gpa_nd.image(4, (6, 6), 6, selection=SoftTopK(), ranking="rerank"), (48, 48), {}),
    "soft, shared heads": (
        gpa_nd.image(4, (6, 6), 6, selection=SoftTopK(), enable_gqa=True), (48, 48), {"heads": 4, "key_heads": 2},
    ),
    "straight": (gpa_nd.image(4, (5, 7), 6, selection=StraightThrough()), (45, 61), {"channels": 32}),
    "pooled": (gpa_nd.image(4, (6, 6), 6, unselected="pooled", backend="torch"), (48, 48), {"value_channels": 24}),
    "pooled, of what nothing divides": (gpa_nd.image(4, (5, 7), 6, unselected="pooled"), (45, 61), {"batch": 2}),
    "pooled, causal": (gpa_nd.audio(8, 16, 4, unselected="pooled", causal=True), (2048,), {"channels": 32}),
    "pooled, a few queries at once": (gpa_nd.audio(4, 64, 8, unselected="pooled"), (6000,), {"batch": 2}),
    "pooled, bfloat16": (gpa_nd.image(4, (6, 6), 6, unselected="pooled"), (48, 48), {"dtype": torch.bfloat16}),
    "pooled, a graph": (gpa_nd.graph(EDGES, 700, 8, 12, 4, unselected="pooled"), (700,), {"heads": 2}),
    "pooled, distances": (gpa_nd.image(4, (6, 6), 6, unselected="pooled", affinity="euclidean"), (48, 48), {}),
    "soft and pooled beside a window": (BESIDE_ALWAYS_ON, (2048,), {"heads": 2, "channels": 32}),
}  # fmt: skip


def made(gpa, query_shape, settings):
    """The layout, q, k and v, and the settings of a call of backend "torch"."""
    keys = settings.get("key_shape", query_shape)
    layout = gpa.packed_layout(query_shape, keys) if isinstance(query_shape, list) else gpa.layout(query_shape, keys)
    c, batch, heads = (settings.get(name, default) for name, default in (("channels", 16), ("batch", 1), ("heads", 1)))
    shared, dtype = settings.get("key_heads", heads), settings.get("dtype", torch.float32)
    n_q, n_k = layout.query_groups.num_elements, layout.key_groups.num_elements
    q = torch.randn(batch, heads, n_q, c, dtype=dtype, requires_grad=True)
    k = torch.randn(batch, shared, n_k, c, dtype=dtype, requires_grad=True)
    v = torch.randn(batch, shared, n_k, settings.get("value_channels", c), dtype=dtype, requires_grad=True)
    return layout, q, k, v, {"affinity": gpa.affinity, "enable_gqa": shared != heads, "backend": "torch"}


def called(gpa, q, k, v, layout, chosen):
    more = {"ranking": gpa.ranking, "mass": gpa.mass, "selection": gpa.selection, "unselected": gpa.unselected}
    return gpa_nd.gpa_attention(q, k, v, layout, kappa=gpa.kappa, **chosen, **more)


def measured(gpa, query_shape, settings, part):
    """What PyTorch does in a call of backend "torch": in Phase 1, in Phase 2, in all, or in the gradients."""
    layout, q, k, v, chosen = made(gpa, query_shape, settings)
    kappa = tuple(
        max(1, min(x, level.most_visible)) for x, level in zip(kappas(gpa, layout), levels(layout), strict=True)
    )
    for _ in range(2):  # what a partition makes once is there in the second round
        counted = Counted()
        if part == "all":
            with counted.counting(q, k, v):
                out = called(gpa, q, k, v, layout, chosen)
                torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
            continue
        with counted.counting(q, k, v) if part == "phase1" else Counted():
            relevant = gpa_nd.select_keys(q, k, layout, kappa=kappa, ranking=gpa.ranking, mass=gpa.mass, **chosen)
        with counted.counting(q, k, v) if part == "phase2" else Counted():
            out = gpa_nd.attend(q, k, v, layout, relevant, **chosen)
        gradient = torch.ones_like(out)
        with counted.counting(q, k, v, gradient) if part == "backward" else Counted():
            torch.autograd.grad(out, (q, k, v), gradient)
    return counted


def measured_forth_and_back(gpa, query_shape, settings):
    """(multiply-adds, bytes read, bytes written) of the result, and of its gradients."""
    layout, q, k, v, chosen = made(gpa, query_shape, settings)
    for _ in range(2):
        counted, found = Counted(), []
        with counted.counting(q, k, v):
            out = called(gpa, q, k, v, layout, chosen)
        counted.add_tokens([out])
        found.append((counted.multiply_adds, counted.bytes_read, counted.bytes_written))
        gradient = torch.ones_like(out)
        with counted.counting(gradient):
            counted.add_tokens(torch.autograd.grad(out, (q, k, v), gradient))
        total = counted.multiply_adds, counted.bytes_read, counted.bytes_written
        found.append(tuple(x - y for x, y in zip(total, found[0], strict=True)))
    return found


def levels(layout):
    return [layout] if layout.coarser is None else [layout, *levels(layout.coarser)]


def kappas(gpa, layout):
    return gpa.kappa if isinstance(gpa.kappa, tuple) else (gpa.kappa,) * layout.levels


def estimated(gpa, query_shape, settings, **more):
    return cost(gpa, query_shape, **{"channels": 16} | settings, **more)


@pytest.mark.parametrize("part", ["phase1", "phase2", "backward"])
@pytest.mark.parametrize("name", CASES)
def test_operations_and_bytes_are_those_that_are_computed_and_moved(name, part):
    counted, work = measured(*CASES[name], part), getattr(estimated(*CASES[name], backward=True), part)
    assert work.multiply_adds == counted.multiply_adds
    assert work.bytes_read == pytest.approx(counted.bytes_read, rel=NEAR)
    assert work.bytes_written == pytest.approx(counted.bytes_written, rel=NEAR)


@pytest.mark.parametrize("name", BESIDE)
def test_operations_and_bytes_count_what_is_weighed_between_the_phases_and_pooled_beside_them(name):
    found = estimated(*BESIDE[name], backward=True)
    works = found.phase1 + found.phase2, found.backward
    for work, (multiply_adds, read, written) in zip(works, measured_forth_and_back(*BESIDE[name]), strict=True):
        assert work.multiply_adds == multiply_adds
        assert work.bytes_read == pytest.approx(read, rel=NEAR)
        assert work.bytes_written == pytest.approx(written, rel=NEAR)


@pytest.mark.parametrize("name", CASES | BESIDE)
def test_memory_is_that_of_the_tensors_that_are_made(name):
    gpa, shape, settings = (CASES | BESIDE)[name]
    found = measured(gpa, shape, settings, "all")
    gradient = estimated(gpa, shape, settings).dense.bytes_written  # as large as the result
    expected = estimated(gpa, shape, settings, backward=True).torch_bytes
    assert expected == pytest.approx(found.peak - gradient, rel=NEAR)


def test_multiply_adds_of_an_even_case_are_those_of_the_formula():
    found = cost(gpa_nd.image(4, (32, 32), 12), (256, 256), channels=64, batch=2, heads=3, backward=True)
    n, g = 256**2, 16
    assert found.phase1.multiply_adds == 6 * (n // g) ** 2 * 64
    assert found.phase2.multiply_adds == 6 * n * 12 * g * 128
    assert found.phase2.operations == 2 * found.phase2.multiply_adds
    assert found.backward is not None
    assert found.backward.multiply_adds == 6 * n * 12 * g * 5 * 64
    assert found.dense.multiply_adds == 6 * n * n * (2 + 5) * 64
    assert (found.keys_per_query, found.visible_per_query) == (192, n)
    assert found.token_bytes == 3 * 6 * n * 64 * 4


@pytest.mark.parametrize("name", CASES)
def test_keys_per_query_are_those_of_a_random_selection(name):
    gpa, shape, settings = CASES[name]
    keys = settings.get("key_shape", shape)
    layout = gpa.packed_layout(shape, keys) if isinstance(shape, list) else gpa.layout(shape, keys)
    q, k = (torch.zeros(1, 1, part.num_elements, 1) for part in (layout.query_groups, layout.key_groups))
    relevant = gpa_nd.select_keys(q, k, layout, kappa=10**6)[0, 0]  # all that may be selected, then what is always on
    count = len(layout.key_groups)
    selectable, always = relevant[None, :, :count].expand(50, -1, -1), relevant[:, count:]
    rank = torch.rand(selectable.shape).masked_fill(selectable < 0, 2).argsort(-1)
    drawn = selectable.gather(-1, rank)[..., : kappas(gpa, layout)[0]]
    of_cells = (layout.members.sizes[drawn.clamp_min(0)] * (drawn >= 0)).sum(-1).float().mean(0)
    of_cells += (layout.members.sizes[always.clamp_min(0)] * (always >= 0)).sum(-1)
    found = float((of_cells * layout.fine_cells.sizes).sum()) / q.shape[2]
    assert estimated(gpa, shape, settings).keys_per_query == pytest.approx(found, rel=0.03)


def test_keys_per_query_of_a_selection_are_those_of_its_candidates_and_the_rest_is_pooled():
    learned = cost(gpa_nd.image(4, (6, 6), 6, selection=SoftTopK(), unselected="pooled"), (48, 48), channels=8)
    assert (learned.keys_per_query, learned.pooled_per_query, learned.at_most) == (24 * 16, 144 - 24, True)
    assert str(learned).startswith(
        "2,304 queries, each of which attends to at most 384 of 2,304 keys (16.67%), and to "
    )
    assert str(learned).endswith("not counted: what SoftTopK(temperature=1.0) makes of the scores of candidates")
    straight = cost(gpa_nd.image(4, (6, 6), 6, selection=StraightThrough()), (48, 48), channels=8)
    assert (straight.keys_per_query, straight.pooled_per_query, straight.at_most) == (6 * 16, 0, False)
    assert cost(gpa_nd.image(4, (6, 6), 6, mass=0.5), (48, 48), channels=8).at_most


def test_memory_without_gradients_keeps_nothing_for_them():
    for gpa, shape, settings in BESIDE.values():
        layout, q, k, v, chosen = made(gpa, shape, settings)
        with torch.no_grad(), Counted().counting(q, k, v) as counted:
            called(gpa, q, k, v, layout, chosen)
        assert estimated(gpa, shape, settings).torch_bytes == pytest.approx(counted.peak, rel=NEAR)


def test_what_a_cell_cannot_reach_is_not_counted_for_dense_attention():
    causal = cost(gpa_nd.audio(1, 64, 4, causal=True), (64,), channels=8)
    assert causal.visible_per_query == (64 + 1) / 2
    pack = cost(gpa_nd.audio(4, 4, 2), [(40,), (80,)], channels=8)
    assert pack.visible_per_query == pytest.approx((40 * 40 + 80 * 80) / 120)


def test_global_tokens_of_a_layout_are_counted_among_the_keys():
    tokens = TokenAttention(gpa_nd.image(2, 4, 4), grid=(16, 12), leading=1)
    found = cost(tokens.gpa, tokens.gpa.layout(tokens.grid, global_keys=(1, 0)), channels=8)
    assert (found.queries, found.keys, found.keys_per_query) == (192, 193, 4 * 4 + 1)


def test_where_all_keys_are_selected_dense_attention_is_counted():
    found = cost(gpa_nd.audio(4, 4, 100), (64,), channels=8)
    assert found.phase1.multiply_adds == 0
    assert found.phase2 == found.dense
    assert found.keys_per_query == 64


def test_without_queries_or_keys_nothing_is_done():
    found = cost(gpa_nd.audio(4, 4, 2), (0,), (8,), channels=8, backward=True)
    assert found.total.multiply_adds == 0
    assert "0 queries" in str(found)


def test_it_reads_well():
    lines = str(cost(gpa_nd.image(), (256, 256), channels=64, backward=True)).splitlines()
    assert lines[0] == "65,536 queries, each of which attends to 192 of 65,536 keys (0.29%)"
    assert lines[-4] == "287 times fewer multiply-adds than dense attention"
    assert lines[-2] == '  70.8 MiB with backend "torch", 76.8 MiB with "triton"'


AUDIO = gpa_nd.audio(4, 4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cost(AUDIO.partitioner, (8,), channels=4), TypeError, "gpa: expected a GPA, got GridPartitioner"),
        (
            lambda: cost(TokenAttention(AUDIO, (8,), leading=1), (8,), channels=4),
            TypeError,
            r"gpa: expected a GPA, got TokenAttention; cost\(attention.gpa, attention.gpa.layout\(grid, global_keys=\(",
        ),
        (lambda: cost(AUDIO, (8,), channels=0), ValueError, "channels: expected at least 1, got 0"),
        (lambda: cost(AUDIO, (8,), channels=4, batch=1.5), TypeError, "batch: expected"),
        (lambda: cost(AUDIO, 8, channels=4), TypeError, "query_shape: expected a tuple of ints, got 8"),
        (
            lambda: cost(AUDIO, (8,), channels=4, heads=4, key_heads=2),
            ValueError,
            r"key_heads: expected 4, as heads \(enable_gqa is False\), got 2",
        ),
        (
            lambda: cost(gpa_nd.audio(4, 4, 2, enable_gqa=True), (8,), channels=4, heads=4, key_heads=3),
            ValueError,
            "key_heads: expected a divisor of 4, got 3",
        ),
        (lambda: cost(AUDIO, (8,), channels=4, dtype=torch.int64), TypeError, "dtype: expected float16, bfloat16"),
        (lambda: cost(AUDIO, (8,), channels=4, device="gpu"), ValueError, "device: expected the type of one, .* 'gpu'"),
        (lambda: cost(AUDIO, (8.0,), channels=4), TypeError, r"query_shape: expected a tuple of ints, got \(8.0,\)"),
        (lambda: cost(AUDIO, (8,), channels=4, device=0), TypeError, "device: expected the type of one, .* got int"),
        (lambda: cost(AUDIO, (8, 8), channels=4), ValueError, "downsampler: does not fit"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
