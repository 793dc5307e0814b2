"""The endless stream of training batches, which can be stopped and taken up again at any batch."""

import zlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import default_collate

from examples.pose_morph.data.pose import apply_affine, mirror, random_affine
from examples.pose_morph.data.pose_data import PoseData
from examples.pose_morph.errors import UserError

State = dict[str, Tensor | int]


class Batch(NamedTuple):
    """Source and target pictures in [-1, 1] with their poses: (M1, B1) and (M2, B2)."""

    source: Float[Tensor, "b 3 h w"]
    source_keypoints: Float[Tensor, "b 18 2"]
    target: Float[Tensor, "b 3 h w"]
    target_keypoints: Float[Tensor, "b 18 2"]


def to_image(pixels: Tensor) -> Float[Tensor, "..."]:
    """Turn bytes into the networks' range [-1, 1]."""
    return pixels.float() / 127.5 - 1


def take_pairs(data: PoseData, which: Tensor) -> Batch:
    """Return the pairs with the numbers ``which``."""
    first, second = (default_collate([data[number] for number in side]) for side in data.pairs[which].t().tolist())
    return Batch(to_image(first.image), first.keypoints, to_image(second.image), second.keypoints)


class PairStream:
    """Batches in random order, each pair once per epoch; all chance comes from one generator."""

    def __init__(self, data: PoseData, batch_size: int, seed: int, *, mirrored: bool, tau: float) -> None:
        """Start the stream; ``mirrored`` flips whole pairs half of the time, ``tau`` is the affine maps' strength."""
        self.data, self.batch_size, self.mirrored, self.tau = data, batch_size, mirrored, tau
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    def state_dict(self) -> State:
        """Return all that decides the batches to come."""
        state: State = {"generator": self.generator.get_state(), "order": self.order, "position": self.position}
        return {**state, "digest": self._digest()}

    def load_state_dict(self, state: State) -> None:
        """Go on where ``state`` was taken, on the same pairs."""
        if len(state["order"]) not in (0, len(self.data.pairs)):
            raise UserError(
                f"data: expected the {len(state['order'])} pairs that the run was started with, got "
                f"{len(self.data.pairs)}"
            )
        if state["digest"] != self._digest():
            raise UserError("data: the names, keypoints or pairs are not those that the run was started with")
        self.generator.set_state(state["generator"])
        self.order, self.position = state["order"], int(state["position"])

    def _digest(self) -> int:
        """A number that changes with the data."""
        digest = zlib.crc32("\n".join(self.data.names).encode())
        for part in (self.data.pairs, self.data.keypoints):
            digest = zlib.crc32(part.contiguous().numpy().data, digest)
        return digest

    def pairs(self) -> Batch:
        """Return the next batch of pairs: one person in two poses."""
        which = []
        for _ in range(self.batch_size):
            if self.position == len(self.order):
                self.order = torch.randperm(len(self.data.pairs), generator=self.generator)
                self.position = 0
            which.append(self.order[self.position])
            self.position += 1
        batch = take_pairs(self.data, torch.stack(which))
        if not self.mirrored:
            return batch
        flip = torch.rand(self.batch_size, generator=self.generator) < 0.5
        return Batch(*_mirror_where(flip, batch.source, batch.source_keypoints), *_mirror_where(flip, *batch[2:]))

    def distorted(self) -> Batch:
        """Return a batch (M, B, tau(M), tau(B)) for L_self."""
        source, keypoints, _, _ = self.pairs()
        matrix = random_affine(len(source), self.tau, self.generator)
        return Batch(source, keypoints, *apply_affine(source, keypoints, matrix))


def _mirror_where(flip: Tensor, images: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    mirrored_images, mirrored_keypoints = mirror(images, keypoints)
    return (
        torch.where(flip[:, None, None, None], mirrored_images, images),
        torch.where(flip[:, None, None], mirrored_keypoints, keypoints),
    )
