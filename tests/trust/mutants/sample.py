"""Mutants, and a sample of them that does not change when code moves to another file."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.trust.mutants.operators import Change, changes_of

OUT_OF_REACH = {
    "NVIDIA": "tiles of chips that are not there",
    "AMD": "tiles of chips that are not there",
    "TILES": "tiles of chips that are not there",
    "_chip_of_gpu": "asks a GPU",
}
"""Names of modules' values and functions that run only on a GPU, and why."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Attributes:
        key: What names it whichever file it stands in: function, line, what is changed, and which of several alike.
        file: Relative to the repository.
        change: The change.
        source: The file's text without it.
    """

    key: str
    file: str
    change: Change
    source: str

    @property
    def changed(self) -> str:
        """The file's text with the change."""
        return self.change.apply(self.source)

    def __str__(self) -> str:
        return f"{self.file}:{self.change.lines[0]} {self.key}"


def mutants(root: Path, packages: Sequence[str], without: Sequence[str] = ()) -> list[Mutant]:
    """Every change of every file of the packages, but of those ``without``, that could be noticed without a GPU."""
    found, alike = [], Counter[str]()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            if any(path.is_relative_to(root / folder) for folder in without):
                continue
            source = path.read_text(encoding="utf-8")
            lines = source.encode().splitlines()
            for change in changes_of(source):
                if change.place.split(".")[0] in OUT_OF_REACH:
                    continue
                number = source.encode()[: change.start].count(b"\n")
                line = lines[number].decode().strip()
                key = f"{change.place}: {line}: {change.kind} {change.old!r} -> {change.text!r}"
                alike[key] += 1
                key += f" ({alike[key]})" if alike[key] > 1 else ""
                found.append(Mutant(key, str(path.relative_to(root)), change, source))
    return found


def sample(of: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """So many places with one change each, as if drawn at random: those whose digests with the seed are the least.

    A place has up to two changes; the one whose digest is less stands for it.
    """

    def rank(mutant: Mutant) -> str:
        return sha256(f"{seed}: {mutant.key}".encode()).hexdigest()

    chosen, places = list[Mutant](), set[tuple[str, int, int, str]]()
    for mutant in sorted(of, key=rank):
        if len(chosen) == size:
            break
        place = (mutant.file, mutant.change.start, mutant.change.stop, mutant.change.kind)
        if place not in places and _parses(mutant.changed):
            chosen.append(mutant)
            places.add(place)
    return chosen


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
