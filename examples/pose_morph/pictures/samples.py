"""Sample grids: source, both poses, result and truth, side by side, large enough to look at."""

from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.pose import BONES
from examples.pose_morph.scores.metrics import to_bytes
from examples.pose_morph.training.pair_stream import Batch

COLUMNS = ("source", "source pose", "target pose", "result", "truth")
CELL_HEIGHT, HEADER, GAP = 192, 24, 6
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


def save_samples(path: Path, batch: Batch, result: Float[Tensor, "b 3 h w"], title: str) -> None:
    """Write one row per pair under a header; pixels are repeated, not smoothed, so that the result is seen as it is."""
    height, width = batch.source.shape[-2:]
    scale = max(1, round(CELL_HEIGHT / height))
    cell = (width * scale, height * scale)
    sheet = Image.new(
        "RGB",
        (len(COLUMNS) * (cell[0] + GAP) + GAP, 2 * HEADER + len(result) * (cell[1] + GAP)),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, 3), title, fill="black", font=font)
    for column, name in enumerate(COLUMNS):
        draw.text((GAP + column * (cell[0] + GAP), HEADER + 3), name, fill="black", font=font)
    for row in range(len(result)):
        cells = (
            _enlarge(batch.source[row], scale),
            draw_skeleton(batch.source_keypoints[row].cpu(), (height, width), scale),
            draw_skeleton(batch.target_keypoints[row].cpu(), (height, width), scale),
            _enlarge(result[row], scale),
            _enlarge(batch.target[row], scale),
        )
        for column, picture in enumerate(cells):
            sheet.paste(picture, (GAP + column * (cell[0] + GAP), 2 * HEADER + row * (cell[1] + GAP)))
    replace_file(path, lambda file: sheet.save(file, format="PNG"))


def _enlarge(image: Float[Tensor, "3 h w"], scale: int) -> Image.Image:
    pixels = to_bytes(image[None])[0].permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
