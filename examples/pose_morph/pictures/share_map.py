"""Pixels of a picture coloured by a share between 0 and 1."""

import matplotlib
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

UNKNOWN, OUTSIDE = 190, 255
LEGEND = "dark 0, yellow 1; grey: the source does not show it"


def draw_shares(
    shares: Float[Tensor, "p"],
    pixels: Int[Tensor, "p"],
    unknown: Int[Tensor, "o"],
    size: tuple[int, int],
    scale: int,
) -> Image.Image:
    """Colour ``pixels`` (row-major numbers) by their shares, ``unknown`` ones grey, on white."""
    canvas = torch.full((size[0] * size[1], 3), OUTSIDE, dtype=torch.uint8)
    canvas[unknown] = UNKNOWN
    canvas[pixels] = torch.from_numpy(matplotlib.colormaps["viridis"](shares.numpy(), bytes=True)[:, :3])
    picture = Image.fromarray(canvas.unflatten(0, size).numpy())
    return picture.resize((size[1] * scale, size[0] * scale), Image.Resampling.NEAREST)
