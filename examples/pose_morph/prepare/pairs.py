"""Make PATN's table of pairs: of one person, one picture is the source and another the target."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from rich.console import Console

from examples.pose_morph.atomic import write_text
from examples.pose_morph.data.folder_store import pictures_in
from examples.pose_morph.data.person import BEFORE_LAST_UNDERSCORE, by_person
from examples.pose_morph.data.pose_data import PHASES
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.messages import say
from examples.pose_morph.option_types import Count, RequiredFolder, Switch, check_least


@dataclass(frozen=True)
class Pairs:
    """Pair the pictures of one person: fasion-resize-pairs-{train,test}.csv from the names in train/ and test/."""

    data: RequiredFolder
    """Folder with train/ and test/, or one of them."""
    at_most: Count = None
    """Ordered pairs per person, drawn at random; by default all."""
    person: str = BEFORE_LAST_UNDERSCORE
    """Regular expression that finds the person in a file name: its first group, or all that it matches."""
    seed: int = 0
    """Seed of the draw."""
    overwrite: Switch = False
    """Write over tables that are there."""


def pairs_of(names: list[str], pattern: str, at_most: int | None, seed: int) -> list[tuple[str, str]]:
    """Return the ordered pairs of every person; which ones are drawn depends on the person's own names alone."""
    pairs = []
    for person, own in by_person(names, pattern).items():
        ordered = list(permutations(own, 2))
        if at_most is not None and len(ordered) > at_most:
            rng = np.random.default_rng([seed, *person.encode()])
            ordered = [ordered[i] for i in sorted(rng.permutation(len(ordered))[:at_most])]
        pairs += ordered
    return pairs


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write the table in one step.

    Raises:
        UserError: a name holds the table's separator.
    """
    pairs = list(pairs)
    for name in (name for pair in pairs for name in pair):
        if "," in name:
            raise UserError(f"pairs: {name} holds a comma, which separates the table's columns; rename the picture")
    lines = ["from,to", *(f"{a},{b}" for a, b in pairs)]
    write_text(path, "\n".join(lines) + "\n")


def make_pairs(options: Pairs, console: Console) -> None:
    """Write the tables of the phases that are there, and say how many pictures have no partner."""
    check_least("at_most", options.at_most, 1)
    check_least("seed", options.seed, 0)
    phases = [phase for phase in PHASES if (options.data / phase).is_dir()]
    if not phases:
        raise UserError(f"--data: expected {' or '.join(PHASES)} in {options.data}, and neither folder is there")
    tables = {phase: options.data / f"fasion-resize-pairs-{phase}.csv" for phase in phases}
    refuse_existing(tables.values(), overwrite=options.overwrite)
    made = {}
    for phase in phases:
        names = pictures_in(options.data / phase, "--data")
        pairs = made[phase] = pairs_of(names, options.person, options.at_most, options.seed)
        alone = len(names) - len({name for pair in pairs for name in pair})
        say(console, f"{phase}: {len(pairs)} pairs of {len(names)} pictures; {alone} pictures are in no pair")
        if not pairs:
            raise UserError(f"--person: no person has two pictures in {options.data / phase}; is the pattern right?")
    for phase, table in tables.items():
        write_pairs(table, made[phase])
