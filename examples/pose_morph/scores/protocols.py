"""Every score that can be asked for, by the name of its protocol: what it is, what files it needs, how it is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from examples.pose_morph.errors import UserError
from examples.pose_morph.scores import feature_distance, fid, l1, lpips, perceptual, ssim
from examples.pose_morph.scores.scored_pair import ScoredPair
from examples.pose_morph.scores.weights import sha256_of

PairProtocol = Literal[
    "ssim_gaussian", "ssim_uniform51", "ssim_bars", "l1", "l1_person", "perceptual_efficientnet_lite0", "lpips_alex"
]
SetProtocol = Literal["fid_gfla", "fid_tf2015", "frechet_efficientnet_lite0"]
ProtocolName = PairProtocol | SetProtocol

DEFINITIONS: dict[ProtocolName, str] = {
    **ssim.DEFINITIONS,
    **l1.DEFINITIONS,
    **perceptual.DEFINITIONS,
    **lpips.DEFINITIONS,
    **fid.DEFINITIONS,
    **feature_distance.DEFINITIONS,
}
SET_PROTOCOLS: tuple[SetProtocol, ...] = ("fid_gfla", "fid_tf2015", "frechet_efficientnet_lite0")
"""Scores of all generated pictures against all real ones; the others are means over pairs."""

NEEDS_KEYPOINTS: tuple[PairProtocol, ...] = ("l1_person",)


@dataclass(frozen=True)
class WeightFiles:
    """The user's weight files, by what they are for; None where there is none."""

    alexnet: Path | None = None
    lpips: Path | None = None
    inception: Path | None = None
    inception2015: Path | None = None


_NEEDED: dict[ProtocolName, tuple[tuple[str, str, str], ...]] = {
    "lpips_alex": (("alexnet", "--alexnet-weights", lpips.ALEXNET), ("lpips", "--lpips-weights", lpips.LINEAR)),
    "fid_gfla": (("inception", fid.OPTIONS["torchvision"], fid.EXPECTED["torchvision"]),),
    "fid_tf2015": (("inception2015", fid.OPTIONS["tf2015"], fid.EXPECTED["tf2015"]),),
}

OFFLINE: tuple[ProtocolName, ...] = tuple(name for name in DEFINITIONS if name not in _NEEDED)
"""The protocols that need no file of the user's."""


PairScore = Callable[[ScoredPair], float]


def check_files(names: Sequence[ProtocolName], files: WeightFiles) -> None:
    """See that every protocol has its weights before anything is computed.

    Raises:
        UserError: files are not given or not there; the message names all of them.
    """
    lacking = []
    for name in names:
        for field, option, expected in _NEEDED.get(name, ()):
            path = getattr(files, field)
            if path is None:
                lacking.append(f"{name} needs {option} FILE: {expected}")
            elif not path.is_file():
                lacking.append(f"{name} needs {option} FILE: {expected}; there is no file {path}")
    if lacking:
        raise UserError("\n".join(["protocols: weights are missing, and nothing is downloaded here:", *lacking]))


def hashes(names: Sequence[ProtocolName], files: WeightFiles) -> dict[str, dict[str, str]]:
    """Return name and SHA-256 of every weight file that the protocols use."""
    used = {field: getattr(files, field) for name in names for field, _, _ in _NEEDED.get(name, ())}
    found = {field: {"file": path.name, "sha256": sha256_of(path)} for field, path in used.items()}
    if any("efficientnet_lite0" in name for name in names):
        path = perceptual.efficientnet_lite0_file()
        found["efficientnet-lite0"] = {"file": path.name, "sha256": sha256_of(path)}
    return found


def make_pair_score(name: PairProtocol, files: WeightFiles, device: torch.device) -> PairScore:
    """Return the function that scores one pair; networks are on ``device``."""
    match name:
        case "ssim_gaussian":
            return lambda pair: ssim.ssim_gaussian(pair.result, pair.truth)
        case "ssim_uniform51":
            return lambda pair: ssim.ssim_uniform51(pair.result, pair.truth)
        case "ssim_bars":
            return lambda pair: ssim.ssim_bars(pair.result, pair.truth)
        case "l1":
            return lambda pair: l1.l1(*pair.images(pair.result.device)).item()
        case "l1_person":
            return lambda pair: l1.l1_person(*pair.images(pair.result.device), pair.keypoints[None]).item()
        case "perceptual_efficientnet_lite0":
            distance = perceptual.PerceptualDistance(perceptual.EfficientNetLite0()).to(device)
        case "lpips_alex":
            distance = lpips.LPIPS(files.alexnet, files.lpips).to(device)
    return lambda pair: distance(*pair.images(device)).item()


def make_features(name: SetProtocol, files: WeightFiles, device: torch.device) -> nn.Module:
    """Return the network that turns pictures of bytes into the features of a Fréchet distance."""
    match name:
        case "fid_gfla":
            network: nn.Module = fid.InceptionFeatures("torchvision", files.inception)
        case "fid_tf2015":
            network = fid.InceptionFeatures("tf2015", files.inception2015)
        case "frechet_efficientnet_lite0":
            network = feature_distance.EfficientNetLite0Features()
    return network.to(device)
