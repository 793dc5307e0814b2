"""Limb coordinates: where on the body a pixel lies, in numbers that stay the same when the body moves.

The paper proposes to "leverage coordinates in keys and queries". These are ours: every pixel gets a soft membership in
each part of the body, and Fourier features of how far along and how far across its part it lies. Two pixels of two
pictures that show the same place of the body have nearly equal features, so that a query finds its key before anything
is learnt.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.pose import facing


@dataclass(frozen=True)
class BodyPart:
    """A capsule from the mean of some joints to the mean of others, as far as they are known.

    Attributes:
        start: Joints whose mean is t = 0.
        end: Joints whose mean is t = 1.
        radius: Half the part's width, in lengths of the trunk (neck to mid-hip); s = ±1 lies this far to the side.
        before: How far the capsule begins before t = 0, in lengths of the part.
        beyond: How far it goes on after t = 1 (hands, feet, the top of the head).
        priority: Weight where parts overlap in the picture: arms are mostly in front of the trunk.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    radius: float
    before: float = 0.0
    beyond: float = 0.0
    priority: float = 1.0


PARTS = (
    BodyPart((2, 5), (8, 11), 0.30, before=0.05, beyond=0.15),  # trunk, shoulders to hips
    BodyPart((1,), (0,), 0.17, beyond=0.70),  # head, neck to the middle of the face, see `_head`
    BodyPart((2,), (3,), 0.13, priority=3.0),  # right upper arm
    BodyPart((3,), (4,), 0.11, beyond=0.40, priority=9.0),  # right forearm and hand
    BodyPart((5,), (6,), 0.13, priority=3.0),
    BodyPart((6,), (7,), 0.11, beyond=0.40, priority=9.0),
    BodyPart((8,), (9,), 0.18),  # right thigh
    BodyPart((9,), (10,), 0.14, beyond=0.20),  # right shin and foot
    BodyPart((11,), (12,), 0.18),
    BodyPart((12,), (13,), 0.14, beyond=0.20),
)

TRUNK, HEAD = 0, 1

FREQUENCIES = (0.5, 1.0, 3.0)
"""Waves per length of a part, and per width: slow ones tell the ends apart, fast ones make the match sharp."""

BACKGROUND_FREQUENCIES = (0.25, 2.0)
"""Waves per picture, for the place of a pixel that belongs to no part."""

WAVES = 4 * len(FREQUENCIES)
BACKGROUND_CHANNELS = 1 + 4 * len(BACKGROUND_FREQUENCIES)
CHANNELS = len(PARTS) + WAVES + BACKGROUND_CHANNELS
"""Channels of `limb_coordinates`: memberships, waves, background."""

MEMBERSHIP = 2.0
"""Length of a membership vector beside the waves': 2 makes another part at the same t and s half as similar."""


def limb_coordinates(keypoints: Float[Tensor, "b 18 2"], size: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Return each pixel's place on the body (see the module's text); c = CHANNELS.

    Memberships are positive, and with the background's they sum to one. A part with an unknown joint has none. ``s``
    is measured towards the person's own left, so that it changes sides with the person in a view from behind.
    The background's features are its membership and the position in the picture.
    """
    height, width = size
    y = torch.arange(height, dtype=keypoints.dtype, device=keypoints.device)
    x = torch.arange(width, dtype=keypoints.dtype, device=keypoints.device)

    start = torch.stack([_known_mean(keypoints[:, part.start]) for part in PARTS], dim=1)  # (b, p, 2)
    end = torch.stack([_known_mean(keypoints[:, part.end]) for part in PARTS], dim=1)
    end[:, HEAD] = _head(keypoints, up=start[:, TRUNK] - end[:, TRUNK])
    known = torch.isfinite(start + end).all(dim=-1)
    start, axis = torch.where(known[..., None], start, 0.0), torch.where(known[..., None], end - start, 0.0)
    # A part seen from its end has no direction; it becomes a disc with t along the picture's y.
    axis = torch.where(axis.norm(dim=-1, keepdim=True) < 1, axis.new_tensor([0.0, 1.0]), axis)
    length = axis.norm(dim=-1)  # (b, p)
    along = axis / length[..., None]
    # For a part that points down on a person seen from the front, the person's left is the picture's right (+x).
    left = torch.stack([along[..., 1], -along[..., 0]], dim=-1) * facing(keypoints)[:, None, None]

    trunk = torch.where(known[:, [TRUNK]], length[:, [TRUNK]].clamp(min=0.15 * height), 0.3 * height)
    radius = trunk * keypoints.new_tensor([part.radius for part in PARTS])
    # A trunk that turns to the side becomes narrow: half the distance of the shoulders, and some depth.
    shoulders = (keypoints[:, 5] - keypoints[:, 2]).norm(dim=-1)
    narrow = torch.hypot(0.57 * shoulders, 0.15 * trunk[:, 0])
    radius[:, TRUNK] = torch.where(torch.isfinite(shoulders), narrow, radius[:, TRUNK])
    before = keypoints.new_tensor([part.before for part in PARTS])
    beyond = keypoints.new_tensor([part.beyond for part in PARTS])

    t = _along(x, y, start, along / length[..., None])  # (b, p, h, w)
    s = _along(x, y, start, left / radius[..., None])
    nearest = torch.maximum(torch.minimum(t, (1 + beyond)[:, None, None]), -before[:, None, None])
    distance = ((t - nearest) * (length / radius)[..., None, None]).square() + s.square()
    nearness = torch.exp(-2.0 * distance.square()) * known[..., None, None]
    nearness = torch.where(nearness > 1e-4, nearness, 0.0)
    priority = keypoints.new_tensor([part.priority for part in PARTS])[:, None, None]
    share = priority * nearness / (priority * nearness).sum(dim=1, keepdim=True).clamp(min=1e-6)
    most = nearness.amax(dim=1, keepdim=True)
    weight = share * most / (most + 0.1)  # (b, p, h, w); the background takes the rest

    waves = []
    for frequency in FREQUENCIES:
        for angle in (2 * math.pi * frequency * t, math.pi * frequency * s.clamp(-2, 2)):
            waves += [(weight * torch.cos(angle)).sum(dim=1), (weight * torch.sin(angle)).sum(dim=1)]

    rest = 1 - weight.sum(dim=1)
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    place = [torch.full((height, width, 1), MEMBERSHIP, dtype=keypoints.dtype, device=keypoints.device)]
    for frequency in BACKGROUND_FREQUENCIES:
        angles = 2 * math.pi * frequency * pixels / pixels.new_tensor([width, height])
        place += [torch.cos(angles), torch.sin(angles)]
    # Channels last in memory, as the 1x1 projections of the attention want them.
    features = [
        MEMBERSHIP * weight.movedim(1, -1),
        torch.stack(waves, dim=-1),
        rest[..., None] * torch.cat(place, dim=-1),
    ]
    return torch.cat(features, dim=-1).movedim(-1, 1)


def _along(
    x: Float[Tensor, "w"], y: Float[Tensor, "h"], start: Float[Tensor, "b p 2"], direction: Float[Tensor, "b p 2"]
) -> Float[Tensor, "b p h w"]:
    """How far every pixel lies from ``start`` along ``direction``."""
    columns = (x - start[..., :1]) * direction[..., :1]
    rows = (y - start[..., 1:]) * direction[..., 1:]
    return rows[..., :, None] + columns[..., None, :]


def _known_mean(joints: Float[Tensor, "b j 2"]) -> Float[Tensor, "b 2"]:
    """The mean of the joints that are known; NaN if none is."""
    known = torch.isfinite(joints)
    return torch.where(known, joints, 0.0).sum(dim=1) / known.sum(dim=1)


def _head(keypoints: Float[Tensor, "b 18 2"], up: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    """The middle of the head: the mean of its joints, or, where no nose is seen, straight on from the trunk.

    From behind often a single ear is known, which tells how high the head is but not where its middle lies.
    """
    neck, seen = keypoints[:, 1], _known_mean(keypoints[:, [0, 14, 15, 16, 17]])
    upright = up / up.norm(dim=-1, keepdim=True)
    height = ((seen - neck) * upright).sum(dim=-1, keepdim=True)
    height = torch.where(torch.isfinite(height), height, 0.35 * up.norm(dim=-1, keepdim=True))
    behind = ~torch.isfinite(keypoints[:, :1, 0]) & torch.isfinite(height)
    return torch.where(behind, neck + height * upright, seen)
