"""Pictures whose file says that they should be shown turned."""

import torch
from jaxtyping import Float
from PIL import ExifTags, Image
from torch import Tensor


def orientation_of(picture: Image.Image) -> int:
    """Return the EXIF orientation of a decoded picture: 1 is upright, 6 was taken with the camera turned to the left.

    Pillow turns TIFF files when it decodes them, and others not: ask the decoded picture, not the file.
    """
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def upright(
    picture: Image.Image, keypoints: Float[Tensor, "18 2"], orientation: int
) -> tuple[Image.Image, Float[Tensor, "18 2"]]:
    """Turn a stored picture, and joints in it, as its EXIF orientation says.

    Tables hold joints in the frame of the stored picture, as everywhere in this program; the networks want people who
    stand.
    """
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    if orientation not in turns:
        return picture, keypoints
    x, y = keypoints.unbind(dim=-1)
    right, below = picture.width - 1 - x, picture.height - 1 - y
    moved = {
        2: (right, y),
        3: (right, below),
        4: (x, below),
        5: (y, x),
        6: (below, x),
        7: (below, right),
        8: (y, right),
    }
    return picture.transpose(turns[orientation]), torch.stack(moved[orientation], dim=-1)
