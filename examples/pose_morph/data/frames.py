"""Folders of videos: two frames of one video show one person in two poses.

``{root}/{train,test}/<video>/*.png`` (or .jpg), or a video file such as ``<video>.mp4`` or ``<video>.gif``; beside it
``<video>.csv`` with the keypoints in the annotation format, in the frame of the stored picture. There a frame of a
folder goes by its file's name, a frame of a video file by its number from zero.
"""

import functools
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.pose_data import DataError, Phase, PictureStore, UnusablePicture
from examples.pose_morph.data.tables import Annotation, read_annotation
from examples.pose_morph.data.video import VIDEO_SUFFIXES, Video, frame_number
from examples.pose_morph.messages import some

OPEN_VIDEOS = 8
"""Video files that a process keeps open."""


@dataclass(frozen=True)
class FramesStore(PictureStore):
    """Frames of folders and of video files; a name is video/frame."""

    folder: Path

    def size(self, name: str) -> tuple[int, int]:
        """Read a picture's header, or a video's."""
        video, _, frame = name.partition("/")
        if not _is_video(self.folder / video):
            return FolderStore(self.folder).size(name)
        try:
            opened = _open_video(self.folder / video)
        except DataError as error:
            raise UnusablePicture("are in videos that cannot be read") from error
        if int(frame) >= len(opened):
            raise UnusablePicture("are beyond the last frame of their video")
        return opened.size

    def decode(self, name: str) -> Image.Image:
        """Decode a frame."""
        video, _, frame = name.partition("/")
        if _is_video(self.folder / video):
            return _open_video(self.folder / video).read(int(frame))
        return FolderStore(self.folder).decode(name)

    def names(self) -> list[str]:
        """List all frames; a video that cannot be read has none."""
        names = FolderStore(self.folder).names()
        for path in sorted(filter(_is_video, self.folder.iterdir())):
            try:
                names += [f"{path.name}/{number}" for number in range(len(_open_video(path)))]
            except DataError:
                continue
        return names


def list_frames(root: Path, phase: Phase) -> Listing:
    """Read the tables of one phase.

    Every annotated frame is a source once, and its target is drawn among the video's other frames, by a generator
    that is seeded with the video's name.
    """
    folder = root / phase
    joints: dict[str, torch.Tensor] = {}
    repeated, pairs, alone = [], [], []
    for video, table in locate_frames(root, phase):
        annotation = read_annotation(table)
        names = [_name(video, frame, table) for frame in annotation.joints]
        if len(set(names)) < len(names):
            raise DataError(f"data: {table}: the same frame is there under two spellings of its number")
        joints |= dict(zip(names, annotation.joints.values(), strict=True))
        repeated += [_name(video, frame, table) for frame in annotation.repeated]
        pairs += _draw_pairs(names, zlib.crc32(video.name.encode()))
        if len(names) < 2:
            alone.append(video.name)
    notes = [f"{len(alone)} video(s) have fewer than two frames in their table: {some(alone)}"] if alone else []
    return Listing(FramesStore(folder), Annotation(joints, repeated), folder, pairs, notes=notes)


def locate_frames(root: Path, phase: Phase) -> list[tuple[Path, Path]]:
    """Return (video, table) for every folder of frames and every video file.

    Raises:
        DataError: there is no video, a table is missing, or a table would belong to two videos.
    """
    folder = root / phase
    if not folder.is_dir():
        raise DataError(f"data: expected folders of frames, or video files, in {folder}, which is not there")
    videos = [path for path in sorted(folder.iterdir()) if path.is_dir() or _is_video(path)]
    if not videos:
        raise DataError(f"data: expected folders of frames, or video files, in {folder}, and there is none")
    tables: dict[Path, Path] = {}
    for video in videos:
        table = folder / f"{video.name if video.is_dir() else video.stem}.csv"
        if table in tables:
            raise DataError(f"data: {table} belongs to {tables[table].name} and to {video.name}: move one of them away")
        if not table.is_file():
            raise DataError(f"data: expected the keypoints of {video} in {table}, which is not there")
        tables[table] = video
    return [(video, table) for table, video in tables.items()]


def _name(video: Path, frame: str, table: Path) -> str:
    """Return a frame's name in the store."""
    if video.is_dir():
        return f"{video.name}/{frame}"
    number = frame_number(frame)
    if number is None:
        raise DataError(f"data: {table}: expected the number of a frame of {video.name}, from 0, got {frame!r}")
    return f"{video.name}/{number}"


def _draw_pairs(names: list[str], seed: int) -> list[tuple[str, str]]:
    """Pair every name with another one."""
    if len(names) < 2:
        return []
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, len(names), (len(names),), generator=generator).tolist()
    return [(name, names[(number + steps[number]) % len(names)]) for number, name in enumerate(names)]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _open_video(path: Path) -> Video:
    """Return an open video of this thread: a decoder's position cannot be shared."""
    return _cached_video(path, path.stat().st_mtime_ns, threading.get_ident())


@functools.lru_cache(maxsize=OPEN_VIDEOS)
def _cached_video(path: Path, changed: int, thread: int) -> Video:
    return Video(path)


# A decoder must not cross a fork: closing it there would wait for ever for threads that stayed behind.
os.register_at_fork(before=_cached_video.cache_clear)
