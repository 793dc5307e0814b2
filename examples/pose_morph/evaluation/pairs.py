"""The pairs that a candidate is scored on, as bytes and without padding."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.pixels import to_bytes
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.candidates import Candidate
from examples.pose_morph.evaluation.held_out import regions_of, take_held_out
from examples.pose_morph.evaluation.matching import flat_name
from examples.pose_morph.scores.scored_pair import ScoredPair, scored_pairs
from examples.pose_morph.training.batch import Batch, to_device


class Answer(NamedTuple):
    """What a candidate made of one pair: the padded pictures for a look, and what is scored."""

    number: int
    batch: Batch
    result: UInt8[Tensor, "3 h w"]
    scored: ScoredPair


def answers(
    candidate: Candidate, data: PoseData, which: Tensor, *, batch_size: int, device: torch.device
) -> Iterator[list[Answer]]:
    """Yield what a candidate makes of the pairs ``which``, batch by batch.

    Generated pictures are rounded to bytes, as a PNG file holds them, and cut to the region that the target's picture
    has inside its padding.
    """
    for numbers in which.split(batch_size):
        batch = take_held_out(data, numbers)
        results = to_bytes(candidate.morph(to_device(batch, device)))
        scored = scored_pairs(batch, results, regions_of(data, numbers))
        yield [
            Answer(number, Batch(*(part[row : row + 1] for part in batch)), results[row], scored[row])
            for row, number in enumerate(numbers.tolist())
        ]


def pair_names(data: PoseData, which: Tensor) -> list[tuple[str, str]]:
    """Return the names (from, to) of pairs."""
    return [(data.names[a], data.names[b]) for a, b in data.pairs[which].tolist()]


def picture_names(names: list[tuple[str, str]]) -> list[str]:
    """Return the file names of generated pictures: source___target.png.

    Raises:
        UserError: two pairs would go by one name.
    """
    files = [f"{flat_name(Path(a))}___{flat_name(Path(b))}.png" for a, b in names]
    if len(set(files)) < len(files):
        twice = next(name for name in files if files.count(name) > 1)
        raise UserError(f"--save-pictures: two pairs would both be {twice}; rename their pictures")
    return files


def digest_of(names: list[tuple[str, str]]) -> str:
    """Return the SHA-256 of the pairs' names, one "from,to" per line."""
    return hashlib.sha256("".join(f"{a},{b}\n" for a, b in names).encode()).hexdigest()


def read_bytes(path: Path) -> UInt8[Tensor, "3 h w"]:
    """Read a picture of any mode as RGB.

    Raises:
        DataError: it cannot be decoded.
    """
    picture = FolderStore(path.parent).read(path.name)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(picture.height, picture.width, 3).permute(2, 0, 1).contiguous()
