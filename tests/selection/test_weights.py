"""Weights of candidates from their scores: the law of Selection, and what each rule computes."""

import copy
import math
import pickle

import pytest
import torch

from gpa_nd.selection import PerturbedTopK, Selection, SoftTopK, StraightThrough, perturbed_top_k, soft_top_k
from gpa_nd.selection import perturbed as perturbed_file

RULES = [
    SoftTopK(0.1),
    SoftTopK(3.0),
    PerturbedTopK(0.7, samples=50, generator=torch.Generator()),
    StraightThrough(SoftTopK(2.0)),
]


@pytest.fixture(params=RULES, ids=lambda rule: f"{type(rule).__name__} {getattr(rule, 'temperature', '')}")
def rule(request):
    return request.param


def weights_of(rule, scores, kappa):
    if isinstance(rule, PerturbedTopK):
        rule.generator.manual_seed(0)
    return rule.weights(scores, kappa)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kappa", [1, 2, 5, 9, 20])
def test_weights_lie_between_zero_and_one_and_add_up_to_kappa(rule, kappa, dtype):
    scores = (torch.randn(3, 40, 9) * 2).to(dtype)
    scores[torch.rand(3, 40, 9) < 0.3] = -torch.inf
    scores[0, 0] = -torch.inf
    scores[0, 1] = 1.0  # all alike
    scores[0, 2] = -torch.arange(9.0) * 1e6
    weights = weights_of(rule, scores, kappa)
    there = ~scores.isneginf()
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[~there] == 0).all()
    assert (weights.sum(-1) - there.sum(-1).clamp_max(kappa)).abs().max() < 1e-5
    assert (weights[(there.sum(-1) <= kappa)[..., None] & there] == 1).all()


def test_weights_depend_on_differences_of_scores_alone(rule):
    scores = torch.randn(50, 7, dtype=torch.float64)
    assert (weights_of(rule, scores, 2) - weights_of(rule, scores - 100, 2)).abs().max() < 1e-12


def test_soft_weights_are_the_nearest_ones_that_add_up_to_kappa():
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(200, 6, generator=rng, dtype=torch.float64) * 2
    for kappa in (1, 3, 5):
        weights = soft_top_k(z * 0.3, kappa, 0.3)
        low, high = z.amin(-1, keepdim=True) - 1, z.amax(-1, keepdim=True)
        for _ in range(100):  # the same by bisection
            middle = (low + high) / 2
            more = (z - middle).clamp(0, 1).sum(-1, keepdim=True) > kappa
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        assert (weights - (z - low).clamp(0, 1)).abs().max() < 1e-12
        for _ in range(20):  # no other such weights are nearer
            others = soft_top_k(torch.randn(200, 6, generator=rng, dtype=torch.float64), kappa, 0.5)
            assert ((weights - z).square().sum(-1) <= (others - z).square().sum(-1) + 1e-12).all()


def test_soft_weights_worked_out_by_hand():
    scores = torch.tensor([[0.0, 0.5, -9.0, 0.2], [4.0, 1.0, 1.0, 1.0], [2.0, 1.5, 1.0, 0.0]])
    by_hand = [[0.1, 0.6, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0], [0.75, 0.25, 0.0, 0.0]]  # τ = −0.1, 3 … 1, 1.25
    assert (soft_top_k(scores, 1, 1.0) - torch.tensor(by_hand)).abs().max() < 1e-6


def test_towards_temperature_zero_soft_selection_is_hard():
    scores = torch.randn(100, 8, dtype=torch.float64)
    hard = torch.zeros_like(scores).scatter(-1, scores.topk(3).indices, 1)
    assert soft_top_k(scores, 3, 1e-9).equal(hard)
    assert perturbed_top_k(scores, 3, 1e-9, samples=2).equal(hard)


@pytest.mark.parametrize("kappa", [1, 3])
def test_gradients_of_soft_weights(kappa):
    scores = torch.randn(10, 6, dtype=torch.float64)
    scores[3, 2:4] = -torch.inf
    scores[4] = -torch.inf
    there = ~scores.isneginf()
    finite = scores[there].requires_grad_()

    def weights(finite):
        return soft_top_k(torch.full_like(scores, -torch.inf).masked_scatter(there, finite), kappa, 0.7)

    assert torch.autograd.gradcheck(weights, finite)
    assert torch.autograd.gradgradcheck(weights, finite)


def test_perturbed_weights_are_chances_of_being_chosen():
    """Of two scores with normal noise, the first is the larger one with chance Φ((s₁ − s₂) / (σ √2))."""
    s = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    rng = torch.Generator().manual_seed(0)
    weights = perturbed_top_k(s, 1, sigma=0.8, samples=2**18, generator=rng)
    x = 0.5 / (0.8 * math.sqrt(2))
    chance = 0.5 * (1 + math.erf(x / math.sqrt(2)))
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi) / (0.8 * math.sqrt(2))
    assert (weights - torch.tensor([chance, 1 - chance])).abs().max() < 4e-3
    (grad,) = torch.autograd.grad(weights[0], s)
    assert (grad - torch.tensor([density, -density])).abs().max() < 8e-3


def test_gradients_of_perturbed_weights_are_those_of_their_mean():
    s, step, samples = torch.tensor([1.0, 0.4, 0.3, -0.5, -torch.inf], dtype=torch.float64), 0.25, 2**19

    def weights(s):
        return perturbed_top_k(s, 2, 1.0, samples, torch.Generator().manual_seed(0))

    jacobian = torch.autograd.functional.jacobian(weights, s)
    for i in range(4):
        ahead, behind = (weights(s.index_add(0, torch.tensor([i]), torch.tensor([d]).double())) for d in (step, -step))
        assert (jacobian[:, i] - (ahead - behind) / (2 * step)).abs().max() < 6e-3
    assert (jacobian[:, 4] == 0).all()
    assert (jacobian[4] == 0).all()


def test_a_generator_decides_the_noise_and_rows_may_be_taken_in_any_portions(monkeypatch):
    scores = torch.randn(30, 6, dtype=torch.float64)
    first, again = (perturbed_top_k(scores, 2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(again)
    monkeypatch.setattr(perturbed_file, "ROOM", 700)
    assert (perturbed_top_k(scores, 2, samples=5000) - perturbed_top_k(scores, 2, samples=5000)).abs().max() < 0.06
    torch.manual_seed(1)
    one = perturbed_top_k(scores, 2)
    assert not perturbed_top_k(scores, 2).equal(one)
    torch.manual_seed(1)
    assert perturbed_top_k(scores, 2).equal(one)


def test_no_rows_have_no_weights(rule):
    assert weights_of(rule, torch.zeros(0, 4), 2).shape == (0, 4)
    assert weights_of(rule, torch.zeros(3, 0), 2).shape == (3, 0)


def test_selections_are_copied_and_say_what_they_are():
    for rule in RULES:
        twin = pickle.loads(pickle.dumps(copy.deepcopy(rule)))
        assert repr(twin).split(", generator")[0].strip(")") == repr(rule).split(", generator")[0].strip(")")
    assert repr(StraightThrough(SoftTopK(2.0, 8))) == "StraightThrough(SoftTopK(candidates=8, temperature=2.0))"


x = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SoftTopK(0), ValueError, "temperature: expected a finite number above 0, got 0"),
        (lambda: SoftTopK(-1.0), ValueError, "temperature: expected a finite number above 0, got -1"),
        (lambda: SoftTopK(float("nan")), ValueError, "temperature: expected a finite number above 0, got nan"),
        (lambda: SoftTopK("1"), TypeError, "temperature: expected a number, got '1'"),
        (lambda: SoftTopK(True), TypeError, "temperature: expected a number, got True"),
        (lambda: SoftTopK(candidates=0), ValueError, "candidates: expected at least 1, got 0"),
        (lambda: SoftTopK(candidates=2.0), TypeError, "candidates: expected an int, got 2.0"),
        (lambda: PerturbedTopK(0.0), ValueError, "sigma: expected a finite number above 0, got 0.0"),
        (lambda: PerturbedTopK(None), TypeError, "sigma: expected a number, got None"),
        (lambda: PerturbedTopK(samples=0), ValueError, "samples: expected at least 1, got 0"),
        (lambda: PerturbedTopK(samples=1.5), TypeError, "samples: expected an int, got 1.5"),
        (lambda: PerturbedTopK(generator=3), TypeError, "generator: expected a torch.Generator or None, got int"),
        (lambda: StraightThrough(0.5), TypeError, "soft: expected a Selection, got float"),
        (lambda: StraightThrough(StraightThrough()), ValueError, "soft: expected a selection that is not hard"),
        (lambda: Selection(), TypeError, "abstract"),
        (lambda: soft_top_k(x, 0), ValueError, "kappa: expected at least 1, got 0"),
        (lambda: soft_top_k(x, 1.0), TypeError, "kappa: expected an int, got 1.0"),
        (lambda: soft_top_k(x, 1, 0.0), ValueError, "temperature: expected a finite number above 0"),
        (lambda: soft_top_k(x.long(), 1), TypeError, "scores: expected a floating point tensor, got torch.int64"),
        (lambda: soft_top_k([1.0], 1), TypeError, "scores: expected a tensor, got list"),
        (lambda: soft_top_k(x[0, 0], 1), ValueError, r"scores: expected shape \(…, candidates\), got \(\)"),
        (lambda: perturbed_top_k(x, 1, sigma=0), ValueError, "sigma: expected a finite number above 0"),
        (lambda: perturbed_top_k(x, 1, samples=0), ValueError, "samples: expected at least 1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
