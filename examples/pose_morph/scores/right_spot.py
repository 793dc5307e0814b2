"""How much of the attention lands on the right spot, where the true source of every pixel is known.

Rendered people have a rest-pose point under every pixel (`data/rest_points.py`). A pixel of the source is the right
spot for a pixel of the target if their rest-pose points are close: the same piece of skin or cloth in two pictures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from examples.pose_morph.networks.copy_weights import CopyLevel

QUERIES_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class RightSpots:
    """What is asked of one pair: pixels of the target that the source shows, too.

    Attributes:
        pixels: Row-major numbers of those pixels in the target picture.
        hidden: Pixels of the target's person that the source does not show.
        person: Pixels of the source's person.
        distances: Metres in the rest pose from each of ``pixels`` to each of ``person``.
        size: Height and width of both pictures.
    """

    pixels: Int[Tensor, "p"]
    hidden: Int[Tensor, "o"]
    person: Int[Tensor, "s"]
    distances: Float[Tensor, "p s"]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class SpotShares:
    """For each radius and pixel, how much lands within the radius of the right spot.

    Attributes:
        attention: Mass of the attention.
        selected: The most that any attention could reach on the keys that the pixel sees (GPA's Phase 1).
        best: The most that any attention could reach on all keys. Below 1 where a key pixel shows more than the spot.
        uniform: Mass of the same attention to every pixel of the source's person.
        strongest: Metres from the right spot to the key with the largest weight, the mean over what it shows of the
            person; infinite where that is nothing.
    """

    attention: Float[Tensor, "r p"]
    selected: Float[Tensor, "r p"]
    best: Float[Tensor, "r p"]
    uniform: Float[Tensor, "r p"]
    strongest: Float[Tensor, "p"]


def right_spots(
    source_points: Float[Tensor, "h w 3"], target_points: Float[Tensor, "h w 3"], radius: float
) -> RightSpots:
    """Compare two pictures' rest-pose points (metres, NaN off the person); ``radius`` decides what the source shows."""
    source, target = source_points.flatten(0, 1), target_points.flatten(0, 1)
    person, pixels = (torch.isfinite(points).all(dim=1).nonzero()[:, 0] for points in (source, target))
    # Not by matrix products, whose rounding is of the size of a pixel.
    distances = torch.cdist(target[pixels], source[person], compute_mode="donot_use_mm_for_euclid_dist")
    shown = (distances <= radius).any(dim=1)
    size = (source_points.shape[0], source_points.shape[1])
    return RightSpots(pixels[shown], pixels[~shown], person, distances[shown], size)


def spot_shares(spots: RightSpots, level: CopyLevel, radii: tuple[float, ...]) -> SpotShares:
    """Measure one level of a batch of one.

    At a level smaller than the picture a pixel asks the query that covers it, and a key's mass is spread evenly over
    the pixels that it covers.

    Raises:
        ValueError: the picture is no whole multiple of the level.
    """
    if level.q.shape[0] != 1:
        raise ValueError(f"level: expected a batch of one, got {level.q.shape[0]}")
    query_of = covering(spots.size, level.size)
    if not len(spots.pixels):
        nothing = torch.zeros(len(radii), 0)
        return SpotShares(nothing, nothing, nothing, nothing, nothing[0])
    # Only keys that show something of the person can hold a right spot.
    keys, key_of = covering(spots.size, level.key_size)[spots.person].unique(return_inverse=True)
    area = math.prod(spots.size) / math.prod(level.key_size)
    portions = []
    for pixels, distances in zip(
        spots.pixels.split(QUERIES_AT_ONCE), spots.distances.split(QUERIES_AT_ONCE), strict=True
    ):
        queries = query_of[pixels].to(level.q.device)
        weights, selected = level.weights(queries)[0].cpu(), level.selected(queries)[0].cpu()
        on_person, per_key = weights[:, keys], _sum_over(key_of, len(keys))
        shares = []
        for radius in radii:
            near = distances <= radius
            part = per_key(near) / area  # of every key, what shows the right spot
            reachable = torch.where(selected[:, keys], part, 0)
            quantities = (on_person * part).sum(1), reachable.amax(1), part.amax(1), near.float().mean(1)
            shares.append(torch.stack(quantities))
        strongest, key = on_person.max(dim=1)
        distance = (per_key(distances) / per_key(torch.ones_like(distances))).gather(1, key[:, None])[:, 0]
        distance[strongest < weights.amax(dim=1)] = torch.inf
        portions.append((*torch.stack(shares, dim=1), distance))
    return SpotShares(*(torch.cat(parts, dim=-1) for parts in zip(*portions, strict=True)))


def covering(size: tuple[int, int], level: tuple[int, int]) -> Int[Tensor, "n"]:
    """Return for every pixel of a picture of ``size`` the number of the level's pixel that covers it.

    Raises:
        ValueError: the picture is no whole multiple of the level.
    """
    if size[0] % level[0] or size[1] % level[1]:
        raise ValueError(f"level: expected a size that divides the picture's {size}, got {level}")
    rows, columns = (torch.arange(n) // (n // m) for n, m in zip(size, level, strict=True))
    return (rows[:, None] * level[1] + columns).flatten()


def _sum_over(key_of: Int[Tensor, "s"], keys: int) -> Callable[[Shaped[Tensor, "p s"]], Float[Tensor, "p k"]]:
    """Return the function that adds up what belongs to the pixels of each key."""
    return lambda x: torch.zeros(len(x), keys).index_add_(1, key_of, x.float())
