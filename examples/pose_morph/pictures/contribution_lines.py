"""Lines from chosen points of a generated picture to the keys in the source picture that they copy from (Fig. 9)."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from examples.pose_morph.pictures.sheet import HEADER, to_picture

COLOURS = ("#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#e6c700", "#46f0f0", "#f032e6")
GAP, SMOOTH = 40, 3
FAINTEST = 1 / 50
"""Keys with less than this part of the largest weight get no line."""


class Contribution(NamedTuple):
    """A point (x, y) of the generated picture, its letter, and the weight of every key for it."""

    label: str
    point: tuple[float, float]
    weights: Float[Tensor, "h w"]


def draw_contributions(
    source: Float[Tensor, "3 h w"],
    result: Float[Tensor, "3 h w"],
    truth: Float[Tensor, "3 h w"],
    contributions: Sequence[Contribution],
    title: str,
    scale: int,
) -> Image.Image:
    """Draw source, result and truth side by side, and the lines over them.

    A line is as opaque as its key's weight is large beside the largest one of the same point.
    """
    height, width = source.shape[-2] * scale, source.shape[-1] * scale
    sheet = Image.new("RGB", (3 * width + 4 * GAP, 2 * HEADER + height + GAP), "white")
    write, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    write.text((GAP, 3), title, fill="black", font=font)
    lefts = [GAP + column * (width + GAP) for column in range(3)]
    for left, name, image in zip(lefts, ("source", "result", "truth"), (source, result, truth), strict=True):
        write.text((left, HEADER + 3), name, fill="black", font=font)
        sheet.paste(to_picture(image, scale), (left, 2 * HEADER))

    # Drawn larger and reduced, so that thin lines are smooth. An overlay's pixels replace each other: strongest last.
    overlay = Image.new("RGBA", (sheet.width * SMOOTH, sheet.height * SMOOTH))
    pen = ImageDraw.Draw(overlay)

    def place(left: int, x: float, y: float) -> tuple[float, float]:
        return SMOOTH * (left + (x + 0.5) * scale), SMOOTH * (2 * HEADER + (y + 0.5) * scale)

    lines = []
    for number, (_, point, weights) in enumerate(contributions):
        step_y, step_x = source.shape[-2] / weights.shape[0], source.shape[-1] / weights.shape[1]
        relative = weights / weights.max()
        for row, column in (relative >= FAINTEST).nonzero().tolist():
            key = ((column + 0.5) * step_x - 0.5, (row + 0.5) * step_y - 0.5)
            lines.append((float(relative[row, column]), number, point, key))
    for opacity, number, point, key in sorted(lines):
        colour = (*_rgb(number), round(255 * opacity))
        start, end = place(lefts[1], *point), place(lefts[0], *key)
        pen.line([*start, *end], fill=colour, width=2 * SMOOTH)
        pen.ellipse(_around(end, 2 * SMOOTH), fill=colour)
    letter = ImageFont.load_default(13 * SMOOTH)
    for number, (label, point, _) in enumerate(contributions):
        for left in lefts[1:]:
            middle = place(left, *point)
            pen.ellipse(_around(middle, 9 * SMOOTH), fill=(*_rgb(number), 255), outline="white", width=SMOOTH)
            pen.text(middle, label, fill="white", font=letter, anchor="mm")
    sheet.paste(reduced := overlay.reduce(SMOOTH), mask=reduced)
    return sheet


def _rgb(number: int) -> tuple[int, int, int]:
    colour = COLOURS[number % len(COLOURS)]
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)


def _around(middle: tuple[float, float], radius: float) -> list[float]:
    x, y = middle
    return [x - radius, y - radius, x + radius, y + radius]
