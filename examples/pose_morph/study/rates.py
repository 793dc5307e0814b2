"""R2G and G2R with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from examples.pose_morph.study.assignment import held_places
from examples.pose_morph.study.ledger import GOLDEN_MINIMUM, Ledger, Standing

RESAMPLES = 10_000
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of answers.

    Attributes:
        taken: Answers that took the picture for what it is not.
        answers: All answers.
        wilson: Wilson's 95 % interval, as if all answers were independent; None without answers.
        bootstrap: The 95 % percentile interval over participants drawn anew; None for fewer than two.
    """

    taken: int
    answers: int
    wilson: tuple[float, float] | None
    bootstrap: tuple[float, float] | None

    @property
    def share(self) -> float | None:
        """The rate; None without answers."""
        return self.taken / self.answers if self.answers else None


@dataclass(frozen=True)
class ParticipantScore:
    """One participant in a few numbers."""

    participant: str
    standing: Standing
    answers: int
    golden_right: int
    golden_answered: int


@dataclass(frozen=True)
class StudyResult:
    """What a study has found so far.

    Attributes:
        r2g: Share of answers on real pictures that say generated.
        g2r: Share of answers on generated pictures that say real.
        places_filled: Answers that count or still may, of ``places``; more than a picture needs are not counted here.
        places: Pictures times answers.
        mean_seconds: Of the answers that count, from the picture's appearance; None where no times are known.
        median_seconds: The same.
        participants: Everybody who joined.
    """

    r2g: Rate
    g2r: Rate
    places_filled: int
    places: int
    mean_seconds: float | None
    median_seconds: float | None
    participants: tuple[ParticipantScore, ...]

    def to_record(self) -> dict[str, Any]:
        """Return the result as JSON knows it, with the definitions of its numbers."""
        record = asdict(self)
        record["r2g"]["share"], record["g2r"]["share"] = self.r2g.share, self.g2r.share
        return {**record, "definitions": DEFINITIONS}


DEFINITIONS = {
    "r2g": "real pictures taken for generated, as a share of the answers on real pictures",
    "g2r": "generated pictures taken for real, as a share of the answers on generated pictures",
    "wilson": "Wilson score interval, 95 %; counts all answers as independent, which answers of one person are not",
    "bootstrap": f"percentile interval, 95 %, {RESAMPLES} draws of participants with replacement; crude for few people",
    "participants": f"answers count from people with enough golden questions right, out of {GOLDEN_MINIMUM} at least",
}


def wilson_interval(taken: int, answers: int) -> tuple[float, float] | None:
    """Return Wilson's 95 % interval of a share.

    >>> low, high = wilson_interval(5, 10)
    >>> round(low, 4), round(high, 4)
    (0.2366, 0.7634)
    """
    if answers == 0:
        return None
    share, square = taken / answers, Z95**2
    centre = (share + square / (2 * answers)) / (1 + square / answers)
    half = Z95 / (1 + square / answers) * math.sqrt(share * (1 - share) / answers + square / (4 * answers**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(people: Sequence[tuple[int, int]], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % interval of a share over participants, each given as (taken, answers)."""
    counts = np.array([entry for entry in people if entry[1] > 0], dtype=np.int64)
    if len(counts) < 2:
        return None
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    sums = draws @ counts
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    return float(low), float(high)


def summarise(ledger: Ledger, now: float) -> StudyResult:
    """Return the rates over the participants whose answers count, and everybody's standing."""
    design = ledger.design
    tallies: dict[str, list[tuple[int, int]]] = {"real": [], "generated": []}
    seconds: list[float] = []
    scores = []
    for name, person in ledger.participants.items():
        standing = ledger.standing(person, now)
        answered = [question for question in person.questions.values() if question.answer is not None]
        scores.append(ParticipantScore(name, standing, len(answered), *ledger.golden_score(person)))
        if standing != "counts":
            continue
        for truth, tally in tallies.items():
            answers = [
                question.answer
                for question in answered
                if design.exhibits[question.exhibit].truth == truth and not design.exhibits[question.exhibit].golden
            ]
            tally.append((sum(answer != truth for answer in answers), len(answers)))
        seconds += [
            question.seconds
            for question in answered
            if question.seconds is not None and not design.exhibits[question.exhibit].golden
        ]
    numbers = design.numbers(golden=False)
    held = held_places(ledger, now)
    return StudyResult(
        _rate(tallies["real"]),
        _rate(tallies["generated"]),
        sum(min(held[number], design.answers) for number in numbers),
        len(numbers) * design.answers,
        float(np.mean(seconds)) if seconds else None,
        float(np.median(seconds)) if seconds else None,
        tuple(scores),
    )


def _rate(people: list[tuple[int, int]]) -> Rate:
    taken, answers = sum(entry[0] for entry in people), sum(entry[1] for entry in people)
    return Rate(taken, answers, wilson_interval(taken, answers), bootstrap_interval(people))
