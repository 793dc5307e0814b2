"""Queries, keys and values that are features of real things, without any training.

Queries are features of one view, keys of another, values what the keys show: attention looks for what corresponds,
as copy attention does. Photographs are those that scikit-image brings along.
"""

from __future__ import annotations

import importlib.resources
import math
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 64
PATCH = 7


@dataclass(frozen=True)
class Source:
    """Where features come from.

    Attributes:
        name: what it is.
        kind: photographs, video or audio: tables take the mean over those of one kind.
        shape: the grid of the tokens.
        views: (n, features) of queries and of keys.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    views: Callable[[], tuple[Tensor, Tensor]]

    def __str__(self) -> str:
        return f"{self.name}, {'×'.join(map(str, self.shape))}"

    def tokens(self, perplexity: float, *, directions: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (1, 1, n, 64): features for q and k, or only their directions; the keys' own features for v.

        Lengths are such that a query of dense attention attends to so many keys: the exponential of the mean entropy
        of its weights.
        """
        of_queries, of_keys = self.views()
        mean = of_keys.mean(0)
        of_queries, of_keys = of_queries - mean, of_keys - mean
        _, axes = torch.linalg.eigh(of_keys.mT @ of_keys)
        axes = axes[:, -CHANNELS:]
        v = of_keys @ axes
        q, k = of_queries @ axes, v
        if directions:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        else:  # as long as directions, in the root mean square of keys
            q, k = (x / k.square().sum(-1).mean().sqrt() for x in (q, k))
        length = (inverse_temperature(q, k, perplexity) * CHANNELS**0.5) ** 0.5
        return (q * length)[None, None], (k * length)[None, None], (v / v.std())[None, None]


def inverse_temperature(q: Tensor, k: Tensor, perplexity: float) -> float:
    """What cosines are multiplied with, so that the perplexity over some of the queries is this one."""
    cosines = q[:: max(1, len(q) // 256)] @ k.mT
    low, high = 0.0, 12.0  # natural logarithms
    for _ in range(30):
        middle = (low + high) / 2
        weights = (cosines * math.exp(middle)).softmax(-1)
        spread = math.exp(torch.special.entr(weights).sum(-1).mean())
        low, high = (middle, high) if spread > perplexity else (low, middle)
    return math.exp(low)


def sources(*, quick: bool) -> list[Source]:
    """All of them; one of each kind, tiny, to see whether the script works."""
    side, video, frames = (16, (2, 8, 8), 256) if quick else (128, (8, 32, 32), 4096)
    photographs = ("astronaut",) if quick else ("astronaut", "coffee", "chelsea")
    found = [
        Source(f"{name} and a warped copy", "photographs", (side, side), partial(warped, name, side))
        for name in photographs
    ]
    if not quick:
        found.append(Source("a motorcycle, left and right eye", "photographs", (side, side), partial(two_eyes, side)))
    found.append(Source("two camera paths over one photograph", "video", video, partial(camera_paths, video)))
    found.append(Source("a melody played twice, synthesised", "audio", (frames,), partial(melody, frames)))
    if not quick and (plucked := pluck()) is not None:
        found.append(Source("a plucked string, left and right ear", "audio", (len(plucked[0]),), lambda: plucked))
    return found


# Photographs ----------------------------------------------------------------------------------------------------------


@lru_cache
def photograph(name: str) -> Tensor:
    """(3, height, width) in 0 … 1, one of those that scikit-image brings along."""
    from skimage import data

    return torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255


def warped(name: str, side: int) -> tuple[Tensor, Tensor]:
    """Patches of a photograph, turned, scaled, bent, darkened and with noise; and of the photograph."""
    picture, rng = squared(photograph(name), side), torch.Generator().manual_seed(0)
    turned = look(picture, (side, side), angle=0.2, zoom=0.85, shift=(0.1, -0.05), bend=0.05)
    changed = 0.85 * turned + 0.05 + 0.02 * torch.randn(turned.shape, generator=rng)
    return patches(changed), patches(picture)


def two_eyes(side: int) -> tuple[Tensor, Tensor]:
    """Patches of two photographs of one scene, taken side by side."""
    from skimage import data

    left, right, _ = data.stereo_motorcycle()
    pictures = (torch.from_numpy(x.copy()).permute(2, 0, 1).float() / 255 for x in (left, right))
    first, second = (patches(squared(picture, side)) for picture in pictures)
    return first, second


def squared(picture: Tensor, side: int) -> Tensor:
    """The square in the middle, made smaller."""
    height, width = picture.shape[1:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    middle = picture[None, :, top : top + edge, left : left + edge]
    return F.interpolate(middle, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def look(
    picture: Tensor,
    size: tuple[int, int],
    *,
    angle: float = 0.0,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    bend: float = 0.0,
) -> Tensor:
    """What a camera sees that is turned, closer and moved, in halves of the picture's width; bent by a wave."""
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    turn = torch.tensor([[[cos, -sin, shift[0]], [sin, cos, shift[1]]]])
    where = F.affine_grid(turn, [1, 3, *size], align_corners=False)
    where = where + bend * (3 * where.flip(-1)).sin()
    return F.grid_sample(picture[None], where, padding_mode="reflection", align_corners=False)[0]


def patches(picture: Tensor) -> Tensor:
    """(n, 3 · 7 · 7) the patch around every pixel."""
    padded = F.pad(picture[None], (PATCH // 2,) * 4, mode="reflect")
    return F.unfold(padded, PATCH)[0].mT.contiguous()


# Video ----------------------------------------------------------------------------------------------------------------


def camera_paths(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Patches of the frames of two cameras that move over one photograph in different ways: no film was at hand."""
    time, height, width = shape
    picture = squared(photograph("coffee"), 4 * max(height, width))

    def frames(angle: float, zoom: float, across: float) -> Tensor:
        views = []
        for step in torch.linspace(-1, 1, time).tolist():
            shift = (across * step, 0.2 * step)
            seen = look(picture, (2 * height, 2 * width), angle=angle * step, zoom=zoom + 0.1 * step, shift=shift)
            smaller = F.interpolate(seen[None], size=(height, width), mode="bilinear", antialias=True)[0]
            views.append(patches(smaller))
        return torch.cat(views)

    return frames(0.1, 0.5, 0.3), frames(-0.1, 0.6, -0.2)


# Audio ----------------------------------------------------------------------------------------------------------------


def melody(frames: int, rate: int = 8000, hop: int = 16, window: int = 512) -> tuple[Tensor, Tensor]:
    """Logarithmic spectra of a melody of tones with harmonics, played twice, with another tempo, tuning and noise."""
    rng = torch.Generator().manual_seed(0)
    tones = 220 * 2 ** (torch.randint(0, 25, (24,), generator=rng) / 12)
    length = frames * hop + window

    def played(beats: float, detuned: float, noise: float) -> Tensor:
        place = torch.arange(length) / length * beats
        tone, since = place.long() % len(tones), place.frac() * length / beats / rate
        phase = 2 * torch.pi * (tones[tone] * detuned).cumsum(0) / rate
        harmonics = sum((phase * h).sin() * (-3 * h * since).exp() / h for h in range(1, 9))
        return harmonics + noise * torch.randn(length, generator=rng)

    def spectra(sound: Tensor) -> Tensor:
        weighted = sound.unfold(0, window, hop)[:frames] * torch.hann_window(window)
        return (1 + 10 * torch.fft.rfft(weighted).abs()).log()

    return spectra(played(22.0, 1.01, 0.01)), spectra(played(20.0, 1.0, 0.01))


def pluck(window: int = CHANNELS) -> tuple[Tensor, Tensor] | None:
    """Every stretch of 64 samples of both channels of a plucked string; None where Python lacks its test data."""
    try:
        path = importlib.resources.files("test") / "audiodata" / "pluck-pcm16.wav"
        with path.open("rb") as file, wave.open(file) as sound:
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, 2)
    except (ImportError, OSError):
        return None
    left, right = torch.from_numpy(samples.astype(np.float32) / 2**15).unbind(1)
    return left.unfold(0, window, 1).contiguous(), right.unfold(0, window, 1).contiguous()
