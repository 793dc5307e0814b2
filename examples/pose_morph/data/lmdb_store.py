"""Pictures as values of an LMDB database."""

import functools
import os
import subprocess
import sys
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
        try:
            with _open(self.folder).begin() as view:
                return view.get(name.encode())
        except lmdb.BadValsizeError:  # no key is empty or as long as that
            return None


WALK = """
import sys, lmdb
with lmdb.open(sys.argv[1], readonly=True, lock=False, readahead=False, meminit=False) as database:
    with database.begin(buffers=True) as view:
        before = None
        for key, value in view.cursor():
            if before is not None and bytes(key) <= before:
                sys.exit("its keys are not in order")
            before = bytes(key)
            bytes(value[:1]), bytes(value[-1:])
"""
"""Goes through a database, to the last byte of every value."""


@functools.cache
def _open(folder: Path) -> lmdb.Environment:
    """Open a database; a process may open it once only."""
    file = (folder / "data.mdb").stat()
    _check_whole(folder, file.st_mtime_ns, file.st_size)
    try:
        return lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise DataError(f"data: {folder} cannot be opened as an LMDB database ({error})") from error


@functools.lru_cache(maxsize=64)
def _check_whole(folder: Path, changed: int, length: int) -> None:
    """Go through a database in another process: LMDB may end the one that reads what is damaged or cut short.

    Raises:
        DataError: it did, or found something wrong.
    """
    walk = subprocess.run([sys.executable, "-c", WALK, str(folder)], capture_output=True, text=True)
    if walk.returncode:
        said = walk.stderr.strip().splitlines()[-1:] or [f"reading it ends with {walk.returncode}"]
        raise DataError(f"data: {folder} cannot be opened as an LMDB database ({said[0]}); if it is one, copy it again")


def close_all() -> None:
    """Close what this process has open; it is opened again when it is asked for."""
    _open.cache_clear()


os.register_at_fork(before=close_all)  # an open database must not cross a fork; both sides open it again
