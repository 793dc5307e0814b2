"""Proposals keep what they promise, and nothing of the search that is better is left out."""

from functools import partial

import pytest
import torch

import gpa_nd
from gpa_nd import GPA
from gpa_nd.diagnostics import captured_mass, cost, propose_capturing, propose_within
from gpa_nd.ops import GridDownsampler
from gpa_nd.partitioners import GridPartitioner
from gpa_nd.selection import SoftTopK

PLACES = torch.arange(512) / 8
PHASES = torch.stack([PLACES.sin(), PLACES.cos()], dim=-1)[None, None] * 6
EDGES = torch.randint(300, (2, 900), generator=torch.Generator().manual_seed(0))
DOMAINS = {
    "audio": (gpa_nd.audio, (2000,), 20e6),
    "image": (gpa_nd.image, (40, 56), 20e6),
    "causal image": (partial(gpa_nd.image, causal=(True, False)), (40, 56), 40e6),
    "video": (gpa_nd.video, (6, 20, 24), 40e6),
    "graph": (partial(gpa_nd.graph, EDGES, 300), (300,), 1e6),
    "reranked audio": (partial(gpa_nd.audio, ranking="rerank"), (2000,), 40e6),
    "audio that is pooled": (partial(gpa_nd.audio, unselected="pooled"), (2000,), 60e6),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_a_budget_is_kept_and_more_keys_would_break_it(name):
    make, shape, budget = DOMAINS[name]
    found = propose_within(make, shape, channels=16, multiply_adds=budget, memory=2**24)
    assert found
    for proposal in found:
        again = cost(make(**proposal.settings), shape, channels=16)
        assert again == proposal.cost
        assert again.total.multiply_adds <= budget
        assert again.torch_bytes <= 2**24
        more = cost(make(**proposal.settings | {"kappa": 2 * proposal.kappa + 2}), shape, channels=16)
        assert more.total.multiply_adds > budget or more.keys_per_query > more.visible_per_query / 3
    keys = [proposal.cost.keys_per_query for proposal in found]
    assert keys == sorted(keys, reverse=True)


def test_videos_are_offered_groups_and_cells_of_single_frames():
    shape, causal = (6, 16, 24), partial(gpa_nd.video, causal=(True, False, False))
    found = propose_within(gpa_nd.video, shape, channels=16, multiply_adds=40e6)
    assert {(1, 4, 4), (2, 4, 4), 2, 4} <= {proposal.downsample for proposal in found}
    frames = propose_within(causal, shape, channels=16, multiply_adds=10e6)  # too little for groups of several frames
    assert all(proposal.downsample[0] == 1 and proposal.cells[0] == 6 for proposal in frames)


def test_a_proposal_says_how_many_of_its_keys_are_always_on():
    make = partial(gpa_nd.audio, causal=True)
    for proposal in propose_within(make, (2048,), channels=16, multiply_adds=20e6):
        of_cell = 2048 // proposal.cells
        assert proposal.always_on == of_cell  # the groups that the cell overlaps, which are its own
        assert proposal.always_on < proposal.cost.keys_per_query <= of_cell + proposal.kappa * proposal.downsample
        assert f" keys per query ({of_cell} always on), " in str(proposal)
    for proposal in propose_within(gpa_nd.audio, (2048,), channels=16, multiply_adds=20e6):
        assert proposal.always_on == 0
        assert "always on" not in str(proposal)


def test_any_function_of_the_settings_makes_one_for_two_structures():
    def listening(downsample, cells, kappa):
        groups = GridDownsampler(downsample)
        return GPA(GridPartitioner(cells), groups, key_downsampler=GridDownsampler(16), kappa=kappa)

    found = propose_within(listening, (32, 32), (4000,), channels=16, multiply_adds=10e6)
    assert all(proposal.cost.keys == 4000 for proposal in found)
    captured = propose_capturing(listening, torch.randn(1, 1, 32, 32, 8), torch.randn(1, 1, 4000, 8), 0.2)
    assert captured[0].mass.mean >= 0.2


@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_a_mass_is_captured_and_by_fewer_keys_it_is_not(mass):
    found = propose_capturing(gpa_nd.audio, PHASES, PHASES, mass, queries=10**6)
    assert found
    tokens = PHASES, PHASES
    for proposal in found:
        layout = proposal.gpa.layout((512,), (512,))
        kept = captured_mass(*tokens, layout, gpa_nd.select_keys(*tokens, layout, kappa=proposal.kappa))
        assert kept.mean == pytest.approx(proposal.mass.mean)
        assert kept.mean >= mass
        if proposal.kappa > 1:
            fewer = gpa_nd.select_keys(*tokens, layout, kappa=proposal.kappa // 2)
            assert captured_mass(*tokens, layout, fewer).mean < mass
    costs = [proposal.cost.total.multiply_adds for proposal in found]
    assert costs == sorted(costs)


def test_a_ranking_is_that_of_what_is_proposed():
    x = torch.randn(1, 1, 512, 8, generator=torch.Generator().manual_seed(0)) * 2
    for proposal in propose_capturing(partial(gpa_nd.audio, ranking="rerank", mass=0.99), x, x, 0.6, queries=512):
        gpa = proposal.gpa
        layout = gpa.layout((512,), (512,))
        chosen = gpa_nd.select_keys(x, x, layout, kappa=proposal.kappa, ranking="rerank", mass=0.99)
        assert captured_mass(x, x, layout, chosen).mean == pytest.approx(proposal.mass.mean)
        assert proposal.cost.at_most


def test_no_more_coarse_keys_are_proposed_than_there_are_candidates():
    make = partial(gpa_nd.audio, selection=SoftTopK(candidates=5))
    assert {proposal.kappa for proposal in propose_within(make, (512,), channels=8, multiply_adds=1e9)} == {4}


def test_a_sample_of_queries_is_enough():
    everything, some = (propose_capturing(gpa_nd.audio, PHASES, PHASES, 0.9, queries=n)[0] for n in (512, 64))
    assert some.settings == everything.settings
    assert len(some.mass.queries) < 100


def test_images_of_two_sizes_and_shared_heads():
    make = partial(gpa_nd.image, enable_gqa=True, affinity="euclidean")
    q, k = torch.randn(1, 4, 12, 16, 4), torch.randn(1, 2, 8, 20, 4)
    found = propose_capturing(make, q, k, 0.3, value_channels=3)
    assert found[0].cost.queries == 192
    assert found[0].cost.keys == 160


def test_the_module_of_a_proposal_is_that_of_its_settings():
    proposal = propose_within(gpa_nd.image, (32, 32), channels=8, multiply_adds=1e6)[0]
    q, k, v = torch.randn(3, 1, 1, 32, 32, 8)
    assert proposal.gpa(q, k, v).equal(gpa_nd.image(**proposal.settings)(q, k, v))
    assert str(proposal).startswith("downsample=4, cells=(8, 8), kappa=")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: propose_within(gpa_nd.audio, (64,), channels=4), ValueError, "expected a budget for at least one"),
        (
            lambda: propose_within(gpa_nd.audio, (64,), channels=4, memory="1 GB"),
            TypeError,
            "memory: expected a number, got '1 GB'",
        ),
        (
            lambda: propose_within(gpa_nd.audio, (4096,), channels=4, memory=10),
            ValueError,
            r"memory: expected at least [\d,]+ bytes = .*iB, the least of \d+ settings \(downsample=.*, cells=.*, "
            r"kappa=\d+\), got 10 bytes = 10 B",
        ),
        (
            lambda: propose_within(gpa_nd.audio, (4096,), channels=4, multiply_adds=10),
            ValueError,
            r"multiply_adds: expected at least [\d,]+ multiply-adds = .*kappa=1\), got 10 multiply-adds = 10",
        ),
        (
            lambda: propose_within(gpa_nd.image, (64, 64), channels=16, multiply_adds=5e6, memory=650e3),
            ValueError,
            r"memory, multiply_adds: expected what one setting keeps within, and more than [\d,]+ bytes = .* and "
            r"[\d,]+ multiply-adds = .*; got 650,000 bytes = 635 KiB and 5,000,000 multiply-adds = 5 M",
        ),
        (
            lambda: propose_within(gpa_nd.audio, (64,), channels=4, memory=float("nan")),
            ValueError,
            "memory: expected a finite number above 0, got nan",
        ),
        (
            lambda: propose_within(gpa_nd.audio, 3000, channels=4, memory=1e9),
            TypeError,
            r"query_shape: expected a tuple of ints, such as \(256, 256\), got 3000",
        ),
        (
            lambda: propose_within(gpa_nd.video, (16, 64, 64), 3000, channels=4, memory=1e9),
            TypeError,
            "key_shape: expected a tuple of ints, got 3000",
        ),
        (
            lambda: propose_within(gpa_nd.audio, (3,), channels=4, memory=1e9),
            ValueError,
            r"query_shape: expected one large enough for groups to choose from, got \(3,\); dense attention serves it",
        ),
        (lambda: propose_capturing(gpa_nd.audio, PHASES, PHASES, 0), ValueError, "mass: expected a number above 0"),
        (lambda: propose_capturing(gpa_nd.audio, PHASES, PHASES, 1.1), ValueError, "and at most 1, got 1.1"),
        (lambda: propose_capturing(gpa_nd.audio, PHASES, PHASES, True), TypeError, "mass: expected a number, got True"),
        (
            lambda: propose_capturing(gpa_nd.audio, PHASES * 0, PHASES * 0, 1),
            ValueError,
            r"mass: expected at most 0\.\d+, the most that a setting captures \(downsample=.*\), got 1",
        ),
        (
            lambda: propose_capturing(gpa_nd.audio, PHASES, PHASES, 0.5, queries=0),
            ValueError,
            "queries: expected at least 1, got 0",
        ),
        (lambda: propose_capturing(gpa_nd.audio, PHASES[0], PHASES[0], 0.5), ValueError, "q: expected shape"),
        (lambda: propose_within(gpa_nd.audio(), (64,), channels=4, memory=1e9), TypeError, "make: .* got GPA"),
        (
            lambda: propose_within(partial(gpa_nd.audio, kappa=4), (64,), channels=4, memory=1e9),
            ValueError,
            "make: expected it to leave open what is proposed, got a partial with kappa",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
