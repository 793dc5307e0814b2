"""Which losses a step has."""

import pytest

from examples.pose_morph.presets import PRESETS, TrainingSettings
from examples.pose_morph.training.terms import terms_of


def names(step: int, *, paired: bool = True, **settings: float) -> str:
    terms = terms_of(step, TrainingSettings(steps=10, batch_size=2, **settings), paired=paired)
    return " ".join(name.rstrip("_") for name, on in terms._asdict().items() if on)


def test_equation_two_adds_all_three_in_every_step():
    assert {names(step, self_every=1) for step in range(4)} == {"per self gan"}


def test_with_self_every_two_they_take_turns():
    assert [names(step, self_every=2) for step in range(4)] == ["per gan", "self"] * 2


def test_self_every_zero_leaves_the_self_supervised_term_out():
    assert {names(step, self_every=0) for step in range(4)} == {"per gan"}


def test_the_discriminator_waits_for_its_start():
    assert [names(step, gan_start=1) for step in range(2)] == ["per self", "per self gan"]
    assert names(5, gan_weight=0.0) == "per self"


@pytest.mark.parametrize("self_every", [0, 1, 2])
def test_unpaired_data_has_no_perceptual_term_and_the_others_in_every_step(self_every):
    assert {names(step, paired=False, self_every=self_every) for step in range(4)} == {"self gan"}


def test_the_papers_presets_add_the_terms_and_the_demo_takes_turns():
    assert PRESETS["deepfashion256"].training.self_every == 1
    assert PRESETS["demo"].training.self_every == 2
