"""Poses: 18 joints in OpenPose order, as (x, y) pixel coordinates with NaN for a joint that is not known."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist",
    "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle",
    "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
"""The joints' names; their order is the order of the heatmap channels."""

MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""Joint i of a mirrored person is joint MIRRORED[i] of the person."""

BONES = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of joints that a drawn skeleton connects."""


def heatmaps(
    keypoints: Float[Tensor, "b 18 2"], size: tuple[int, int], sigma: float | None = None
) -> Float[Tensor, "b 18 h w"]:
    """Draw a Gaussian around every known joint; an unknown joint's channel is zero.

    Args:
        keypoints: (x, y) in pixels of a picture of ``size``.
        size: Height and width.
        sigma: Width of the Gaussian in pixels; None means 6 for a picture 256 high, and in proportion.

    Values under 0.001 are cut to exact zeros: denormal tails make convolutions slow on CPUs.
    """
    height, width = size
    sigma = 6.0 * height / 256 if sigma is None else sigma
    y = torch.arange(height, dtype=keypoints.dtype, device=keypoints.device)
    x = torch.arange(width, dtype=keypoints.dtype, device=keypoints.device)
    along_x = torch.exp(-(x[:, None] - keypoints[:, None, :, 0]).square() / (2 * sigma**2))  # (b, w, 18)
    along_y = torch.exp(-(y[:, None] - keypoints[:, None, :, 1]).square() / (2 * sigma**2))
    maps = along_y[:, :, None] * along_x[:, None]
    # NaN > 0.001 is false. Channels last in memory, as the networks have them.
    return torch.where(maps > 1e-3, maps, 0.0).movedim(-1, 1)


def mirror(
    images: Float[Tensor, "b 3 h w"], keypoints: Float[Tensor, "b 18 2"]
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 18 2"]]:
    """Mirror pictures and poses left to right; the right hand becomes the left one."""
    mirrored = keypoints[:, list(MIRRORED)].clone()
    mirrored[..., 0] = images.shape[-1] - 1 - mirrored[..., 0]
    return images.flip(-1), mirrored


def random_affine(count: int, strength: float, generator: torch.Generator) -> Float[Tensor, "b 2 3"]:
    """Draw the paper's tau: the identity plus noise U(-strength, strength) on all six numbers (section 3.1)."""
    noise = torch.rand(count, 2, 3, generator=generator) * 2 - 1
    return torch.eye(2, 3) + strength * noise


def apply_affine(
    images: Float[Tensor, "b 3 h w"], keypoints: Float[Tensor, "b 18 2"], matrix: Float[Tensor, "b 2 3"]
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 18 2"]]:
    """Apply tau to pictures and poses alike.

    ``matrix`` maps a point of the result to the point of the input that it shows, in coordinates from -1 to 1 between
    the picture's outer edges (``affine_grid``); joints go the other way, by the exact inverse. The border is repeated.
    """
    height, width = images.shape[-2:]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    size = keypoints.new_tensor([width, height])
    points = (2 * keypoints + 1) / size - 1
    linear, shift = matrix[:, :, :2], matrix[:, :, 2]
    points = (points - shift[:, None]) @ torch.linalg.inv(linear).transpose(1, 2)
    return moved, ((points + 1) * size - 1) / 2


def facing(keypoints: Float[Tensor, "b 18 2"]) -> Float[Tensor, "b"]:
    """+1 for a person seen from the front (right shoulder on the picture's left), -1 from behind; +1 if not known."""
    across = keypoints[:, 5, 0] - keypoints[:, 2, 0]
    return torch.where(across < 0, -1.0, 1.0).to(keypoints.dtype)


def outside(keypoints: Float[Tensor, "*b 18 2"], frame: tuple[int, int]) -> Bool[Tensor, "*b 18"]:
    """Which known joints lie beyond the outermost pixels of a frame (height, width)."""
    height, width = frame
    return ((keypoints < -0.5) | (keypoints > keypoints.new_tensor([width, height]) - 0.5)).any(dim=-1)


def scale_keypoints(
    keypoints: Float[Tensor, "b 18 2"], factor: float, offset: tuple[float, float] = (0.0, 0.0)
) -> Float[Tensor, "b 18 2"]:
    """Follow a picture that was resized by ``factor`` and then moved by ``offset`` (x, y) pixels.

    Pixel centres are whole numbers, so that the outer edge lies at -0.5.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"factor: expected a positive number, got {factor}")
    return (keypoints + 0.5) * factor - 0.5 + keypoints.new_tensor(offset)


def from_frame(
    keypoints: Float[Tensor, "*b 18 2"], frame: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "*b 18 2"]:
    """Bring joints from a picture of the size ``frame`` to the same picture of ``size`` (height, width)."""
    scale = keypoints.new_tensor([size[1] / frame[1], size[0] / frame[0]])
    return (keypoints + 0.5) * scale - 0.5
