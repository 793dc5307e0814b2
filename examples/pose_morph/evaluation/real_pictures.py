"""The real side of a Fréchet distance: whole pictures of the training phase, or of a folder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.left_out import is_left_out, read_left_out
from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.pose_data import PictureStore, PoseData, fit, read_picture, region_of
from examples.pose_morph.evaluation.matching import picture_files
from examples.pose_morph.evaluation.tally import Scorer, Statistics

Size = tuple[int, int] | None
"""Height and width that pictures are fitted into; None leaves them as they are."""


@dataclass(frozen=True)
class RealPictures:
    """Pictures by name, what they are in words, and how one is read."""

    store: PictureStore
    names: list[str]
    what: str
    read_one: Callable[[PictureStore, str], Image.Image]

    def read(self, size: Size) -> Iterator[UInt8[Tensor, "3 h w"]]:
        """Yield every picture as bytes, resized to fit into ``size`` (height, width) as a model's are, unpadded."""
        unknown = torch.full((len(JOINTS), 2), torch.nan)
        for name in self.names:
            picture = self.read_one(self.store, name)
            shape = size or (picture.height, picture.width)
            yield region_of((picture.height, picture.width), shape).crop(fit(picture, unknown, shape).image)


def from_folder(folder: Path) -> RealPictures:
    """Take every picture of a folder and of those below it."""
    picture_files(folder, "--real")
    store = FolderStore(folder)
    return RealPictures(store, store.names(), f"every picture in {folder}", PictureStore.read)


def from_training(data: PoseData, root: Path) -> RealPictures:
    """Take the whole training phase: every file of its folder, or the pictures of its pairs where it is no folder."""
    if not (data.paired and isinstance(data.store, FolderStore)):
        return RealPictures(data.store, data.names, f"the pictures of {root}'s training pairs", read_picture)
    left_out = set(read_left_out(root))
    names = [name for name in data.store.names() if not is_left_out(name, "train", left_out)]
    what = f"every picture of {root}'s training phase, {data.store.folder}"
    return RealPictures(data.store, names, what, read_picture)


def statistics_of(real: RealPictures | None, size: Size, scorer: Scorer, batch_size: int, bar: Progress) -> Statistics:
    """Return the statistics of the real pictures' features at a model's size."""
    statistics = scorer.statistics()
    if real is None or not statistics:
        return statistics
    task = bar.add_task("real pictures", total=len(real.names))
    pictures = real.read(size)
    while some := list(islice(pictures, batch_size)):
        scorer.add_features(statistics, some)
        bar.advance(task, len(some))
    return statistics
