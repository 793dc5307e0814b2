"""Pictures of any mode as RGB, without losing what they show."""

import numpy as np
from PIL import Image


def as_rgb(picture: Image.Image) -> Image.Image:
    """Return a decoded picture as RGB.

    Transparent pictures are laid over white; 16-bit grey is scaled to 8 bits, not clipped. A note in the file that it
    should be shown turned (EXIF orientation) is kept and not followed: keypoints are in the frame that is stored.

    Raises:
        ValueError: the mode has no agreed range (floating point, or 32-bit integers beyond 16 bits).
    """
    match picture.mode:
        case "RGB":
            return picture
        case "RGBA" | "LA" | "PA" | "La" | "RGBa":
            return _over_white(picture)
        case "P" | "L" | "1" if "transparency" in picture.info:
            return _over_white(picture)
        case "I" | "I;16" | "I;16B" | "I;16L" | "I;16N":
            values = np.asarray(picture).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError(
                    f"mode {picture.mode} with values from {values.min()} to {values.max()}: expected 0 to 65535"
                )
            return _with_notes_of(picture, Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB"))
        case "F":
            raise ValueError("mode F, floating point, has no agreed range: save it with 8 or 16 bits")
        case _:  # L, P, 1, CMYK, YCbCr, LAB, HSV
            return picture.convert("RGB")


def _over_white(picture: Image.Image) -> Image.Image:
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return _with_notes_of(picture, Image.alpha_composite(white, layer).convert("RGB"))


def _with_notes_of(picture: Image.Image, result: Image.Image) -> Image.Image:
    """Pass on what the file says beside its pixels, as Pillow's own conversions do."""
    result.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    return result
