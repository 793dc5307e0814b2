"""Sheets: pictures in rows and columns under headers, large enough to look at."""

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from examples.pose_morph.data.pixels import to_bytes

HEADER, GAP = 24, 6


def draw_sheet(rows: Sequence[Sequence[Image.Image]], headers: Sequence[str], title: str) -> Image.Image:
    """Return a white sheet with one row per entry of ``rows``; all pictures have the size of the first."""
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(headers) * (width + GAP) + GAP, 2 * HEADER + len(rows) * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, 3), title, fill="black", font=font)
    for column, name in enumerate(headers):
        draw.text((GAP + column * (width + GAP), HEADER + 3), name, fill="black", font=font)
    for row, cells in enumerate(rows):
        for column, picture in enumerate(cells):
            sheet.paste(picture, (GAP + column * (width + GAP), 2 * HEADER + row * (height + GAP)))
    return sheet


def to_picture(image: Float[Tensor, "3 h w"], scale: int = 1) -> Image.Image:
    """Turn a picture in [-1, 1] into pixels, each repeated ``scale`` times per axis, so that it is seen as it is."""
    picture = Image.fromarray(to_bytes(image[None])[0].permute(1, 2, 0).contiguous().numpy())
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
