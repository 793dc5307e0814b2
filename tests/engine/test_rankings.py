"""By what coarse keys are ranked, and how many hold a mass: stated once more in plain loops, and over the rows of
`seeing.py`."""

import math

import pytest
import torch

import gpa_nd
from gpa_nd import gpa_attention, select_keys
from tests.seeing import KEY_HEADS, ROWS

RANKINGS = ["mean", "rms", "moments", "rerank"]


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def selected(row, backend, dtype=torch.float64, seed=3, **settings):
    tokens = {name: x.to(dtype) if x.is_floating_point() else x for name, x in row.tokens(seed=seed).items()}
    del tokens["v"]
    return select_keys(layout=row.layout(), enable_gqa=row.heads > KEY_HEADS, backend=backend, **tokens, **settings)


@pytest.mark.parametrize("mass", [None, 0.5])
@pytest.mark.parametrize("ranking", RANKINGS)
def test_backends_agree(row, ranking, mass):
    settings = {"ranking": ranking, "mass": mass, "kappa": 3}
    assert selected(row, "torch", **settings).equal(selected(row, "reference", **settings))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_all_keys_are_selected_whatever_the_ranking(row, ranking, backend):
    tokens = row.tokens()
    settings = {"ranking": ranking, "enable_gqa": row.heads > KEY_HEADS, "backend": backend}
    out = gpa_attention(layout=row.layout(), kappa=10**6, **tokens, **settings)
    assert (out - row.dense(**tokens)).abs().max() < 1e-12


@pytest.mark.parametrize("ranking", RANKINGS)
def test_planted_keys_are_found(ranking, backend):
    layout = gpa_nd.image(4, (5, 5), 1, ranking=ranking).layout((18, 22), (18, 22))
    wanted = torch.randperm(len(layout.key_groups), generator=torch.Generator().manual_seed(0))[:25]
    codes = 20 * torch.eye(len(layout.key_groups))
    q = codes[wanted][layout.fine_cells.labels][None, None]
    k = codes[layout.key_groups.labels][None, None]
    assert select_keys(q, k, layout, kappa=1, ranking=ranking, backend=backend)[0, 0, :, 0].equal(wanted)


# The definitions -----------------------------------------------------------------------------------------------------


def groups_of(partition, x):
    return [x[partition.labels == group] for group in range(len(partition))]


def norm_kept(x):
    mean = x.mean(0)
    return mean * (x.square().sum(-1).mean() / mean.square().sum()).sqrt()


def best(sums, kappa):
    return sums.sort(dim=-1, descending=True, stable=True).indices[:, :kappa]


def small(seed=0, kappa=2):
    gpa = gpa_nd.audio(8, 5, kappa, ranking="rerank")
    layout = gpa.layout((61,), (61,))
    rng = torch.Generator().manual_seed(seed)
    q, k = 2 * torch.randn(2, 61, 3, generator=rng, dtype=torch.float64)
    return layout, q, k


def cell_sums(weights, labels, cells):
    return torch.zeros(cells, weights.shape[1], dtype=weights.dtype).index_add_(0, labels, weights)


def test_rms_ranks_means_that_are_as_long_as_the_keys(backend):
    layout, q, k = small()
    q_low = torch.stack([x.mean(0) for x in groups_of(layout.query_groups, q)])
    k_low = torch.stack([norm_kept(x) for x in groups_of(layout.key_groups, k)])
    sums = cell_sums((q_low @ k_low.T / 3**0.5).softmax(-1), layout.query_cells.labels, 5)
    found = select_keys(q[None, None], k[None, None], layout, kappa=3, ranking="rms", backend=backend)
    assert found[0, 0].equal(best(sums, 3))


def test_moments_adds_what_a_gaussian_of_so_many_keys_would_reach(backend):
    layout, q, k = small(seed=1)
    q_low = torch.stack([x.mean(0) for x in groups_of(layout.query_groups, q)]) / 3**0.5
    scores = []
    for query in q_low:
        row = []
        for keys in groups_of(layout.key_groups, k):
            deviation = (keys.var(0, unbiased=False).mean() * query.square().sum()).sqrt().item()
            edge = math.sqrt(2 * math.log(len(keys)))
            more = deviation**2 / 2 if deviation <= edge else deviation * edge - edge**2 / 2
            row.append(query @ keys.mean(0) + more)
        scores.append(torch.stack(row))
    sums = cell_sums(torch.stack(scores).softmax(-1), layout.query_cells.labels, 5)
    found = select_keys(q[None, None], k[None, None], layout, kappa=3, ranking="moments", backend=backend)
    assert found[0, 0].equal(best(sums, 3))


@pytest.mark.parametrize("affinity", ["dot", "euclidean"])
def test_rerank_compares_parts_of_groups_among_three_times_as_many(backend, affinity):
    layout, q, k = small(seed=2)
    pooled_key = norm_kept if affinity == "dot" else lambda x: x.mean(0)
    cells, kappa, scale = layout.fine_cells.labels, 2, 0.4

    def of(queries, keys):
        return queries @ keys.T * scale if affinity == "dot" else -(queries[:, None] - keys).square().sum(-1) * scale

    q_low = torch.stack([x.mean(0) for x in groups_of(layout.query_groups, q)])
    k_low = torch.stack([pooled_key(x) for x in groups_of(layout.key_groups, k)])
    first = best(cell_sums(of(q_low, k_low).softmax(-1), layout.query_cells.labels, 5), 3 * kappa)
    # 8 elements of audio are four parts of two, and the last five two parts of two and one of one
    q_parts = torch.stack([x.mean(0) for x in q.split(2)])
    k_parts, sizes = torch.stack([pooled_key(x) for x in k.split(2)]), torch.tensor([len(x) for x in k.split(2)])
    group = torch.arange(61)[::2] // 8
    sums = torch.full((5, 8), -1.0, dtype=torch.float64)
    for cell in range(5):
        queries = q_parts[cells[::2] == cell]
        there = (group[:, None] == first[cell]).any(-1)
        weights = (of(queries, k_parts[there]) + sizes[there].log()).softmax(-1).sum(0)
        for candidate in first[cell]:
            sums[cell, candidate] = weights[group[there] == candidate].sum()
    settings = {"ranking": "rerank", "backend": backend, "affinity": affinity, "scale": scale}
    assert select_keys(q[None, None], k[None, None], layout, kappa=kappa, **settings)[0, 0].equal(best(sums, kappa))


def test_rerank_looks_first_with_parts_of_queries_where_groups_are_large():
    few, many = (gpa_nd.image(d, 4, 1, ranking="rerank").layout((32, 32), (32, 32)) for d in (2, 4))
    assert (few.by_parts, many.by_parts) == (False, True)
    assert many.to("meta").by_parts
    assert len(many.query_parts) == 4 * len(many.query_groups)


def test_parts_of_a_grid_are_blocks_and_of_a_graph_runs():
    assert gpa_nd.ops.GridDownsampler((4, 4)).parts((4, 6)).labels.tolist() == [
        *(0, 0, 1, 1, 2, 2),
        *(0, 0, 1, 1, 2, 2),
        *(3, 3, 4, 4, 5, 5),
        *(3, 3, 4, 4, 5, 5),
    ]
    labels = torch.tensor([0, 1, 0, 0, 0, 1])
    assert gpa_nd.ops.GraphDownsampler(labels).parts((6,)).labels.tolist() == [0, 2, 0, 1, 1, 3]


def test_parts_of_packed_grids_are_those_of_each_side_by_side():
    down, shapes = gpa_nd.ops.GridDownsampler((5, 4)), [(7, 9), (1, 1), (12, 4)]
    one_by_one = gpa_nd.Partition.concat([down.parts(shape) for shape in shapes])
    assert down.packed_parts(shapes).labels.equal(one_by_one.labels)


def test_in_a_pack_each_structure_selects_as_alone(backend):
    gpa = gpa_nd.image(4, 2, 2, ranking="rerank", backend=backend)
    shapes = [(16, 16), (3, 3), (9, 5)]
    layouts = [gpa.layout(shape, shape) for shape in shapes]
    q, k = torch.randn(2, 1, 1, 16 * 16 + 9 + 45, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = {"kappa": 3, "ranking": "rerank", "mass": 0.8, "backend": backend}
    together = select_keys(q, k, gpa_nd.Layout.concat(layouts), **settings)
    start = cell = key = 0
    for layout, (height, width) in zip(layouts, shapes, strict=True):
        of = slice(start, start + height * width)
        alone = select_keys(q[:, :, of], k[:, :, of], layout, **settings)
        here = together[:, :, cell : cell + len(layout.query_cells), : alone.shape[-1]]
        assert torch.where(here >= 0, here - key, here).equal(alone)
        start, cell, key = of.stop, cell + len(layout.query_cells), key + len(layout.key_groups)


def test_rerank_looks_twice_for_a_mass_even_where_all_keys_may_be_kept(backend):
    layout, q, k = small(seed=5, kappa=8)
    settings = {"ranking": "rerank", "mass": 0.4, "backend": backend}
    all_of_them, all_but_one = (select_keys(q[None, None], k[None, None], layout, kappa=n, **settings) for n in (8, 7))
    kept = (all_but_one >= 0).sum(-1)
    assert (kept < 7).any()
    assert all_of_them[..., :7].equal(all_but_one)


def test_of_equal_candidates_the_second_look_keeps_the_order_of_the_first(backend):
    layout, q, k = small(seed=6)
    settings = {"kappa": 4, "ranking": "rerank", "scale": 400.0}  # so sharp that most weights are zero
    first, other = (
        select_keys(q[None, None], k[None, None], layout, backend=b, **settings) for b in ("reference", backend)
    )
    assert first.equal(other)


@pytest.mark.parametrize("ranking", ["rms", "rerank"])
def test_a_mean_that_is_lengthened_stays_a_number(ranking, backend):
    layout = gpa_nd.audio(2, 2, 1, ranking=ranking).layout((8,), (8,))
    k = torch.full((8, 64), 9000.0)
    k[1::2] *= -1  # all cancel but in one channel
    k[:, 0] = 9000.0
    k = k[None, None].half()
    q = torch.full_like(k, 1e-3)
    assert (select_keys(q, k, layout, kappa=1, ranking=ranking, backend=backend) >= 0).all()


@pytest.mark.parametrize(("of_q", "of_k"), [(1e20, 1e-15), (1e15, 1e10), (1e-20, 1e20)])
def test_moments_of_large_and_small_numbers_rank(of_q, of_k, backend):
    layout, q, k = small(seed=7)
    q, k = (q.float() * of_q)[None, None], (k.float() * of_k)[None, None]
    assert (select_keys(q, k, layout, kappa=2, ranking="moments", backend=backend) >= 0).all()


def test_moments_of_keys_that_are_far_from_zero_are_exact(backend):
    layout, q, k = small(seed=8)
    settings = {"kappa": 3, "ranking": "moments", "backend": backend}
    near = select_keys(q[None, None], k[None, None], layout, **settings)
    far = select_keys(q[None, None].float(), (k + 100)[None, None].float(), layout, **settings)
    assert (near == far).float().mean() > 0.9


# A mass --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.2, 0.6, 0.95])
def test_the_fewest_keys_that_hold_the_mass_are_kept(p, backend):
    layout, q, k = small(seed=4)
    q_low, k_low = layout.query_groups.mean(q), layout.key_groups.mean(k)
    sums = cell_sums((q_low @ k_low.T / 3**0.5).softmax(-1), layout.query_cells.labels, 5)
    shares = sums / layout.query_cells.sizes[:, None]
    found = select_keys(q[None, None], k[None, None], layout, kappa=6, mass=p, backend=backend)[0, 0]
    counts = set()
    for share, chosen in zip(shares, found, strict=True):
        kept = chosen[chosen >= 0]
        counts.add(len(kept))
        assert kept.equal(best(share[None], len(kept))[0])
        assert share[kept].sum() >= p or len(kept) == 6
        assert share[kept[:-1]].sum() < p
    assert len(counts) > 1 or p > 0.9


def test_a_mass_leaves_out_no_key_that_is_always_on(backend):
    always = [gpa_nd.always.GlobalElements(torch.tensor([0, 30]))]
    layout = gpa_nd.audio(4, 5, 1, always=always).layout((61,), (61,))
    q, k = torch.randn(2, 1, 1, 61, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = select_keys(q, k, layout, kappa=8, mass=0.3, backend=backend)[0, 0]
    assert found[:, 8:].tolist() == [[0, 7]] * 5
    assert (found[:, :8] < 0).any()


def test_a_gpa_hands_on_ranking_and_mass(backend):
    q, k, v = torch.randn(3, 1, 2, 12, 13, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for settings in ({"ranking": "rms"}, {"ranking": "rerank"}, {"mass": 0.1}):
        gpa = gpa_nd.image(4, 3, 2, backend=backend, **settings)
        flat = [x.flatten(2, 3) for x in (q, k, v)]
        layout = gpa.layout((12, 13), (12, 13))
        out = gpa_attention(*flat, layout, kappa=2, backend=backend, **settings)
        assert gpa(q, k, v).flatten(2, 3).equal(out)
        assert not out.equal(gpa_attention(*flat, layout, kappa=2, backend=backend))


@pytest.mark.parametrize("ranking", ["rms", "moments", "rerank"])
def test_not_a_number_in_a_key_reaches_whoever_may_see_it_and_nobody_else(ranking, backend):
    gpa = gpa_nd.image(4, 3, 2, ranking=ranking, backend=backend)
    q, k, v = torch.randn(3, 1, 2, 12, 13, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = gpa(q, k, v)
    k[0, 1, 5, 5, 2] = torch.nan
    out = gpa(q, k, v)
    assert out[0, 1].isnan().all()
    assert out[0, 0].equal(clean[0, 0])


@pytest.mark.parametrize("ranking", ["rms", "moments", "rerank"])
def test_keys_so_large_that_their_squares_overflow_still_rank(ranking, backend):
    layout = gpa_nd.audio(4, 4, 2, ranking=ranking).layout((32,), (32,))
    q, k = torch.randn(2, 1, 1, 32, 4, generator=torch.Generator().manual_seed(0))
    found = select_keys(q * 1e-20, k * 1e20, layout, kappa=2, ranking=ranking, backend=backend)
    assert (found >= 0).all()


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"ranking": "best"}, ValueError, r"ranking: expected one of 'mean', 'rms', 'moments', 'rerank', got 'best'"),
        ({"ranking": "rms", "affinity": "euclidean"}, ValueError, r"ranking: 'rms' is for affinity='dot', got"),
        ({"ranking": "moments", "affinity": "euclidean"}, ValueError, r"ranking: 'moments' is for affinity='dot'"),
        ({"mass": 0}, ValueError, r"mass: expected a part above 0 and at most 1, got 0"),
        ({"mass": 1.5}, ValueError, r"mass: expected a part above 0 and at most 1, got 1.5"),
        ({"mass": math.nan}, ValueError, r"mass: expected a part above 0"),
        ({"mass": "most"}, TypeError, r"mass: expected a number or None, got 'most'"),
        ({"mass": True}, TypeError, r"mass: expected a number or None, got True"),
    ],
)
def test_bad_input_is_named(settings, error, message):
    with pytest.raises(error, match=message):
        gpa_nd.image(2, 2, 1, **settings)
    layout, q, k = small()
    with pytest.raises(error, match=message):
        select_keys(q[None, None], k[None, None], layout, kappa=2, **settings)


def test_bad_input_of_rerank_is_a_layout_without_parts():
    layout = gpa_nd.audio(4, 4, 2).layout((32,), (32,))
    q, k = torch.randn(2, 1, 1, 32, 4)
    with pytest.raises(ValueError, match=r"ranking: 'rerank' expected a layout with query_parts and key_parts"):
        select_keys(q, k, layout, kappa=2, ranking="rerank")


def test_bad_input_of_a_backend_names_the_ranking_that_it_lacks():
    layout, q, k = small()
    with pytest.raises(ValueError, match=r"backend: 'triton' cannot run: it has no ranking='moments'"):
        select_keys(q[None, None].float(), k[None, None].float(), layout, kappa=2, ranking="moments", backend="triton")


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (lambda x: (x, None), ValueError, r"query_parts and key_parts: expected both or neither"),
        (lambda x: (x, torch.arange(8)), TypeError, r"key_parts: expected a Partition, got Tensor"),
        (
            lambda x: (x, gpa_nd.Partition.from_labels(torch.arange(4))),
            ValueError,
            r"key_parts: expected a partition of 8",
        ),
        (
            lambda x: (gpa_nd.Partition.from_labels(torch.arange(8) // 3), x),
            ValueError,
            r"query_parts: expected every part",
        ),
    ],
)
def test_bad_input_of_a_layout_names_its_parts(parts, error, message):
    pairs, halves = (gpa_nd.Partition.from_labels(torch.arange(n) // 2) for n in (8, 4))
    query_parts, key_parts = parts(pairs)
    with pytest.raises(error, match=message):
        gpa_nd.Layout(pairs, halves, pairs, query_parts=query_parts, key_parts=key_parts)
