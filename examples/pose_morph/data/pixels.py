"""Pixels as files hold them, bytes, and as the networks see them, in [-1, 1]."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_image(pixels: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Turn bytes into the networks' range [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_bytes(images: Float[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b 3 h w"]:
    """Round pictures in [-1, 1] to bytes on the CPU; what lies outside is cut."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
