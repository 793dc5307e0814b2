"""What happens in a study: one record per line of the results file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from examples.pose_morph.networks.settings_json import from_json
from examples.pose_morph.study.design import Truth


@dataclass(frozen=True)
class Joined:
    """Somebody begins; ``pictures`` and ``golden`` are how many questions of each kind are planned."""

    participant: str
    time: float
    pictures: int
    golden: int


@dataclass(frozen=True)
class Asked:
    """A participant gets an exhibit under a random name."""

    participant: str
    time: float
    question: str
    exhibit: int


@dataclass(frozen=True)
class Shown:
    """The picture appears on the participant's screen; it is not shown again."""

    participant: str
    time: float
    question: str


@dataclass(frozen=True)
class Answered:
    """A participant decides.

    ``seconds`` run from the picture's appearance on the participant's own clock; None after a reload. The last three
    repeat the design, for whoever reads the file with other tools.
    """

    participant: str
    time: float
    question: str
    answer: Truth
    seconds: float | None
    exhibit: int
    truth: Truth
    golden: bool


@dataclass(frozen=True)
class Finished:
    """A participant has nothing left to answer; ``counts`` says whether enough golden questions were right."""

    participant: str
    time: float
    golden_right: int
    golden_answered: int
    counts: bool


Event = Joined | Asked | Shown | Answered | Finished

KINDS: dict[str, type[Event]] = {
    "joined": Joined,
    "asked": Asked,
    "shown": Shown,
    "answered": Answered,
    "finished": Finished,
}


def to_record(event: Event) -> dict[str, Any]:
    """Return an event as JSON knows it."""
    return {"event": type(event).__name__.lower(), **asdict(event)}


def from_record(record: Mapping[str, Any]) -> Event:
    """Return the event that ``to_record`` wrote.

    Raises:
        ValueError: the record is none.
    """
    values = dict(record)
    kind = KINDS.get(str(values.pop("event", None)))
    if kind is None:
        raise ValueError(f"expected an event out of {', '.join(KINDS)}, got {str(dict(record))[:80]}")
    return from_json(kind, values, kind.__name__.lower())
