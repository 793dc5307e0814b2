"""Who is asked what: every picture gets its answers, and nobody sees a picture twice."""

import random
from collections import Counter

from examples.pose_morph.study.ledger import GOLDEN_MINIMUM, Ledger, Participant


def held_places(ledger: Ledger, now: float) -> Counter[int]:
    """Return per exhibit how many of its places are taken.

    An answer holds a place while its participant is answering and when it counts; a question that waits for its answer
    holds one while its participant is answering. Whoever failed the golden questions or left early holds none.
    """
    held: Counter[int] = Counter()
    for person in ledger.participants.values():
        match ledger.standing(person, now):
            case "answering":
                held.update(question.exhibit for question in person.questions.values())
            case "counts":
                held.update(question.exhibit for question in person.questions.values() if question.answer is not None)
    return held


def free_exhibits(ledger: Ledger, now: float) -> dict[int, int]:
    """Return the study's exhibits with free places, and how many places are taken."""
    held = held_places(ledger, now)
    numbers = ledger.design.numbers(golden=False)
    return {number: held[number] for number in numbers if held[number] < ledger.design.answers}


def plan(ledger: Ledger, now: float) -> tuple[int, int]:
    """Return how many pictures and golden questions somebody who joins now would get; no pictures when all are held.

    Golden questions come in the study's proportion, but enough of them to judge a participant.
    """
    design = ledger.design
    golden = len(design.numbers(golden=True))
    pictures = min(design.pictures_each, len(free_exhibits(ledger, now)))
    proportional = round(golden * pictures / len(design.numbers(golden=False)))
    return pictures, min(golden, max(GOLDEN_MINIMUM, proportional))


def next_exhibit(ledger: Ledger, participant: str, now: float) -> int | None:
    """Return what a participant is asked next, or None at the end.

    Golden questions stand at random places of the participant's order. Of the study's pictures, one with the fewest
    places taken comes next. Once none is free, only the golden questions that are needed to judge the participant are
    left.
    """
    design, person = ledger.design, ledger.participants[participant]
    seen = person.seen()
    if len(seen) >= person.pictures + person.golden:
        return None
    draw = random.Random(f"{design.seed} {participant} {len(seen)}")
    free = {number: held for number, held in free_exhibits(ledger, now).items() if number not in seen}
    golden = [number for number in design.numbers(golden=True) if number not in seen]
    golden_seen = sum(design.exhibits[number].golden for number in seen)
    if not free:
        return draw.choice(golden) if golden and golden_seen < min(GOLDEN_MINIMUM, person.golden) else None
    if _golden_turns(design.seed, participant, person)[len(seen)] and golden and golden_seen < person.golden:
        return draw.choice(golden)
    fewest = min(free.values())
    return draw.choice([number for number, held in free.items() if held == fewest])


def _golden_turns(seed: int, participant: str, person: Participant) -> list[bool]:
    """Which of a participant's questions are golden, in a random order that is the same after a restart."""
    turns = [True] * person.golden + [False] * person.pictures
    random.Random(f"{seed} {participant}").shuffle(turns)
    return turns
