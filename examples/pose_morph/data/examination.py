"""Reading pictures to their last byte, in worker processes, to learn which of them are damaged or odd."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import NamedTuple

from examples.pose_morph.data.orientation import orientation_of
from examples.pose_morph.data.pose_data import DataError, PictureStore, UnusablePicture
from examples.pose_morph.data.rgb import as_rgb

CHUNK = 64
"""Pictures that a worker takes at a time; neighbours, so that a video is read in order."""


class Examined(NamedTuple):
    """What a picture turned out to be.

    Attributes:
        size: Height and width; None if it cannot be read.
        mode: How its pixels are stored, in Pillow's words.
        turned: Whether the file asks to be shown turned or mirrored.
        broken: Why it cannot be used, to follow "picture(s)", or None.
    """

    size: tuple[int, int] | None
    mode: str
    turned: bool
    broken: str | None


def examine(store: PictureStore, name: str) -> Examined:
    """Read one picture wholly."""
    try:
        size = store.size(name)
    except UnusablePicture as error:
        return Examined(None, "", False, str(error))
    try:
        picture = store.decode(name)
    except DataError:
        return Examined(size, "", False, "are damaged: they begin well and cannot be decoded to the end")
    try:
        as_rgb(picture)
    except ValueError:
        return Examined(size, picture.mode, False, f"are stored in mode {picture.mode}, which has no agreed range")
    return Examined(size, picture.mode, orientation_of(picture) != 1, None)


def examine_all(store: PictureStore, names: list[str], workers: int) -> Iterator[dict[str, Examined]]:
    """Examine pictures and yield the results, by name, some at a time; without ``workers`` in this process.

    Raises:
        DataError: a worker process died.
    """
    rest = iter(names)
    chunks = list(iter(lambda: list(islice(rest, CHUNK)), []))
    work = partial(_examine_chunk, store)
    if not workers:
        yield from map(work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    ignore_interrupts = (signal.SIGINT, signal.SIG_IGN)  # this process ends the workers itself
    pool = ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=ignore_interrupts)
    try:
        yield from pool.map(work, chunks)
    except BrokenProcessPool as error:
        raise DataError("data: a worker process died, of memory or of a picture; try again with --workers 0") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _examine_chunk(store: PictureStore, names: list[str]) -> dict[str, Examined]:
    return {name: examine(store, name) for name in names}
