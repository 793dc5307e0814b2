"""What is scored: trained models, and the answer that leaves the source as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.trained import WEIGHTS, load_generator
from examples.pose_morph.scores.weights import sha256_of
from examples.pose_morph.training.batch import Batch, draw_poses

COPY_SOURCE = "copy_source"


@dataclass(frozen=True)
class Candidate:
    """A way to answer a pair.

    Attributes:
        name: Its column and its key in the scores.
        size: Height and width of its pictures.
        morph: From a batch on the device to pictures in [-1, 1].
        about: Where it comes from, for the scores' file.
    """

    name: str
    size: tuple[int, int]
    morph: Callable[[Batch], Float[Tensor, "b 3 h w"]]
    about: dict[str, Any]


def load_candidates(paths: Sequence[Path], device: torch.device) -> list[Candidate]:
    """Load the models of run folders and .safetensors files, under names that differ."""
    names = [path.resolve().stem if path.is_file() else path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"--run, --model: expected different models, got {', '.join(names)}")
    if COPY_SOURCE in names:
        raise UserError(f"--run, --model: {COPY_SOURCE} is the name of the untouched source; rename the folder or file")
    return [_candidate(name, path, device) for name, path in zip(names, paths, strict=True)]


def copy_source(size: tuple[int, int]) -> Candidate:
    """Return the answer that leaves the source picture as it is."""
    about = {"what": "the source picture, unchanged", "size": list(size)}
    return Candidate(COPY_SOURCE, size, lambda batch: batch.source, about)


def _candidate(name: str, path: Path, device: torch.device) -> Candidate:
    generator, settings, info = load_generator(path, device)

    def morph(batch: Batch) -> Float[Tensor, "b 3 h w"]:
        with torch.no_grad():
            return generator(batch.source, *draw_poses(batch, settings))

    file = next(part for part in (path, path / WEIGHTS, path / "checkpoint.pt") if part.is_file())
    about = {
        "path": str(path),
        "file": file.name,
        "sha256": sha256_of(file),
        "size": list(settings.size),
        "preset": info.preset,
        "steps": info.steps,
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
    }
    return Candidate(name, settings.size, morph, about)
