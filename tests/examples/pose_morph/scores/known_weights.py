"""Weights by a formula, so that a network here and its original elsewhere can be given the same ones."""

import math
import zlib

import torch
from torch import Tensor


def known_weights(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of those names and shapes, scaled so that signals neither die nor explode."""
    return {name: _known(name, tensor) for name, tensor in shapes.items()}


def _known(name: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros_like(like)
    phase = zlib.crc32(name.encode()) % 1000
    wave = torch.sin(torch.arange(like.numel(), dtype=torch.float64) * 12.9898 + phase).view(like.shape)
    if like.ndim > 1:
        wave = wave * math.sqrt(4 / like[0].numel())
    elif name.endswith("running_var") or name.endswith("bn.weight"):
        wave = 1 + 0.3 * wave
    else:
        wave = 0.1 * wave
    return wave.float()


def known_picture(height: int = 64, width: int = 48, step: int = 37) -> Tensor:
    """Return a picture of bytes, (3, h, w)."""
    return (torch.arange(3 * height * width) * step % 256).to(torch.uint8).view(3, height, width)
