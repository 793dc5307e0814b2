"""What the generate command writes: a picture per source and pose, and a sheet of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from PIL import Image, ImageFont
from torch import Tensor

from examples.pose_morph.data.evenly import evenly
from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.data.pose_data import fit
from examples.pose_morph.generation.people import Person
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import draw_sheet, to_picture
from examples.pose_morph.pictures.skeleton import draw_skeleton

COLUMNS, ROWS, HEADS = 8, 12, 4
"""Poses and people that a sheet has room for, and pictures of a person who is drawn from several."""

CELL_HEIGHT = 192
"""Small pictures are enlarged on a sheet to about so many rows."""


def distinct(names: Sequence[str]) -> list[str]:
    """Make names fit for files, and number those that come again.

    >>> distinct(["a", "b/c", "a"])
    ['a', 'b_c', 'a-2']
    """
    chosen: dict[str, None] = {}
    for name in names:
        plain = new = "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name)
        count = 1
        while new in chosen:
            count += 1
            new = f"{plain}-{count}"
        chosen[new] = None
    return list(chosen)


class Files(NamedTuple):
    """Where the results of one source go: a PNG per pose, or none at all, and perhaps an animation."""

    pictures: list[Path]
    animation: Path | None


def plan_files(name: str, poses: Sequence[str], *, out: Path | None, animate: Path | None, alone: bool) -> Files:
    """Name the files of the source ``name``, which joins the animation's name unless it is ``alone``."""
    pictures = [] if out is None else [out / f"{name}__{pose}.png" for pose in poses]
    if animate is None or alone:
        return Files(pictures, animate)
    return Files(pictures, animate.with_name(f"{animate.stem}-{name}{animate.suffix}"))


class Sheet:
    """Rows of results under the skeletons of their poses, for as many sources and poses as there is room."""

    def __init__(self, people: int, pose_names: Sequence[str], size: tuple[int, int], *, together: int = 1) -> None:
        """Choose rows and columns evenly; ``size`` is the networks', ``together`` the pictures of each person."""
        self.size, self.pose_names = size, pose_names
        self.people, self.poses = evenly(people, ROWS).tolist(), evenly(len(pose_names), COLUMNS).tolist()
        self.heads = evenly(together, HEADS).tolist()
        shown = (len(self.people), people) if together == 1 else (len(self.heads), together)
        self.title = f"{shown[0]} of {shown[1]} source(s), {len(self.poses)} of {len(pose_names)} pose(s)"
        self.scale = max(1, round(CELL_HEIGHT / size[0]))
        self.rows: list[list[Image.Image]] = []

    def add(
        self, group: Sequence[Person], joints: Float[Tensor, "p 18 2"], results: dict[int, Float[Tensor, "3 h w"]]
    ) -> None:
        """Add the pictures of a person and the results by number of the pose; ``joints`` are all poses as drawn."""
        heads = [fit(group[number].picture, group[number].keypoints, self.size) for number in self.heads]
        own = [head.keypoints for head in heads]
        images = [to_image(head.image) for head in heads]
        skeletons = [draw_skeleton(points, self.size, self.scale) for points in (*own, *joints[self.poses])]
        pictures = [to_picture(picture, self.scale) for picture in (*images, *map(results.get, self.poses))]
        self.rows += [skeletons, pictures]

    def save(self, path: Path) -> None:
        """Write the sheet."""
        names = (_shortened(self.pose_names[number], self.rows[0][0].width) for number in self.poses)
        headers = [*["source"] * len(self.heads), *names]
        write_png(path, draw_sheet(self.rows, headers, self.title))


def _shortened(name: str, width: int) -> str:
    """Cut a header's beginning off until it is no wider than its column."""
    font, text = ImageFont.load_default(14), name
    while font.getlength(text) > width and name:
        name = name[1:]
        text = "…" + name
    return text
