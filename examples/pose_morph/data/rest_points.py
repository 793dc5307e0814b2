"""The rest-pose point under every pixel of a rendered picture: where on the body, or on the clothes, that pixel is.

Two pictures of one person show the same piece of skin or cloth where these points agree, so they tell the true source
of every pixel. ``{root}/rest/{name}.png`` holds them for picture ``{name}.jpg``: red, green and blue are x (to the
person's left), y (to the back) and z (up) of the template body in its rest pose, as 1 + the nearest of 254 equal steps
through the box from `LOW` to `HIGH`; black is where no person is. A step is 4.7 mm along x, 2.4 mm along y and 7.1 mm
along z, so a point is off by at most half of that; one pixel of the shipped people is about 15 mm.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from examples.pose_morph.data.folder_store import decode_picture
from examples.pose_morph.data.pose_data import DataError

LOW = (-0.6, -0.4, -0.9)
HIGH = (0.6, 0.2, 0.9)
STEPS = 254


def encode(points: Float[Tensor, "h w 3"]) -> UInt8[Tensor, "h w 3"]:
    """Quantise points in metres; NaN becomes 0, 0, 0.

    Raises:
        ValueError: a point lies outside the box.
    """
    low, high = points.new_tensor(LOW), points.new_tensor(HIGH)
    outside = ((points < low) | (points > high)).any(-1)
    if outside.any():
        raise ValueError(f"points: expected points between {LOW} and {HIGH}, got {points[outside][0].tolist()}")
    levels = 1 + (STEPS * (points - low) / (high - low)).round()
    return levels.nan_to_num(0).to(torch.uint8)


def decode(levels: UInt8[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
    """Undo `encode`, to half a step."""
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    points = low + (levels.float() - 1) / STEPS * (high - low)
    return torch.where((levels == 0).any(-1, keepdim=True), torch.nan, points)


def rest_path(root: Path, name: str) -> Path:
    """Return the file that belongs to a picture's name."""
    return root / "rest" / Path(name).with_suffix(".png").name


def read_rest_points(root: Path, name: str) -> Float[Tensor, "h w 3"]:
    """Read the rest-pose points of one picture.

    Args:
        root: the data folder.
        name: the picture's name, such as ``annyid00000200_1front.jpg``.

    Returns:
        Points in metres, NaN outside the person.

    Raises:
        DataError: the file is missing or is no 8-bit RGB picture.
    """
    path = rest_path(root, name)
    if not path.is_file():
        raise DataError(
            f"rest points: {path} is not there; only rendered people have them: "
            "python -m examples.pose_morph.prepare synthetic --rest-points"
        )
    picture = decode_picture(path, path)
    if picture.mode != "RGB":
        raise DataError(f"rest points: expected {path} to be an 8-bit RGB picture, got mode {picture.mode}")
    return decode(torch.from_numpy(np.array(picture)))
