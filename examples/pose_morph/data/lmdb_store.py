"""Pictures as values of an LMDB database."""

import functools
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import lmdb
from PIL import Image

from examples.pose_morph.data.folder_store import SUFFIXES, decode_picture, header_size
from examples.pose_morph.data.pose_data import DataError, PictureStore, UnusablePicture


@dataclass(frozen=True)
class LmdbStore(PictureStore):
    """Encoded pictures in a database; a name is a key."""

    folder: Path

    def size(self, name: str) -> tuple[int, int]:
        """Read the value's header."""
        value = self._value(name)
        if value is None:
            raise UnusablePicture(f"are not in the database {self.folder.name}")
        return header_size(BytesIO(value))

    def decode(self, name: str) -> Image.Image:
        """Decode the value."""
        value = self._value(name)
        if value is None:
            raise DataError(f"data: {name} is not in the database {self.folder}")
        return decode_picture(BytesIO(value), self.folder / name)

    def names(self) -> list[str]:
        """List the keys that end like pictures; NTED also stores a length."""
        with _open(self.folder).begin() as view:
            keys = [bytes(key).decode(errors="replace") for key in view.cursor().iternext(values=False)]
        return sorted(key for key in keys if key.lower().endswith(SUFFIXES))

    def _value(self, name: str) -> bytes | None:
        with _open(self.folder).begin() as view:
            return view.get(name.encode())


@functools.cache
def _open(folder: Path) -> lmdb.Environment:
    """Open a database; a process may open it once only."""
    try:
        return lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise DataError(f"data: {folder} cannot be opened as an LMDB database ({error})") from error


os.register_at_fork(before=_open.cache_clear)  # an open database must not cross a fork; both sides open it again
