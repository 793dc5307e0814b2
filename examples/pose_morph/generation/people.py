"""Pictures of people with their joints, as the user has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from examples.pose_morph.data.folder_store import FolderStore, pictures_in
from examples.pose_morph.data.orientation import orientation_of, upright
from examples.pose_morph.data.pose import JOINTS, from_frame, outside
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.detection import detect_joints
from examples.pose_morph.generation.tables_nearby import nearby_row, row_of

Table = tuple[Path, dict[str, Float[Tensor, "18 2"]]]
"""A table's file, for messages, and its rows by name."""


@dataclass(frozen=True)
class Person:
    """A picture of a person and the joints in it.

    Attributes:
        name: The picture's name without its ending.
        picture: Upright RGB.
        keypoints: (x, y) in the picture, NaN where not known.
    """

    name: str
    picture: Image.Image
    keypoints: Float[Tensor, "18 2"]


class NoPerson(UserError):
    """A picture is damaged, or its joints are not known or not in it: nobody can be drawn from it."""


def read_people(
    paths: Sequence[Path], table: Path | None, frame: tuple[int, int] | None = None
) -> tuple[list[Person], list[str]]:
    """Read pictures, or all pictures of folders, with their joints; notes say what is left out of the folders.

    Rows of tables are in pictures of ``frame`` (height, width), or in the pictures themselves.

    Raises:
        UserError: as `read_person`, or nobody can be drawn from a picture that is named, or from any of a folder.
    """
    rows = None if table is None else (table, read_annotation(table).joints)
    people: list[Person] = []
    notes = []
    for path in paths:
        if not path.is_dir():
            people.append(_drawable(path, rows, frame))
            continue
        names, lost = pictures_in(path, "pictures"), []
        for name in names:
            try:
                people.append(_drawable(path / name, rows, frame))
            except NoPerson as error:
                lost.append(f"  {str(error).removeprefix('data: ')}")
        if len(lost) == len(names):
            raise UserError("\n".join([f"pictures: none of the {len(names)} in {path} can be used", *lost[:3]]))
        if lost:
            notes.append("\n".join([f"{len(lost)} of {len(names)} pictures in {path} are left out:", *lost]))
    return people, notes


def _drawable(path: Path, table: Table | None, frame: tuple[int, int] | None) -> Person:
    """Read a person of whom some joint is known and inside of the picture."""
    person = read_person(path, table, frame)
    known = torch.isfinite(person.keypoints).all(dim=1)
    if not bool(known.any()):
        raise NoPerson(f"keypoints: no joint of {path} is known; a person needs some of the 18")
    width, height = person.picture.size
    if bool(outside(person.keypoints, (height, width))[known].all()):
        raise NoPerson(
            f"keypoints: all joints of {path} lie outside of it, which is {height}x{width} (height x width); "
            "joints must be in pixels of their own picture, or of the --source-frame or --pose-frame HEIGHT WIDTH"
        )
    return person


def read_person(path: Path, table: Table | None = None, frame: tuple[int, int] | None = None) -> Person:
    """Read a picture with its joints, which may all be unknown.

    Joints come from ``table``; without one, from a table beside the picture or in the folder above; and where none has
    its row, from the extractor, if it is installed. A row is in a picture of ``frame``, or in the stored picture.

    Raises:
        UserError: the picture is missing or cannot be read, ``table`` has no row for it, or joints come from nowhere.
    """
    if not path.is_file():
        raise UserError(f"picture: there is no {path}")
    try:
        picture = FolderStore(path.parent).read(path.name)
    except DataError as error:
        raise NoPerson(str(error)) from error
    orientation = orientation_of(picture)
    keypoints = nearby_row(path) if table is None else row_of(path, table[1])
    if keypoints is not None:
        if frame is not None:
            keypoints = from_frame(keypoints, frame, (picture.height, picture.width))
        return Person(path.stem, *upright(picture, keypoints, orientation))
    if table is not None:
        raise NoPerson(f"keypoints: {table[0]} has no row {path.name}; its first is {next(iter(table[1]), 'missing')}")
    picture, _ = upright(picture, torch.full((len(JOINTS), 2), torch.nan), orientation)
    return Person(path.stem, picture, detect_joints(picture, str(path)))
