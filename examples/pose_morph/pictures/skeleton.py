"""Poses as coloured skeletons."""

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from examples.pose_morph.data.pose import BONES

BONE_COLOURS = tuple(
    f"hsl({hue},90%,{light}%)"
    for hue, light in (
        (0, 60), (10, 60), (25, 60), (200, 60), (215, 60), (235, 70), (45, 55), (60, 50), (80, 50),
        (150, 45), (165, 45), (180, 45), (300, 65), (320, 65), (335, 65), (280, 70), (265, 70),
    )
)  # fmt: skip
"""Warm colours are the person's right side, cold ones the left."""


def draw_skeleton(keypoints: Float[Tensor, "18 2"], size: tuple[int, int], scale: int) -> Image.Image:
    """Draw a pose on black, ``scale`` times as large as the picture of ``size`` (height, width)."""
    canvas = Image.new("RGB", (size[1] * scale, size[0] * scale))
    draw = ImageDraw.Draw(canvas)
    points = ((keypoints + 0.5) * scale).tolist()
    known = torch.isfinite(keypoints).all(dim=1).tolist()
    for (a, b), colour in zip(BONES, BONE_COLOURS, strict=True):
        if known[a] and known[b]:
            draw.line([*points[a], *points[b]], fill=colour, width=max(2, scale))
    for (x, y), there in zip(points, known, strict=True):
        if there:
            draw.ellipse([x - scale / 2, y - scale / 2, x + scale / 2, y + scale / 2], fill="white")
    return canvas
