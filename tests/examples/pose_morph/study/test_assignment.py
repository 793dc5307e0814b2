"""Whole studies without a page: who is asked what, whose answers count, and what is asked again."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from examples.pose_morph.study.assignment import free_exhibits, next_exhibit, plan
from examples.pose_morph.study.design import StudyDesign, Truth
from examples.pose_morph.study.events import Answered, Asked, Finished, Joined, Shown
from examples.pose_morph.study.ledger import GOLDEN_MINIMUM, PATIENCE, Ledger
from tests.examples.pose_morph.study.conftest import make_design

Opinion = Callable[[Truth], Truth]


def right(truth: Truth) -> Truth:
    return truth


def wrong(truth: Truth) -> Truth:
    return "real" if truth == "generated" else "generated"


class Crowd:
    """People who answer in turn."""

    def __init__(self, design: StudyDesign) -> None:
        self.ledger, self.now, self.opinions = Ledger(design), 0.0, {}

    def join(self, name: str, opinion: Opinion) -> bool:
        pictures, golden = plan(self.ledger, self.now)
        if pictures:
            self.ledger.apply(Joined(name, self.now, pictures, golden))
            self.opinions[name] = opinion
        return pictures > 0

    def step(self, name: str, *, answers: bool = True) -> bool:
        """Ask one question, and answer it; False at the end."""
        self.now += 1.0
        exhibit = next_exhibit(self.ledger, name, self.now)
        if exhibit is None:
            person = self.ledger.participants[name]
            counts = self.ledger.verdict(person) == "counts"
            self.ledger.apply(Finished(name, self.now, *self.ledger.golden_score(person), counts))
            return False
        question, shown = f"{name} {exhibit}", self.ledger.design.exhibits[exhibit]
        self.ledger.apply(Asked(name, self.now, question, exhibit))
        if answers:
            self.ledger.apply(Shown(name, self.now, question))
            answer = self.opinions[name](shown.truth)
            self.ledger.apply(Answered(name, self.now, question, answer, 1.0, exhibit, shown.truth, shown.golden))
        return True

    def all_of(self, name: str) -> None:
        while self.step(name):
            pass

    def answers(self) -> Counter[int]:
        """Answers per picture of the study from the people whose answers count."""
        return Counter(
            question.exhibit
            for person in self.ledger.participants.values()
            if self.ledger.standing(person, self.now) == "counts"
            for question in person.questions.values()
            if question.answer is not None and not self.ledger.design.exhibits[question.exhibit].golden
        )


def test_three_people_give_every_picture_of_the_papers_study_its_three_answers():
    crowd = Crowd(make_design(55, 45))
    for name in "abc":
        crowd.join(name, right)
    turns = random.Random(1)
    while still := [name for name in "abc" if not crowd.ledger.participants[name].finished]:
        crowd.step(turns.choice(still))
    assert crowd.answers() == dict.fromkeys(range(110), 3)
    for person in crowd.ledger.participants.values():
        golden = [crowd.ledger.design.exhibits[question.exhibit].golden for question in person.questions.values()]
        assert len(golden) == len(person.seen())
        assert golden.count(False) == 110
        assert 42 <= golden.count(True) <= 45  # those after the last picture are not asked
        assert all(any(golden[start : start + 25]) for start in range(0, 125, 25))  # spread, not in a row
    assert not crowd.join("late", right)


def test_orders_differ_between_people_and_not_between_runs():
    def order(name: str) -> list[int]:
        crowd = Crowd(make_design(8, 6))
        crowd.join(name, right)
        crowd.all_of(name)
        return [question.exhibit for question in crowd.ledger.participants[name].questions.values()]

    assert order("a") == order("a") != order("b")


@pytest.mark.parametrize("people", [3, 7, 20])
def test_any_number_of_people_at_once_fill_the_places_and_no_more(people):
    crowd = Crowd(make_design(10, 4, pictures_each=9))
    names, turns = [], random.Random(people)
    while True:
        still = [name for name in names if not crowd.ledger.participants[name].finished]
        if len(still) < people and crowd.join(f"p{len(names)}", right):
            names.append(f"p{len(names)}")
        elif still:
            crowd.step(turns.choice(still))
        else:
            break
    assert crowd.answers() == dict.fromkeys(range(20), 3)


def test_who_fails_the_golden_questions_does_not_count_and_the_places_go_to_others():
    crowd = Crowd(make_design(5, 10, answers=1))
    crowd.join("a", wrong)
    crowd.all_of("a")
    assert crowd.ledger.standing(crowd.ledger.participants["a"], crowd.now) == "failed"
    assert len(free_exhibits(crowd.ledger, crowd.now)) == 10
    assert crowd.join("b", right)
    crowd.all_of("b")
    assert crowd.answers() == dict.fromkeys(range(10), 1)
    assert len(crowd.ledger.participants["a"].questions) == 20  # kept all the same


@pytest.mark.parametrize(("correct", "standing"), [(27, "counts"), (26, "failed")])
def test_sixty_percent_of_forty_five_are_twenty_seven(correct, standing):
    crowd = Crowd(make_design(1, 45))
    crowd.join("a", right)
    person = crowd.ledger.participants["a"]
    person.golden = 45
    for number, exhibit in enumerate(crowd.ledger.design.numbers(golden=True)):
        truth = crowd.ledger.design.exhibits[exhibit].truth
        crowd.ledger.apply(Asked("a", 0, str(number), exhibit))
        answer = right(truth) if number < correct else wrong(truth)
        crowd.ledger.apply(Answered("a", 0, str(number), answer, None, exhibit, truth, True))
    crowd.ledger.apply(Finished("a", 0, correct, 45, correct >= 27))
    assert crowd.ledger.standing(person, 0) == standing


def test_who_leaves_gives_the_places_back_after_a_while():
    crowd = Crowd(make_design(2, 0, answers=1))
    crowd.join("a", right)
    crowd.step("a")
    crowd.step("a", answers=False)
    assert len(free_exhibits(crowd.ledger, crowd.now)) == 2  # the answered one and the waiting one are held
    crowd.now += PATIENCE
    assert len(free_exhibits(crowd.ledger, crowd.now)) == 3  # without golden questions the answer counts


def test_who_leaves_before_enough_golden_questions_does_not_count():
    crowd = Crowd(make_design(20, 40))
    crowd.join("a", right)
    person = crowd.ledger.participants["a"]
    while crowd.ledger.golden_score(person)[1] < GOLDEN_MINIMUM - 1:
        crowd.step("a")
    assert crowd.ledger.standing(person, crowd.now) == "answering"
    assert crowd.ledger.standing(person, crowd.now + PATIENCE) == "unverified"
    while crowd.ledger.golden_score(person)[1] < GOLDEN_MINIMUM:
        crowd.step("a")
    assert crowd.ledger.standing(person, crowd.now + PATIENCE) == "counts"


def test_whoever_fills_a_few_places_still_gets_enough_golden_questions_to_be_judged():
    crowd = Crowd(make_design(55, 45, answers=1, pictures_each=110))
    crowd.join("a", right)
    for _ in range(150):
        crowd.step("a")
    left = len(free_exhibits(crowd.ledger, crowd.now))
    assert 0 < left < 10
    crowd.join("b", right)
    crowd.all_of("b")
    assert crowd.ledger.golden_score(crowd.ledger.participants["b"]) == (GOLDEN_MINIMUM, GOLDEN_MINIMUM)


def test_golden_questions_follow_the_share_of_pictures():
    ledger = Ledger(make_design(55, 45, pictures_each=55))
    assert plan(ledger, 0) == (55, 22)


def test_events_that_cannot_follow_are_refused():
    ledger = Ledger(make_design())
    with pytest.raises(ValueError, match="has not joined"):
        ledger.apply(Asked("a", 0, "q", 0))
    ledger.apply(Joined("a", 0, 8, 2))
    with pytest.raises(ValueError, match="second time"):
        ledger.apply(Joined("a", 0, 8, 2))
    with pytest.raises(ValueError, match="was not asked"):
        ledger.apply(Shown("a", 0, "q"))
    with pytest.raises(ValueError, match="no such picture"):
        ledger.apply(Asked("a", 0, "q", 99))
