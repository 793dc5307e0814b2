"""One phase of a data set, whatever its layout on disk: pictures of people, their poses, and who pairs with whom."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from examples.pose_morph.data.pose import from_frame, scale_keypoints
from examples.pose_morph.data.rgb import as_rgb
from examples.pose_morph.errors import UserError

Phase = Literal["train", "test"]
PHASES: tuple[Phase, ...] = get_args(Phase)

ASK_THE_DOCTOR = (
    "python -m examples.pose_morph.doctor --data FOLDER names every such file, and --write-left-out leaves them out"
)


class DataError(UserError):
    """The data cannot be used; the message says what is missing and where."""


class UnusablePicture(ValueError):
    """A picture cannot be used; the message is why, to follow "picture(s)", and names no file."""


class Portrait(NamedTuple):
    """A picture and the joints in it, fitted to the networks' size."""

    image: UInt8[Tensor, "3 h w"]
    keypoints: Float[Tensor, "18 2"]


class Region(NamedTuple):
    """Where a fitted picture lies inside its padding, in pixels, and what it was resized by."""

    top: int
    left: int
    height: int
    width: int
    factor: float

    def crop(self, pictures: Tensor) -> Tensor:
        """Take the padding off, (…, h, w)."""
        return pictures[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def move(self, keypoints: Tensor) -> Tensor:
        """Return joints as they lie in the cropped picture, (…, 18, 2)."""
        return keypoints - keypoints.new_tensor([self.left, self.top])


class PictureStore(ABC):
    """Where pictures lie. Stores are sent to worker processes, so they hold paths, not open files.

    Attributes:
        folder: What the names are below of.
    """

    folder: Path

    @abstractmethod
    def size(self, name: str) -> tuple[int, int]:
        """Return height and width, from the picture's header alone.

        Raises:
            UnusablePicture: there is no such picture, or it does not begin like one.
        """

    @abstractmethod
    def decode(self, name: str) -> Image.Image:
        """Return the picture as it is stored, in whatever mode, wholly decoded.

        Raises:
            DataError: it cannot be decoded; the message names the file.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all pictures that lie there, in order."""

    def read(self, name: str) -> Image.Image:
        """Return the decoded picture as RGB.

        Raises:
            DataError: it cannot be decoded or converted; the message names the file.
        """
        picture = self.decode(name)
        try:
            return as_rgb(picture)
        except ValueError as error:
            raise DataError(f"data: {self.folder / name}: {error}") from error

    def why_not(self, name: str) -> str | None:
        """Return why a picture cannot be used, to follow "picture(s)", or None; only its header is read."""
        try:
            self.size(name)
        except UnusablePicture as error:
            return str(error)
        return None


def read_picture(store: PictureStore, name: str) -> Image.Image:
    """Return a picture of a data set as RGB.

    Raises:
        DataError: it cannot be decoded or converted; the message names the file and says what to do.
    """
    try:
        return store.read(name)
    except DataError as error:
        raise DataError(f"{error}; {ASK_THE_DOCTOR}") from error


@dataclass(frozen=True, eq=False)
class PoseData(Dataset[Portrait]):
    """Pictures that are read when they are asked for; ``data[i]`` is a `Portrait`.

    Attributes:
        names: Names of the n pictures in the store.
        store: Where they lie.
        keypoints: (x, y) of the joints in the stored pictures, or in ``frame``; NaN where not known.
        pairs: Picture numbers (from, to): one person in two poses. Without pairs every picture is its own.
        size: Height and width that pictures are fitted to.
        notes: What was left out, and why, in sentences.
        frame: Height and width of the frame that the keypoints are in; None is the stored picture's own.
        paired: Whether pairs show a person in two poses; otherwise only L_self and L_GAN can be trained (section 3.3).
    """

    names: list[str]
    store: PictureStore
    keypoints: Float[Tensor, "n 18 2"]
    pairs: Int[Tensor, "p 2"]
    size: tuple[int, int]
    notes: list[str]
    frame: tuple[int, int] | None = None
    paired: bool = True

    @property
    def unit(self) -> str:
        """What ``pairs`` counts, in words."""
        return "pairs" if self.paired else "pictures"

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def __getitem__(self, number: int) -> Portrait:
        """Read picture ``number`` and fit it, with its joints, to ``size``."""
        picture, keypoints = read_picture(self.store, self.names[number]), self.keypoints[number]
        if self.frame is not None:
            keypoints = from_frame(keypoints, self.frame, (picture.height, picture.width))
        return fit(picture, keypoints, self.size)

    def region(self, number: int) -> Region:
        """Return where picture ``number`` lies inside its padding."""
        return region_of(self.store.size(self.names[number]), self.size)


def region_of(picture: tuple[int, int], size: tuple[int, int]) -> Region:
    """Return where a picture of the first size (height, width) lies when it is fitted to the second: in the middle."""
    factor = min(new / old for new, old in zip(size, picture, strict=True))
    height, width = (min(new, max(1, round(old * factor))) for new, old in zip(size, picture, strict=True))
    return Region((size[0] - height) // 2, (size[1] - width) // 2, height, width, factor)


def fit(picture: Image.Image, keypoints: Float[Tensor, "18 2"], size: tuple[int, int]) -> Portrait:
    """Resize a picture as a whole, keeping its shape, and pad it to ``size`` with its own border; joints follow."""
    top, left, height, width, factor = region_of((picture.height, picture.width), size)
    filter_ = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    pixels = np.asarray(picture.resize((width, height), filter_))
    padding = ((top, size[0] - height - top), (left, size[1] - width - left), (0, 0))
    pixels = np.pad(pixels, padding, mode="edge")
    moved = scale_keypoints(keypoints[None], factor, (left, top))[0]
    return Portrait(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), moved)
