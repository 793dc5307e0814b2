"""Intervals against known values, and rates over people whose answers are known."""

import pytest

from examples.pose_morph.study.events import Answered, Asked, Finished, Joined
from examples.pose_morph.study.ledger import Ledger
from examples.pose_morph.study.rates import bootstrap_interval, summarise, wilson_interval
from tests.examples.pose_morph.study.conftest import make_design


@pytest.mark.parametrize(
    ("taken", "answers", "low", "high"),
    [  # Newcombe (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(taken, answers, low, high):
    assert wilson_interval(taken, answers) == pytest.approx((low, high), abs=6e-5)


def test_nothing_is_said_without_answers_or_over_a_single_person():
    assert wilson_interval(0, 0) is None
    assert bootstrap_interval([(3, 10)]) is None
    assert bootstrap_interval([(3, 10), (0, 0)]) is None


def test_people_who_agree_with_themselves_widen_the_interval_over_people():
    low, high = bootstrap_interval([(0, 100)] * 10 + [(100, 100)] * 10)
    wilson = wilson_interval(1000, 2000)
    assert low < 0.35 < wilson[0] < wilson[1] < 0.65 < high
    # Of 20 people drawn, the number out of the second half is binomial: 6 to 14 of 20 hold 95.9 %.
    assert (low, high) == pytest.approx((0.3, 0.7), abs=0.011)


def test_people_who_are_alike_leave_no_spread_between_them():
    assert bootstrap_interval([(30, 100)] * 5) == pytest.approx((0.3, 0.3))


def test_rates_count_errors_per_truth_of_those_who_passed_and_leave_golden_questions_out():
    design = make_design(2, 2, answers=2)  # real 0, 1; generated 2, 3; golden 4 (real), 5 (generated)
    ledger = Ledger(design)
    opinions = {
        "a": ["real", "generated", "generated", "generated", "real", "generated"],
        "b": ["real", "real", "real", "generated", "real", "generated"],
        "out": ["generated", "generated", "real", "real", "generated", "real"],
    }
    for name, answers in opinions.items():
        ledger.apply(Joined(name, 0, 4, 2))
        for exhibit, answer in enumerate(answers):
            truth, golden = design.exhibits[exhibit].truth, design.exhibits[exhibit].golden
            ledger.apply(Asked(name, 0, f"{name}{exhibit}", exhibit))
            seconds = None if exhibit == 0 else 100.0 if golden or name == "out" else float(exhibit)
            ledger.apply(Answered(name, 0, f"{name}{exhibit}", answer, seconds, exhibit, truth, golden))
        ledger.apply(Finished(name, 0, 0, 2, True))
    result = summarise(ledger, 0)
    assert (result.r2g.taken, result.r2g.answers) == (1, 4)
    assert (result.g2r.taken, result.g2r.answers) == (1, 4)
    assert result.r2g.share == 0.25
    assert result.mean_seconds == pytest.approx(2.0)
    assert (result.places_filled, result.places) == (8, 8)
    assert [person.standing for person in result.participants] == ["counts", "counts", "failed"]
    assert result.to_record()["g2r"]["share"] == 0.25
