"""Render a data set of articulated, textured people in the file layout of PATN.

Every person has a few pictures. Clothes are functions of the rest-pose point, so the same stripe sits on the same piece
of cloth in every picture, and the 18 joints come from the body model, not from a detector. The pictures in `people/`
were made by this step with its default options; it needs `anny` and `warp-lang`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from rich.console import Console
from torch import Tensor

from examples.pose_morph.atomic import replace_file
from examples.pose_morph.data.pose_data import PHASES
from examples.pose_morph.data.rest_points import encode, rest_path
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_existing
from examples.pose_morph.figures.body import Body
from examples.pose_morph.figures.camera import Photo, dressed, frame_body, photograph
from examples.pose_morph.figures.poses import Pose, sample_pose
from examples.pose_morph.figures.wardrobe import Look, sample_look
from examples.pose_morph.messages import say
from examples.pose_morph.option_types import RequiredFolder, Switch, check_least
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.pairs import write_pairs
from examples.pose_morph.progress import progress_bar

TRIES_PER_POSE = 12
GOOD_FIT = 0.93
SMALLEST = (32, 16)


@dataclass(frozen=True)
class Synthetic:
    """Render people of any number and size; the same options give the same bytes."""

    out: RequiredFolder
    """Folder to fill."""
    identities: int = 200
    """People to train on."""
    test_identities: int = 24
    """Other people, held out."""
    poses: int = 4
    """Pictures per person."""
    pairs: int = 4
    """Ordered pairs per held-out person; training uses all ordered pairs."""
    size: tuple[int, int] = (128, 80)
    """Height and width of the pictures in pixels."""
    seed: int = 0
    """Seed of people, clothes and poses."""
    rest_points: Switch = False
    """Also write the rest-pose point under every pixel of the held-out pictures, to rest/ (data/rest_points.py)."""
    overwrite: Switch = False
    """Write over files of the same names."""


@dataclass(frozen=True)
class Snapshot:
    """One picture of one person: its file name without a folder, the pose and the photo."""

    name: str
    pose: Pose
    photo: Photo


def snapshots(body: Body, identity: int, *, poses: int, size: tuple[int, int], seed: int) -> Iterator[Snapshot]:
    """Yield the pictures of one person. They depend on `seed`, `size` and `identity` alone, so runs can be repeated.

    Args:
        body: the body model, shared by all people.
        identity: number of the person.
        poses: pictures to draw.
        size: height and width of a picture.
        seed: seed of the whole data set.
    """
    rng = np.random.default_rng([seed, identity])
    look = sample_look(rng)
    # One picture in six or seven is a back view, never the first one.
    backs = [False] + [rng.random() < 0.2 for _ in range(poses - 1)]
    for number, back in enumerate(backs, start=1):
        pose, photo = _best_photo(body, look, rng, back=back, size=size)
        turn = abs(np.degrees(pose.yaw)) % 360
        view = "back" if back else "front" if turn < 25 else "side"
        yield Snapshot(f"annyid{identity:08d}_{number}{view}.jpg", pose, photo)


def _best_photo(
    body: Body, look: Look, rng: np.random.Generator, *, back: bool, size: tuple[int, int]
) -> tuple[Pose, Photo]:
    """Photograph the first pose that fits the frame nearly unshrunk, or else the best of several."""
    best = None
    for _ in range(TRIES_PER_POSE):
        pose = sample_pose(rng, back=back)
        posed = body.posed(look.phenotype, pose)
        view, fit = frame_body(dressed(posed, look, body.rest_fields, body.faces), posed.height, rng, size)
        if best is None or fit > best[0]:
            best = fit, pose, posed, view
        if fit >= GOOD_FIT:
            break
    assert best is not None
    _, pose, posed, view = best
    return pose, photograph(posed, look, body.rest_fields, body.faces, view, size)


def as_keypoints(joints: np.ndarray) -> Float[Tensor, "18 2"]:
    """Turn a photo's rows and columns with -1 into (x, y) with NaN."""
    points = torch.from_numpy(joints).float().flip(1)
    return torch.where(points < 0, torch.nan, points)


def synthetic(options: Synthetic, console: Console) -> None:
    """Render all people and write pictures, annotations, pairs and rest points below ``out``."""
    _check(options)
    tables = [options.out / f"fasion-resize-{what}-{phase}.csv" for what in ("annotation", "pairs") for phase in PHASES]
    refuse_existing([*tables, *(options.out / phase for phase in PHASES)], overwrite=options.overwrite)
    body = Body()
    first = 0
    with progress_bar(console) as progress:
        for phase, count in zip(PHASES, (options.identities, options.test_identities), strict=True):
            joints, pairs = {}, []
            pair_rng = np.random.default_rng([options.seed, PHASES.index(phase), count])
            for identity in progress.track(range(first, first + count), description=phase):
                names = []
                for snapshot in snapshots(body, identity, poses=options.poses, size=options.size, seed=options.seed):
                    _write(options.out, phase, snapshot, rest_points=options.rest_points and phase == "test")
                    joints[snapshot.name] = as_keypoints(snapshot.photo.joints)
                    names.append(snapshot.name)
                ordered = list(permutations(names, 2))
                if phase == "test":
                    chosen = pair_rng.permutation(len(ordered))[: options.pairs]
                    ordered = [ordered[i] for i in sorted(chosen)]
                pairs += ordered
            first += count
            write_annotation(options.out / f"fasion-resize-annotation-{phase}.csv", joints)
            write_pairs(options.out / f"fasion-resize-pairs-{phase}.csv", pairs)
            say(console, f"{phase}: {count} people, {len(joints)} pictures, {len(pairs)} pairs in {options.out}")


def _check(options: Synthetic) -> None:
    for name, least in {"identities": 0, "test_identities": 0, "pairs": 0, "poses": 1, "seed": 0}.items():
        check_least(name, getattr(options, name), least)
    if options.size[0] < SMALLEST[0] or options.size[1] < SMALLEST[1]:
        raise UserError(f"--size: expected at least {SMALLEST} (height, width), got {options.size}")


def _write(out: Path, phase: str, snapshot: Snapshot, *, rest_points: bool) -> None:
    picture = Image.fromarray(snapshot.photo.pixels)
    replace_file(
        out / phase / snapshot.name,
        lambda file: picture.save(file, format="JPEG", quality=93, subsampling=0, optimize=True),
    )
    if rest_points:
        levels = Image.fromarray(encode(torch.from_numpy(snapshot.photo.rest_points)).numpy())
        replace_file(rest_path(out, snapshot.name), lambda file: levels.save(file, format="PNG", optimize=True))
