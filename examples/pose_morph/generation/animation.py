"""Animations: a GIF by Pillow or an MP4 by PyAV, frame by frame, whole or not at all."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO

import av
import numpy as np
from PIL import Image

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.errors import UserError

GIF_FPS = 50
"""GIFs count in hundredths of a second, and viewers slow down what is faster."""

LEAST_FPS = 0.01
"""Neither format has room for much longer frames."""


def check_animation(path: Path, fps: float) -> None:
    """Make sure that `write_animation` can write such a file, before anything is drawn.

    Raises:
        UserError: the ending is unknown, or ``fps`` is not possible.
    """
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--animate: expected a file that ends in .gif or .mp4, got {path}")
    most = GIF_FPS if path.suffix.lower() == ".gif" else 240
    if not LEAST_FPS <= fps <= most:
        raise UserError(f"--fps: expected {LEAST_FPS} to {most} for {path.suffix}, got {fps:g}")


def write_animation(path: Path, frames: Iterable[Image.Image], fps: float) -> None:
    """Write ``frames``, which are drawn as they are needed, and of which there is at least one.

    A GIF runs forever. An MP4 has even sides: where a picture's are odd, its last row or column is repeated.
    """
    check_animation(path, fps)
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    replace_file(path, lambda file: write(file, iter(frames), fps))


def _write_gif(file: IO[bytes], frames: Iterator[Image.Image], fps: float) -> None:
    # One palette per frame, without dithering: dots would dance from frame to frame.
    coloured = (frame.quantize(256, dither=Image.Dither.NONE) for frame in frames)
    first = next(coloured)
    first.save(file, "GIF", save_all=True, append_images=coloured, duration=round(1000 / fps), loop=0, optimize=False)


def _write_mp4(file: IO[bytes], frames: Iterator[Image.Image], fps: float) -> None:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    first = next(frames)
    encoded = io.BytesIO()  # FFmpeg would make an error of its own of a full disk
    with av.open(encoded, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = (side + side % 2 for side in first.size)
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "16"}
        else:
            stream.bit_rate = 40 * stream.width * stream.height
        for frame in chain([first], frames):
            pixels = np.asarray(frame)
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    file.write(encoded.getbuffer())
