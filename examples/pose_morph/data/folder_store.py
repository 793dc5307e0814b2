"""Pictures as files of a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from examples.pose_morph.data.pose_data import DataError, PictureStore, UnusablePicture

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""Endings of the files that a folder's list of pictures holds; by name, whatever Pillow reads can be asked for."""


@dataclass(frozen=True)
class FolderStore(PictureStore):
    """Files below a folder; a name is a path from there."""

    folder: Path

    def size(self, name: str) -> tuple[int, int]:
        """Read the file's header."""
        path = self.folder / name
        if not path.is_file():
            raise UnusablePicture("are not in the folder")
        return header_size(path)

    def decode(self, name: str) -> Image.Image:
        """Decode the file."""
        return decode_picture(self.folder / name, self.folder / name)

    def names(self) -> list[str]:
        """List the pictures of the folder and of folders in it."""
        found = (path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


def pictures_in(folder: Path, option: str) -> list[str]:
    """Return the names of all pictures in a folder that somebody gave as ``option``, and in folders in it, in order.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{option}: there is no folder {folder}")
    names = FolderStore(folder).names()
    if not names:
        raise DataError(f"{option}: expected pictures ({', '.join(SUFFIXES)}) in {folder}, and none is there")
    return names


def header_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """Return height and width of an encoded picture."""
    try:
        with Image.open(source) as picture:
            _refuse_programs(picture)
            return picture.height, picture.width
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise UnusablePicture("cannot be read as pictures") from error


def decode_picture(source: Path | IO[bytes], called: Path) -> Image.Image:
    """Decode a picture wholly; one that is broken or cut off becomes a `DataError` about ``called``."""
    try:
        with Image.open(source) as picture:
            _refuse_programs(picture)
            picture.load()
            return picture
    except Exception as error:  # as above
        raise DataError(f"data: {called} cannot be read as a picture ({error})") from error


def _refuse_programs(picture: Image.Image) -> None:
    """PostScript is a program, which Pillow would have Ghostscript run, whatever the file's name ends in."""
    if picture.format == "EPS":
        raise ValueError("it is PostScript, a program; save it as a PNG")
