"""The endless stream of training samples. Its n-th sample follows from the seed and n alone.

So a run can be taken up at any step, and any number of worker processes or GPUs sees the same samples.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.data.pose import mirror, random_affine
from examples.pose_morph.data.pose_data import Portrait, PoseData
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.batch import Batch

ORDER, CHANCE = 0, 1
"""What a generator is seeded for: the order of an epoch, or all that is drawn for one sample."""


class Sample(NamedTuple):
    """A pair and a tau for its source.

    The target is the second picture of a pair. In unpaired data it is any other picture, and only its pose counts: the
    B_R of section 3.3.
    """

    source: Portrait
    target: Portrait
    tau: Float[Tensor, "2 3"]


class SampleBatch(NamedTuple):
    """Samples of one step, or of a part of it."""

    pairs: Batch
    tau: Float[Tensor, "b 2 3"]


def seeded(seed: int, purpose: int, number: int) -> torch.Generator:
    """Return a generator whose numbers have nothing to do with those of another seed, purpose or number."""
    # PyTorch's CPU generator takes 32 bits of its seed, and neighbouring seeds must not resemble each other.
    mixed = np.random.SeedSequence((seed, purpose, number)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


class SampleStream(Dataset[Sample | UserError]):
    """Samples in random order, each pair once per epoch. ``stream[n]`` can be asked for in any order."""

    def __init__(self, data: PoseData, seed: int, *, mirrored: bool, tau: float) -> None:
        """Draw from ``data``; ``mirrored`` flips whole pairs half of the time, ``tau`` is the affine maps' strength."""
        if not data.paired and len(data) < 2:
            raise UserError("data: expected at least two pictures, since poses are taken from another one; got one")
        self.data, self.seed, self.mirrored, self.tau = data, seed, mirrored, tau
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __getitem__(self, number: int) -> Sample | UserError:
        """Return sample ``number``; an error is returned, not raised, so that workers pass it on as it is."""
        chance = seeded(self.seed, CHANCE, number)
        first, second = self.data.pairs[self._pair(number)].tolist()
        if not self.data.paired:
            other = int(torch.randint(len(self.data) - 1, (), generator=chance))
            second = other + (other >= first)
        flip = self.mirrored and bool(torch.rand((), generator=chance) < 0.5)
        tau = random_affine(1, self.tau, chance)[0]
        try:
            source, target = self.data[first], self.data[second]
        except UserError as error:
            return error
        return Sample(_mirrored(source), _mirrored(target), tau) if flip else Sample(source, target, tau)

    def _pair(self, number: int) -> int:
        """The pair that sample ``number`` shows."""
        epoch, place = divmod(number, len(self.data.pairs))
        if epoch != self._epoch:
            self._order = torch.randperm(len(self.data.pairs), generator=seeded(self.seed, ORDER, epoch))
            self._epoch = epoch
        return int(self._order[place])


def default_workers(device: torch.device) -> int:
    """Return how many processes read pictures if nobody says: none on a CPU, which the networks fill."""
    return 0 if device.type == "cpu" else min(4, os.cpu_count() or 1)


def _mirrored(portrait: Portrait) -> Portrait:
    image, keypoints = mirror(portrait.image[None], portrait.keypoints[None])
    return Portrait(image[0], keypoints[0])


def load_batches(
    stream: SampleStream, numbers: Iterable[range], *, workers: int, pin_memory: bool = False
) -> Iterator[SampleBatch | UserError]:
    """Yield a batch for every range of sample numbers, read ahead by so many worker processes (0: none)."""
    loader = DataLoader(
        stream,
        batch_sampler=(list(step) for step in numbers),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's own generator
    )
    return iter(loader)


def _collate(samples: list[Sample | UserError]) -> SampleBatch | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    source, target, tau = default_collate(samples)
    return SampleBatch(Batch(to_image(source.image), source.keypoints, to_image(target.image), target.keypoints), tau)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent stops between two steps and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
