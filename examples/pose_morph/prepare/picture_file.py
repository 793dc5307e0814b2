"""How results are stored."""

from pathlib import Path

from PIL import Image

from examples.pose_morph.atomic import replace_file


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in one step: PNG where the name says so, otherwise JPEG at quality 95 with full colour."""
    options = (
        {"format": "PNG"} if path.suffix.lower() == ".png" else {"format": "JPEG", "quality": 95, "subsampling": 0}
    )
    replace_file(path, lambda file: picture.save(file, **options))
