"""What is known of a study at a moment: its participants and their questions, rebuilt from the events."""

from dataclasses import dataclass, field
from typing import Literal

from examples.pose_morph.study.design import StudyDesign, Truth
from examples.pose_morph.study.events import Answered, Asked, Event, Finished, Joined, Shown

PATIENCE = 600.0
"""Seconds without a word after which a participant is taken to have left."""
GOLDEN_MINIMUM = 10
"""Golden answers without which nobody's answers count (all of them where a study has fewer)."""

Standing = Literal["answering", "counts", "failed", "unverified"]


@dataclass
class Question:
    """An exhibit that a participant was given."""

    exhibit: int
    shown: bool = False
    answer: Truth | None = None
    seconds: float | None = None


@dataclass
class Participant:
    """Somebody who takes part.

    Attributes:
        pictures: Questions of the study that are planned.
        golden: Golden questions that are planned.
        last_seen: Time of the last event.
        questions: By their random name, in the order in which they were asked.
        finished: Whether there is nothing left to answer.
    """

    pictures: int
    golden: int
    last_seen: float
    questions: dict[str, Question] = field(default_factory=dict)
    finished: bool = False

    def current(self) -> tuple[str, Question] | None:
        """Return the question that waits for its answer."""
        return next(((name, question) for name, question in self.questions.items() if question.answer is None), None)

    def seen(self) -> set[int]:
        """Return the exhibits that were asked."""
        return {question.exhibit for question in self.questions.values()}


class Ledger:
    """A study and all that has happened in it. It changes by `apply` alone, so a file of events is as good as it.

    Attributes:
        design: What the study asks.
        participants: By their random name, in the order in which they came.
    """

    def __init__(self, design: StudyDesign) -> None:
        self.design = design
        self.participants: dict[str, Participant] = {}
        self._owners: dict[str, str] = {}

    def apply(self, event: Event) -> None:
        """Take in an event.

        Raises:
            ValueError: it cannot follow on what happened before.
        """
        if isinstance(event, Joined):
            if event.participant in self.participants:
                raise ValueError(f"participant {event.participant} joins a second time")
            self.participants[event.participant] = Participant(event.pictures, event.golden, event.time)
            return
        person = self.participants.get(event.participant)
        if person is None:
            raise ValueError(f"participant {event.participant} has not joined")
        match event:
            case Asked():
                if event.question in self._owners or not 0 <= event.exhibit < len(self.design.exhibits):
                    raise ValueError(f"question {event.question} is asked twice, or there is no such picture")
                person.questions[event.question] = Question(event.exhibit)
                self._owners[event.question] = event.participant
            case Shown():
                self._question(event.participant, event.question).shown = True
            case Answered():
                question = self._question(event.participant, event.question)
                question.answer, question.seconds = event.answer, event.seconds
            case Finished():
                person.finished = True
        person.last_seen = event.time

    def owner(self, question: str) -> Participant | None:
        """Return who was asked a question."""
        name = self._owners.get(question)
        return None if name is None else self.participants[name]

    def golden_score(self, person: Participant) -> tuple[int, int]:
        """Return how many golden questions a participant has right, and how many answered."""
        answered = [
            (question.answer, self.design.exhibits[question.exhibit])
            for question in person.questions.values()
            if question.answer is not None and self.design.exhibits[question.exhibit].golden
        ]
        return sum(answer == exhibit.truth for answer, exhibit in answered), len(answered)

    def standing(self, person: Participant, now: float) -> Standing:
        """Return whether a participant is still answering, and if not, whether the answers count."""
        if not person.finished and now - person.last_seen < PATIENCE:
            return "answering"
        return self.verdict(person)

    def verdict(self, person: Participant) -> Standing:
        """Return whether the answers so far would count."""
        right, answered = self.golden_score(person)
        if answered < min(GOLDEN_MINIMUM, person.golden):
            return "unverified"
        return "counts" if right >= self.design.golden_pass * answered - 1e-9 else "failed"

    def _question(self, participant: str, question: str) -> Question:
        if self._owners.get(question) != participant:
            raise ValueError(f"participant {participant} was not asked question {question}")
        return self.participants[participant].questions[question]
