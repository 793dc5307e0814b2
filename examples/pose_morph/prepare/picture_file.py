"""How results are stored."""

from pathlib import Path

from PIL import Image

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.pictures.png import write_png


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in one step: PNG where the name says so, otherwise JPEG at quality 95 with full colour."""
    if path.suffix.lower() == ".png":
        write_png(path, picture)
    else:
        replace_file(path, lambda file: picture.save(file, format="JPEG", quality=95, subsampling=0))
