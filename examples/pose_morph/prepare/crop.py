"""Crop pictures or video frames around the person, as the paper does with ChaLearn's videos (section 3.3)."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from examples.pose_morph.data.pose_data import DataError, UnusablePicture
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.data.video import frame_number
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing, refuse_inside
from examples.pose_morph.messages import say, say_names
from examples.pose_morph.option_types import RequiredFolder, Switch, check_least
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.crop_box import Box, cut, move, person_box
from examples.pose_morph.prepare.footage import Footage, open_footage
from examples.pose_morph.prepare.picture_file import write_picture
from examples.pose_morph.progress import progress_bar

KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")
SHOWN = 5


@dataclass(frozen=True)
class Crop:
    """Crop around the person, and move the keypoints along."""

    pictures: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Folder of pictures, a folder of folders with the frames of a video each, or one video file."""
    annotation: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Table of keypoints of these pictures, as the step keypoints writes it."""
    out: RequiredFolder
    """Folder to fill. Every folder of pictures gets its table beside it: OUT/walk/*.png and OUT/walk.csv; pictures
    directly in PICTURES, and the frames of a video, go to OUT/*.png and OUT.csv."""
    size: tuple[int, int] = (512, 256)
    """Height and width of the result."""
    box: Literal["folder", "picture"] = "folder"
    """folder: one box for all pictures of a folder, so that a person in a video does not jitter; picture: one each."""
    margin: float = 0.2
    """Room around the joints, as a share of their box's longer side; the top of the head is no joint."""
    dry_run: Switch = False
    """Only show the boxes."""
    overwrite: Switch = False
    """Write over files that are there."""


def crop(options: Crop, console: Console) -> None:
    """Cut all pictures and move their keypoints along."""
    if min(options.size) < 1:
        raise UserError(f"--size: expected a height and a width of at least 1, got {options.size}")
    check_least("margin", options.margin, 0)
    refuse_inside(options.out, options.pictures)
    footage = open_footage(options.pictures)
    joints = read_annotation(options.annotation).joints
    if footage.is_video:
        joints = {str(frame_number(name)): points for name, points in joints.items()}
    names = [name for name in footage.names if name in joints]
    if not names:
        raise UserError(f"--annotation: no row of {options.annotation} names a picture of {options.pictures}")
    unannotated = sorted(set(footage.names) - joints.keys())
    say_names(console, f"picture(s) have no row in {options.annotation} and are left out", unannotated)
    targets = {name: options.out / target_name(name, footage) for name in names}
    if len(set(targets.values())) < len(targets):
        raise UserError(f"--pictures: two pictures of {options.pictures} differ in their ending alone; rename one")
    folders: dict[Path, list[str]] = {}
    for name, target in targets.items():
        folders.setdefault(target.parent, []).append(name)
    tables = {folder: folder.with_name(f"{folder.name}.csv") for folder in folders}
    if not options.dry_run:
        refuse_existing([*targets.values(), *tables.values()], overwrite=options.overwrite)

    # All boxes first, so that nothing is written where one of them cannot be found.
    boxes_of = {folder: find_boxes(own, joints, footage, options) for folder, own in folders.items()}
    written, lost = 0, []
    with progress_bar(console) as progress:
        task = progress.add_task("pictures", total=len(names))
        for folder, own in folders.items():
            boxes = boxes_of[folder]
            lost += [f"{name}: no joint is known" for name in own if name not in boxes]
            if options.dry_run:
                for name, box in list(boxes.items())[: 1 if options.box == "folder" else SHOWN]:
                    where = f"{len(boxes)} pictures of {folder}" if options.box == "folder" else name
                    left, top, width, height = map(round, box)
                    say(progress.console, f"{where}: {width}x{height} at ({left}, {top})")
            moved = {}
            for name in own:
                progress.advance(task)
                if options.dry_run or name not in boxes:
                    continue
                try:
                    picture = footage.read(name)
                except DataError as error:
                    lost.append(str(error))
                    continue
                write_picture(targets[name], cut(picture, boxes[name], options.size))
                moved[targets[name].name] = move(joints[name], boxes[name], options.size)
            if moved:
                write_annotation(tables[folder], moved)
                written += len(moved)
    say_names(console, "picture(s) are left out", lost)
    what = "nothing is written (--dry-run)" if options.dry_run else f"{written} pictures written"
    say(console, f"{what}; {len(tables)} folder(s), each with its table beside it, in {options.out}")


def target_name(name: str, footage: Footage) -> str:
    """Return the name of a cut picture: frames are numbered, and what is neither JPEG nor PNG becomes PNG."""
    if footage.is_video:
        return f"{int(name):06d}.png"
    path = PurePosixPath(name)
    return str(path if path.suffix.lower() in KEPT_SUFFIXES else path.with_suffix(".png"))


def find_boxes(
    names: list[str], joints: dict[str, Float[Tensor, "18 2"]], footage: Footage, options: Crop
) -> dict[str, Box]:
    """Return the box of every picture of one folder; a picture that has none is left out.

    Raises:
        UserError: the pictures are to share a box and have different sizes, or a picture has no size.
    """
    aspect = options.size[1] / options.size[0]
    sizes = {}
    for name in names:
        try:
            sizes[name] = footage.size(name)
        except UnusablePicture as error:
            raise UserError(f"--pictures: {name} of the pictures {error}; remove it or its row") from error
    if options.box == "picture":
        boxes = {name: person_box(joints[name][None], sizes[name], aspect, options.margin) for name in names}
        return {name: box for name, box in boxes.items() if box is not None}
    if len(set(sizes.values())) > 1:
        first, other = (next(name for name in names if sizes[name] == size) for size in sorted(set(sizes.values()))[:2])
        raise UserError(
            f"--box: {first} and {other} have different sizes ({sizes[first]}, {sizes[other]}) and cannot share a box; "
            "use --box picture, or a folder per video"
        )
    box = person_box(torch.stack([joints[name] for name in names]), sizes[names[0]], aspect, options.margin)
    return {} if box is None else dict.fromkeys(names, box)
