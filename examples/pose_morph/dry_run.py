"""One forward and backward pass of both networks, to see whether a model runs here and what it takes."""

import sys
import time
from dataclasses import dataclass

import torch

from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.networks.settings import ModelSettings


@dataclass(frozen=True)
class DryRun:
    """What one pass took.

    Attributes:
        seconds: Forward and backward, without building the networks.
        memory: Peak bytes with weights and gradients: of PyTorch's allocator on a CUDA device, of the process
            elsewhere; None where the system does not tell (Windows).
    """

    seconds: float
    memory: int | None


def dry_run(model: ModelSettings, batch_size: int, device: torch.device) -> DryRun:
    """Build both networks, score drawn noise pictures, and go back to every weight.

    Raises:
        UserError: There is not enough memory on the device.
    """
    try:
        generator, discriminator = (network(model).to(device) for network in (Generator, Discriminator))
        image = torch.rand(batch_size, 3, *model.size, device=device) * 2 - 1
        keypoints = torch.rand(2, batch_size, len(JOINTS), 2, device=device)
        keypoints *= keypoints.new_tensor([model.size[1], model.size[0]])
        source, target = (draw_pose(joints, model) for joints in keypoints)
        began = time.monotonic()
        scores = discriminator(generator(image, source, target), target.heatmaps)
        scores.sum().backward()
        if not torch.isfinite(scores).all():  # reads the result, so that a GPU has finished
            raise UserError(f"--dry-run: the discriminator's scores are not finite: {scores.tolist()}")
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):  # the CPU's words
            raise
        raise UserError(f"--dry-run: {batch_size} pictures do not fit into the memory of {device}") from error
    seconds = time.monotonic() - began
    if device.type == "cuda":
        return DryRun(seconds, torch.cuda.max_memory_allocated(device))
    return DryRun(seconds, _peak_of_process())


def _peak_of_process() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
