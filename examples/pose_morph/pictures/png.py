"""Pictures as files."""

from pathlib import Path

from PIL import Image

from examples.pose_morph.atomic import replace_file


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture, whole or not at all."""
    replace_file(path, lambda file: picture.save(file, format="PNG"))
