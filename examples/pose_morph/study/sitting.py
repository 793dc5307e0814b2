"""A study that is under way: what the page asks for, one request after the other, and the file that remembers it."""

import math
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from examples.pose_morph.study.answer_file import AnswerFile
from examples.pose_morph.study.assignment import next_exhibit, plan
from examples.pose_morph.study.design import StudyDesign, Truth
from examples.pose_morph.study.events import Answered, Asked, Finished, Joined, Shown
from examples.pose_morph.study.exhibition import Exhibition
from examples.pose_morph.study.ledger import Participant
from examples.pose_morph.study.rates import StudyResult, summarise

PARTICIPANT = re.compile(r"[0-9a-f]{32}")


@dataclass
class Refusal(Exception):
    """A request that cannot be met: an HTTP status, and why."""

    status: int
    reason: str


class Sitting:
    """Hands out questions and takes answers. Any thread may call every method, and repeat it after a lost reply."""

    def __init__(
        self, design: StudyDesign, exhibition: Exhibition, path: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the results file, or go on with it.

        Raises:
            UserError: the file is another study's or cannot be written.
        """
        self.design, self.exhibition = design, exhibition
        self._clock = clock
        self._lock = threading.Lock()
        self._file = AnswerFile(path, design)
        self.notes = self._file.notes

    def close(self) -> None:
        """Let a request that is being written finish, and close the file."""
        with self._lock:
            self._file.close()

    def result(self) -> StudyResult:
        """Return what has been found so far."""
        with self._lock:
            return summarise(self._file.ledger, self._clock())

    def introduction(self) -> dict[str, Any]:
        """Return what the page of instructions says."""
        design = self.design
        return {
            "warning": design.warning,
            "visible": design.visible,
            "frame": list(design.frame),
            "pictures": design.pictures_each,
            "golden": len(design.numbers(golden=True)),
            "examples": [truth for truth, _ in self.exhibition.examples],
        }

    def join(self, participant: str) -> dict[str, Any]:
        """Begin; the name is random and made by the page. A second call changes nothing."""
        if PARTICIPANT.fullmatch(participant) is None:
            raise Refusal(400, "participant: expected 32 hexadecimal digits")
        with self._lock:
            if participant not in self._file.ledger.participants:
                now = self._clock()
                pictures, golden = plan(self._file.ledger, now)
                if pictures == 0:
                    return {"state": "full"}
                self._file.append(Joined(participant, now, pictures, golden))
            return self._state(participant)

    def current(self, participant: str) -> dict[str, Any]:
        """Return where a participant stands, with a new question if none waits."""
        with self._lock:
            self._person(participant)
            return self._state(participant)

    def shown(self, participant: str, question: str) -> dict[str, Any]:
        """Take note that the picture appears now."""
        with self._lock:
            asked = self._person(participant).questions.get(question)
            if asked is None:
                raise Refusal(404, "question: not one of this participant")
            if not asked.shown:
                self._file.append(Shown(participant, self._clock(), question))
            return {"shown": True}

    def answer(self, participant: str, question: str, answer: str, seconds: object) -> dict[str, Any]:
        """Keep an answer and return the next question; the first answer to a question is the one that stays."""
        if answer not in ("real", "generated"):
            raise Refusal(400, "answer: expected real or generated")
        if seconds is not None and not (
            isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf
        ):
            raise Refusal(400, "seconds: expected a number of at least 0, or null")
        with self._lock:
            asked = self._person(participant).questions.get(question)
            if asked is None:
                raise Refusal(404, "question: not one of this participant")
            if not asked.shown:
                raise Refusal(409, "question: its picture has not been shown")
            if asked.answer is None:
                exhibit = self.design.exhibits[asked.exhibit]
                self._file.append(
                    Answered(
                        participant,
                        self._clock(),
                        question,
                        cast(Truth, answer),
                        None if seconds is None else round(float(cast(float, seconds)), 3),
                        asked.exhibit,
                        exhibit.truth,
                        exhibit.golden,
                    )
                )
            return self._state(participant)

    def picture(self, question: str) -> bytes:
        """Return the picture of a question that waits for its answer and was not shown yet."""
        with self._lock:
            owner = self._file.ledger.owner(question)
            if owner is None:
                raise Refusal(404, "there is no such picture")
            asked = owner.questions[question]
            if asked.shown:
                raise Refusal(410, "the picture was shown already")
            return self.exhibition.pictures[asked.exhibit]

    def _person(self, participant: str) -> Participant:
        person = self._file.ledger.participants.get(participant)
        if person is None:
            raise Refusal(404, "participant: not known in this study")
        return person

    def _state(self, participant: str) -> dict[str, Any]:
        """Where a participant stands; asks the next question, or ends the sitting, if none waits."""
        ledger = self._file.ledger
        person = ledger.participants[participant]
        if not person.finished and person.current() is None:
            now = self._clock()
            exhibit = next_exhibit(ledger, participant, now)
            if exhibit is None:
                right, answered = ledger.golden_score(person)
                self._file.append(Finished(participant, now, right, answered, ledger.verdict(person) == "counts"))
            else:
                self._file.append(Asked(participant, now, secrets.token_urlsafe(16), exhibit))
        waiting = person.current()
        if waiting is None:
            return {"state": "finished", "answered": len(person.questions)}
        name, question = waiting
        return {
            "state": "question",
            "question": name,
            "shown": question.shown,
            "number": len(person.questions),
            "of": person.pictures + person.golden,
        }
