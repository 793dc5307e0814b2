"""The distortion task of section 3.2: from M, B and tau(B) draw tau(M); and its fixed test set."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from examples.pose_morph.data.pose import apply_affine, random_affine
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.training.batch import Batch, to_image

TEST_SEED = 1234


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures with their joints, small enough to be held in memory."""

    images: UInt8[Tensor, "n 3 h w"]
    keypoints: Float[Tensor, "n 18 2"]

    @classmethod
    def of(cls, data: PoseData) -> "Pictures":
        """Decode all of ``data``.

        Raises:
            DataError: a picture cannot be read; the message names the file.
        """
        images, keypoints = zip(*(data[number] for number in range(len(data))), strict=True)
        return cls(torch.stack(images), torch.stack(keypoints))

    def without(self, other: "Pictures") -> "Pictures":
        """Return the pictures that come before those of ``other``, which are the last."""
        kept = len(self.images) - len(other.images)
        return Pictures(self.images[:kept], self.keypoints[:kept])

    def last(self, count: int) -> "Pictures":
        """Return the last ``count`` pictures."""
        return Pictures(self.images[-count:], self.keypoints[-count:])

    def distorted(self, numbers: Tensor, matrix: Float[Tensor, "b 2 3"], device: torch.device) -> Batch:
        """Return (M, B, tau(M), tau(B)) for these pictures and maps."""
        images, keypoints = to_image(self.images[numbers]).to(device), self.keypoints[numbers].to(device)
        return Batch(images, keypoints, *apply_affine(images, keypoints, matrix.to(device)))


def random_batches(pictures: Pictures, batch_size: int, tau: float, seed: int, device: torch.device) -> Iterator[Batch]:
    """Yield training batches for ever: random pictures under random maps."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        numbers = torch.randint(len(pictures.images), (batch_size,), generator=generator)
        yield pictures.distorted(numbers, random_affine(batch_size, tau, generator), device)


def take_cases(pictures: Pictures, which: Tensor, count: int, tau: float, device: torch.device) -> Batch:
    """Return some of ``count`` test cases, the same for everybody: pictures in turn, each time under another map."""
    matrices = random_affine(count, tau, torch.Generator().manual_seed(TEST_SEED))
    return pictures.distorted(which % len(pictures.images), matrices[which], device)


def test_batches(pictures: Pictures, count: int, batch_size: int, tau: float, device: torch.device) -> Iterator[Batch]:
    """Yield all test cases."""
    for part in torch.arange(count).split(batch_size):
        yield take_cases(pictures, part, count, tau, device)


class Budget:
    """Seconds of training: of all this process's threads on a CPU, as the clock shows them on a GPU."""

    def __init__(self, seconds: float, device: torch.device) -> None:
        """Start to count."""
        self.seconds, self.device = seconds, device
        self._began = self._now()

    def spent(self) -> float:
        """Return the seconds since the start."""
        return self._now() - self._began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()
