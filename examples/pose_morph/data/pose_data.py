"""One phase of a data set, whatever its layout on disk: pictures of people, their poses, and who pairs with whom."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from examples.pose_morph.data.pose import scale_keypoints
from examples.pose_morph.errors import UserError

Phase = Literal["train", "test"]


class DataError(UserError):
    """The data cannot be used; the message says what is missing and where."""


class Portrait(NamedTuple):
    """A picture and the joints in it, fitted to the networks' size."""

    image: UInt8[Tensor, "3 h w"]
    keypoints: Float[Tensor, "18 2"]


class PictureStore(ABC):
    """Where pictures lie. Stores are sent to worker processes, so they hold paths, not open files."""

    @abstractmethod
    def why_not(self, name: str) -> str | None:
        """Return why a picture cannot be used, to follow "picture(s)", or None; only its header is read."""

    @abstractmethod
    def read(self, name: str) -> Image.Image:
        """Return the decoded picture as RGB.

        Raises:
            DataError: it cannot be decoded; the message names the file.
        """


@dataclass(frozen=True)
class FolderStore(PictureStore):
    """Files below a folder; a name is a path from there."""

    folder: Path

    def why_not(self, name: str) -> str | None:
        """See whether the file is there and begins like a picture."""
        if not (self.folder / name).is_file():
            return "are not in the folder"
        try:
            with Image.open(self.folder / name):
                return None
        except (UnidentifiedImageError, OSError):
            return "cannot be read as pictures"

    def read(self, name: str) -> Image.Image:
        """Decode the file."""
        path = self.folder / name
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"data: {path} cannot be read as a picture ({error})") from error


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

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def __getitem__(self, number: int) -> Portrait:
        """Read picture ``number`` and fit it, with its joints, to ``size``."""
        picture, keypoints = self.store.read(self.names[number]), self.keypoints[number]
        if self.frame is not None:
            scale = keypoints.new_tensor([picture.width / self.frame[1], picture.height / self.frame[0]])
            keypoints = (keypoints + 0.5) * scale - 0.5
        return fit(picture, keypoints, self.size)


def usable(
    names: list[str], joints: dict[str, Float[Tensor, "18 2"]], store: PictureStore, phase: str
) -> tuple[list[str], list[str]]:
    """Return the names that can be used, and notes that count and explain what is left out."""
    kept, lost = [], {}
    for name in names:
        if name not in joints:
            reason = "have no row in the annotation"
        elif not bool(torch.isfinite(joints[name]).any()):
            reason = "have no known keypoint"
        else:
            reason = store.why_not(name)
        if reason is None:
            kept.append(name)
        else:
            lost.setdefault(reason, []).append(name)
    notes = [
        f"{phase}: {len(those)} picture(s) of the pairs {reason}: {', '.join([*those[:3], '…'][: len(those)])}"
        for reason, those in lost.items()
    ]
    return kept, notes


def fit(picture: Image.Image, keypoints: Float[Tensor, "18 2"], size: tuple[int, int]) -> Portrait:
    """Resize a picture as a whole, keeping its shape, and pad it to ``size`` with its own border; joints follow."""
    height, width = size
    factor = min(height / picture.height, width / picture.width)
    inner = (min(width, max(1, round(picture.width * factor))), min(height, max(1, round(picture.height * factor))))
    filter_ = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    pixels = np.asarray(picture.resize(inner, filter_))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    padding = ((top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0))
    pixels = np.pad(pixels, padding, mode="edge")
    moved = scale_keypoints(keypoints[None], factor, (left, top))[0]
    return Portrait(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), moved)
