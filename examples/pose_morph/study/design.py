"""What a study asks: its pictures and its numbers, fixed before the first answer."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from examples.pose_morph.networks.settings_json import from_json

Truth = Literal["real", "generated"]

VERSION = 1


@dataclass(frozen=True)
class Exhibit:
    """A picture that people judge.

    Attributes:
        name: Its file, for the person who reads the results; participants never get it.
        truth: What it is.
        golden: Whether it tests the participant instead of the model.
        sha256: Of the pixels that are shown.
    """

    name: str
    truth: Truth
    golden: bool
    sha256: str


@dataclass(frozen=True)
class StudyDesign:
    """The first line of a results file; answers of two designs are never mixed.

    Attributes:
        seed: Seed of the choice of pictures and of every participant's order.
        answers: Answers that each picture of the study needs, from as many people.
        pictures_each: Pictures of the study that one participant is asked at most; golden ones come on top.
        golden_pass: Share of the golden questions which must be right for a participant's answers to count.
        warning: Seconds from the reveal button to the picture.
        visible: Seconds that the picture stays.
        frame: Height and width of every picture.
        exhibits: The pictures, the study's and the golden ones.
    """

    seed: int
    answers: int
    pictures_each: int
    golden_pass: float
    warning: float
    visible: float
    frame: tuple[int, int]
    exhibits: tuple[Exhibit, ...]

    def numbers(self, *, golden: bool) -> list[int]:
        """Return the numbers of the golden exhibits, or of the others."""
        return [number for number, exhibit in enumerate(self.exhibits) if exhibit.golden == golden]

    def to_record(self) -> dict[str, Any]:
        """Return the design as JSON knows it."""
        record: dict[str, Any] = json.loads(json.dumps({"event": "study", "version": VERSION, **asdict(self)}))
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "StudyDesign":
        """Return the design that ``to_record`` wrote.

        Raises:
            ValueError: the record is no design, or one of another version.
        """
        if record.get("event") != "study" or record.get("version") != VERSION:
            raise ValueError(f'expected "event": "study" and "version": {VERSION}, got {str(dict(record))[:80]}')
        design: StudyDesign = from_json(
            cls, {k: v for k, v in record.items() if k not in ("event", "version")}, "study"
        )
        return design


def difference(before: StudyDesign, now: StudyDesign) -> str | None:
    """Return in words the first thing in which two designs differ, or None."""
    for field in fields(StudyDesign):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old == new:
            continue
        if field.name != "exhibits":
            return f"its {field.name} is {old}, not {new}"
        if len(old) != len(new):
            return f"it has {len(old)} pictures, not {len(new)}"
        a, b = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
        return f"it shows other pixels of {a.name}" if a.name == b.name else f"it shows {a.name}, not {b.name}"
    return None
