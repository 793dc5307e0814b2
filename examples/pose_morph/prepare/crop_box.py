"""A box around a person, of a given shape, and what lies in it."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


class Box(NamedTuple):
    """Left and upper edge, width and height in pixels, from the picture's outer edges; it may reach beyond them."""

    left: float
    top: float
    width: float
    height: float


def person_box(keypoints: Float[Tensor, "n 18 2"], frame: tuple[int, int], aspect: float, margin: float) -> Box | None:
    """Return the smallest box of one shape around all known joints, or None where none is known.

    Args:
        keypoints: (x, y) of the joints in all pictures that share the box; NaN where not known.
        frame: height and width of the pictures. The box is moved inside as far as it fits.
        aspect: width of the box by its height.
        margin: room on each side, as a share of the longer side of the joints' own box: joints end at eyes, ankles and
            wrists.
    """
    known = keypoints[torch.isfinite(keypoints).all(dim=-1)]
    if len(known) == 0:
        return None
    (left, top), (right, bottom) = known.min(dim=0).values.tolist(), known.max(dim=0).values.tolist()
    room = margin * max(bottom - top, right - left, 1.0)
    width, height = right - left + 1 + 2 * room, bottom - top + 1 + 2 * room
    width, height = max(width, height * aspect), max(height, width / aspect)
    return Box(
        _place((left + right + 1) / 2, width, frame[1]), _place((top + bottom + 1) / 2, height, frame[0]), width, height
    )


def _place(centre: float, length: float, frame: int) -> float:
    """Return where the box begins on one axis: inside the frame, or around its middle where it is too long."""
    if length >= frame:
        return (frame - length) / 2
    return min(max(0.0, centre - length / 2), frame - length)


def cut(picture: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """Return what lies in the box at ``size`` (height, width); beyond the picture, its border is repeated."""
    right, bottom = box.left + box.width, box.top + box.height
    before = max(0, math.ceil(-box.left)), max(0, math.ceil(-box.top))
    after = max(0, math.ceil(right - picture.width)), max(0, math.ceil(bottom - picture.height))
    if any(before + after):
        padding = ((before[1], after[1]), (before[0], after[0]), (0, 0))
        picture = Image.fromarray(np.pad(np.asarray(picture), padding, mode="edge"))
    edges = (box.left + before[0], box.top + before[1], right + before[0], bottom + before[1])
    # The sum of floats may end a hair beyond the picture.
    edges = (*edges[:2], min(edges[2], picture.width), min(edges[3], picture.height))
    return picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=edges)


def move(keypoints: Float[Tensor, "18 2"], box: Box, size: tuple[int, int]) -> Float[Tensor, "18 2"]:
    """Return where the joints are in the cut picture; pixel centres are whole numbers, joints outside become NaN."""
    scale = keypoints.new_tensor([size[1] / box.width, size[0] / box.height])
    moved = (keypoints + 0.5 - keypoints.new_tensor([box.left, box.top])) * scale - 0.5
    pixel = moved.round()
    inside = (pixel >= 0).all(dim=1) & (pixel[:, 0] < size[1]) & (pixel[:, 1] < size[0])
    return torch.where(inside[:, None], moved, torch.nan)
