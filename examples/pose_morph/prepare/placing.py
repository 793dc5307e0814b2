"""Put pictures where they belong: linked as they are, or resized."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.messages import say
from examples.pose_morph.prepare.picture_file import write_picture
from examples.pose_morph.progress import progress_bar

SHOWN = 5
CROP_BEYOND = 1.05
"""A picture whose shape differs by more than this factor is cropped in the middle first, others are stretched."""


@dataclass(frozen=True)
class Placement:
    """A picture, and where it goes."""

    source: Path
    target: Path


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture at ``size`` (height, width), as the published data sets were made.

    The 750x1101 pictures of DeepFashion are stretched by 1 %; its 256x256 pictures have white bars of 40 pixels on
    each side, which are cut off.
    """
    height, width = size
    wide = picture.width * height / (picture.height * width)
    box = None
    if wide > CROP_BEYOND:
        margin = (picture.width - picture.height * width / height) / 2
        box = (margin, 0, picture.width - margin, picture.height)
    elif wide < 1 / CROP_BEYOND:
        margin = (picture.height - picture.width * height / width) / 2
        box = (0, margin, picture.width, picture.height - margin)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def place(
    placements: Sequence[Placement],
    console: Console,
    *,
    size: tuple[int, int] | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Write all pictures, or with ``dry_run`` only show where they would go.

    Args:
        placements: what goes where.
        console: where counts and names are said.
        size: height and width to resize to; None keeps the files, as hard links where the disk allows it.
        overwrite: replace files that are there.
        dry_run: write nothing.

    A picture that cannot be read is left out and named.

    Raises:
        UserError: two pictures would get one name, or a file is there already.
    """
    taken: dict[Path, Path] = {}
    for placement in placements:
        other = taken.setdefault(placement.target, placement.source)
        if other != placement.source:
            raise UserError(f"{other} and {placement.source} would both become {placement.target}; rename one of them")
    refuse_existing(taken, overwrite=overwrite)
    if dry_run:
        for placement in placements[:SHOWN]:
            say(console, f"{placement.source} -> {placement.target}")
        rest = len(placements) - SHOWN
        say(console, f"{f'… and {rest} more; ' if rest > 0 else ''}nothing is written (--dry-run)")
        return
    lost = []
    with progress_bar(console) as progress:
        for placement in progress.track(placements, description="pictures"):
            try:
                if size is None:
                    _link(placement)
                else:
                    picture = FolderStore(placement.source.parent).read(placement.source.name)
                    write_picture(placement.target, resized(picture, size))
            except DataError as error:
                lost.append(str(error))
    for message in lost:
        say(console, f"left out: {message}", style="yellow")
    say(console, f"{len(placements) - len(lost)} pictures written, {len(lost)} left out")


def _link(placement: Placement) -> None:
    """Link the file, or copy it where links are not possible; the target is whole at any moment.

    Raises:
        UserError: the target cannot be written.
    """
    source, target = placement.source.resolve(), placement.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(source):
            return  # renaming one link to a file over another would leave both
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            with source.open("rb") as original:
                replace_file(target, lambda file: shutil.copyfileobj(original, file))
        else:
            os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f"{source} cannot be placed at {target} ({error.strerror or error}); free some space or allow reading and "
            "writing there"
        ) from error
