"""Find the 18 joints of the person in every picture of a folder, or in every frame of a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from examples.pose_morph.data.orientation import orientation_of
from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import counted, say, say_names
from examples.pose_morph.option_types import Switch, check_least
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.footage import open_footage
from examples.pose_morph.prepare.landmarks import to_joints
from examples.pose_morph.prepare.pose_detector import PoseDetector
from examples.pose_morph.progress import progress_bar
from examples.pose_morph.writable import check_writable

SAVE_EVERY = 100


@dataclass(frozen=True)
class Keypoints:
    """Extract keypoints with MediaPipe into a table.

    A table that is there is not refused but gone on with: so a run that was stopped ends, and new pictures get rows.
    """

    pictures: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Folder of pictures, or a video."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Table to write, such as data/fasion-resize-annotation-train.csv, or walk.csv beside the video walk.mp4. A
    table that is there keeps its rows and gets those that it lacks."""
    least_visibility: float = 0.5
    """A joint that the model is less sure to see is written as -1."""
    every: int = 1
    """Take every so many pictures or frames."""
    overwrite: Switch = False
    """Begin anew instead of keeping the rows that are there."""


def keypoints(options: Keypoints, console: Console) -> None:
    """Fill the table; whatever happens, what was found until then is saved.

    A picture without a person gets a row of -1, so that it is not looked at again; those who read the table leave such
    pictures out and count them. A picture that cannot be read, or is stored turned, gets none.
    """
    if not 0 <= options.least_visibility <= 1:
        raise UserError(f"--least-visibility: expected a number from 0 to 1, got {options.least_visibility}")
    check_least("every", options.every, 1)
    check_writable(options.out)
    footage = open_footage(options.pictures)
    names = footage.names[:: options.every]
    rows = read_annotation(options.out).joints if options.out.exists() and not options.overwrite else {}
    todo = [name for name in names if name not in rows]
    if not todo:
        say(console, f"nothing left to do: {options.out} has rows of all {counted(len(names), 'picture')}")
        return
    empty, broken, turned = [], [], []
    try:
        with PoseDetector() as detector, progress_bar(console) as progress:
            for count, name in enumerate(progress.track(todo, description="keypoints"), start=1):
                try:
                    picture = footage.read(name)
                except DataError as error:
                    broken.append(str(error))
                    continue
                if orientation_of(picture) != 1:
                    turned.append(name)
                    continue
                landmarks = detector.detect(picture)
                if landmarks is None:
                    rows[name] = torch.full((len(JOINTS), 2), torch.nan)
                    empty.append(name)
                else:
                    rows[name] = to_joints(landmarks, (picture.height, picture.width), options.least_visibility)
                if count % SAVE_EVERY == 0:
                    write_annotation(options.out, rows)
    finally:
        if todo and rows:
            write_annotation(options.out, rows)

    nobody = set(empty)
    found = [rows[name] for name in todo if name in rows and name not in nobody]
    joints = sum(int(torch.isfinite(points).all(dim=1).sum()) for points in found) / max(1, len(found))
    say(
        console,
        f"{counted(len(todo), 'picture')}: a person in {len(found)}, with {joints:.1f} of {len(JOINTS)} joints on "
        f"average; {len(names) - len(todo)} more were in the table already: {options.out}",
    )
    say_names(console, "picture(s) without a person that the model finds have a row of -1", empty)
    say_names(
        console,
        "picture(s) stored turned (EXIF orientation) are left out; save them upright and run this again",
        turned,
    )
    for message in broken:
        say(console, f"left out: {message}", style="yellow")
