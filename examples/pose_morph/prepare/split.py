"""Split a folder of pictures into train and test, no person in both."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from examples.pose_morph.data.folder_store import pictures_in
from examples.pose_morph.data.person import BEFORE_LAST_UNDERSCORE, by_person
from examples.pose_morph.data.pose_data import PHASES
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing, refuse_inside
from examples.pose_morph.messages import say, say_names
from examples.pose_morph.option_types import RequiredFolder, Switch, check_least
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.placing import Placement, place


@dataclass(frozen=True)
class Split:
    """Split pictures into OUT/train and OUT/test by person."""

    pictures: RequiredFolder
    """Folder of pictures, folders in it included."""
    out: RequiredFolder
    """Folder to fill; the files are linked, not copied, where that is possible."""
    annotation: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Table of keypoints, to be split too (name:keypoints_y:keypoints_x)."""
    person: str = BEFORE_LAST_UNDERSCORE
    """Regular expression that finds the person in a name: its first group, or all that it matches."""
    test_share: float = 0.1
    """Share of the people that is held out."""
    seed: int = 0
    """Seed of the draw."""
    dry_run: Switch = False
    """Only show what would be done."""
    overwrite: Switch = False
    """Write over files that are there."""


def held_out(people: Collection[str], share: float, seed: int) -> set[str]:
    """Draw the people of the test phase, at least one; at least one stays to train on.

    Raises:
        UserError: the share is not between 0 and 1, or there is only one person.
    """
    if not 0 < share < 1:
        raise UserError(f"--test-share: expected a share between 0 and 1, got {share}")
    check_least("seed", seed, 0)
    if len(people) < 2:
        raise UserError(f"--person: expected at least two people to split, found {', '.join(people) or 'nobody'}")
    count = min(len(people) - 1, max(1, round(share * len(people))))
    order = np.random.default_rng(seed).permutation(len(people))
    return {sorted(people)[i] for i in order[:count]}


def split(options: Split, console: Console) -> None:
    """Place the pictures of every person, and the rows of the annotation, on one side."""
    refuse_inside(options.out, options.pictures)
    groups = by_person(pictures_in(options.pictures, "--pictures"), options.person)
    test = held_out(groups, options.test_share, options.seed)
    names = {phase: [] for phase in PHASES}
    for person, own in groups.items():
        names["test" if person in test else "train"] += own
    tables = {phase: options.out / f"fasion-resize-annotation-{phase}.csv" for phase in names}
    joints = None
    if options.annotation is not None:
        joints = read_annotation(options.annotation).joints
        refuse_existing(tables.values(), overwrite=options.overwrite)
        known = {name for own in names.values() for name in own}
        say_names(console, f"picture(s) have no row in {options.annotation}", sorted(known - joints.keys()))
        say_names(console, "row(s) have no picture and are left out", sorted(joints.keys() - known))
    for phase, own in names.items():
        people = len(test) if phase == "test" else len(groups) - len(test)
        say(console, f"{phase}: {people} people, {len(own)} pictures")
    placements = [
        Placement(options.pictures / name, options.out / phase / name) for phase, own in names.items() for name in own
    ]
    place(placements, console, size=None, overwrite=options.overwrite, dry_run=options.dry_run)
    if joints is not None and not options.dry_run:
        for phase, own in names.items():
            write_annotation(tables[phase], {name: joints[name] for name in own if name in joints})
