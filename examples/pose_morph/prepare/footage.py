"""What a step reads: the pictures of a folder, or the frames of a video."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from examples.pose_morph.data.folder_store import FolderStore, pictures_in
from examples.pose_morph.data.video import VIDEO_SUFFIXES, Video
from examples.pose_morph.errors import UserError


@dataclass(frozen=True)
class Footage:
    """Pictures by name.

    Attributes:
        names: paths below the folder, or a video's frame numbers from zero.
        read: decodes one as RGB; a `DataError` names what cannot be read.
        size: height and width, without decoding; an `UnusablePicture` says why there is none.
        is_video: whether names are frame numbers.
    """

    names: list[str]
    read: Callable[[str], Image.Image]
    size: Callable[[str], tuple[int, int]]
    is_video: bool


def open_footage(path: Path) -> Footage:
    """List a folder or a video.

    Raises:
        UserError: it is neither, or holds no picture.
    """
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        video = Video(path)
        names = [str(number) for number in range(len(video))]
        return Footage(names, lambda name: video.read(int(name)), lambda _: video.size, is_video=True)
    if path.is_file():
        raise UserError(f"--pictures: expected a folder, or a video ({', '.join(VIDEO_SUFFIXES)}), got the file {path}")
    store = FolderStore(path)
    return Footage(pictures_in(path, "--pictures"), store.read, store.size, is_video=False)
