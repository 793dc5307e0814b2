"""Target poses: from a table of joints, from other pictures, or from a sequence, brought to the networks' frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.folder_store import header_size
from examples.pose_morph.data.pose import JOINTS, outside, scale_keypoints
from examples.pose_morph.data.pose_data import UnusablePicture, region_of
from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.people import Person

HIPS, NECK = (8, 11), 1

FEWEST = 4
"""A pose of fewer known joints is warned about."""


@dataclass(frozen=True)
class TargetPose:
    """A pose to take.

    Attributes:
        name: What results are named after.
        keypoints: (x, y), NaN where not known.
        frame: Height and width of the picture they are in; None means the source's.
    """

    name: str
    keypoints: Float[Tensor, "18 2"]
    frame: tuple[int, int] | None


def read_poses(table: Path, names: Sequence[str], frame: tuple[int, int] | None) -> list[TargetPose]:
    """Read the named rows of a table in that order, or all rows; see `framed` for what frame they are in.

    Raises:
        UserError: the table cannot be read, lacks a name, or a row knows no joint.
    """
    rows = read_annotation(table).joints
    absent = [name for name in names if name not in rows]
    if absent:
        raise UserError(
            f"--pose-names: {table} has no row {absent[0]} ({len(absent)} of {len(names)} names are missing); "
            f"its rows begin with {', '.join(list(rows)[:3])}"
        )
    if not rows:
        raise UserError(f"poses: {table} has no rows")
    chosen = list(names) or list(rows)
    empty = [name for name in chosen if not is_known(rows[name])]
    if empty:
        raise UserError(
            f"poses: {table} knows no joint of {empty[0]} ({len(empty)} row(s) like it); name others with --pose-names"
        )
    return framed([(name, rows[name]) for name in chosen], table, frame)


def framed(
    rows: Sequence[tuple[str, Float[Tensor, "18 2"]]], table: Path, frame: tuple[int, int] | None
) -> list[TargetPose]:
    """Give rows of ``table`` the frame they are in.

    That is ``frame``, or else the size of the picture of the row's name, if it lies beside the table or in a folder
    there, or else None.
    """
    folders = [table.parent, *sorted(path for path in table.parent.iterdir() if path.is_dir())]
    return [TargetPose(Path(name).stem, points, frame or _size_of(name, folders)) for name, points in rows]


def poses_of(people: Sequence[Person]) -> list[TargetPose]:
    """Return the poses that people have in their pictures."""
    return [
        TargetPose(person.name, person.keypoints, (person.picture.height, person.picture.width)) for person in people
    ]


def doubtful(poses: Sequence[TargetPose], what: str) -> list[str]:
    """Return notes on poses that hardly say how a person stands: few joints are known, or all are on one point."""
    notes = []
    for pose in poses:
        known = pose.keypoints[torch.isfinite(pose.keypoints).all(dim=1)]
        if len(known) < FEWEST:
            joints = "joint" if len(known) == 1 else "joints"
            notes.append(f"{what} {pose.name}: only {len(known)} {joints} of {len(JOINTS)} known; expect little")
        elif bool((known == known[0]).all()):
            notes.append(f"{what} {pose.name}: all {len(known)} known joints are on one point; expect little")
    return notes


def is_known(keypoints: Float[Tensor, "18 2"]) -> bool:
    """Whether at least one joint is known."""
    return bool(torch.isfinite(keypoints).all(dim=1).any())


def place(poses: Sequence[TargetPose], source: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "p 18 2"]:
    """Bring poses from their frames (None: ``source``) to pictures of ``size``, as `fit` brings pictures there."""
    placed = []
    for pose in poses:
        region = region_of(pose.frame or source, size)
        placed.append(scale_keypoints(pose.keypoints[None], region.factor, (region.left, region.top))[0])
    return torch.stack(placed)


def fit_to_body(
    poses: Float[Tensor, "p 18 2"], body: Float[Tensor, "18 2"], *, together: bool, source: str
) -> Float[Tensor, "p 18 2"]:
    """Scale and move poses so that the trunk is as long as the body's and the hips' middle lies where the body's does.

    Args:
        poses: Joints in the frame of ``body``.
        body: The source's joints.
        together: One scale and one move for all, after the median trunk and hips: for the poses of one sequence, whose
            steps and bends must stay. Otherwise every pose has its own.
        source: The body's name, for messages.

    Raises:
        UserError: the neck or both hips of the body or of a pose are unknown, or a trunk has no length.
    """
    (hips,), (trunk,) = _trunks(body[None])
    their_hips, their_trunk = _trunks(poses)
    if together:
        their_hips = their_hips.nanmedian(dim=0, keepdim=True).values
        their_trunk = their_trunk.nanmedian(dim=0, keepdim=True).values
    usable = (their_trunk > 1) & torch.isfinite(their_hips).all(dim=1)
    if not (trunk > 1 and torch.isfinite(hips).all()):
        raise UserError(f"--fit-pose: the neck and a hip of {source} must be known, and apart; leave --fit-pose out")
    if not bool(usable.all()):
        raise UserError(
            f"--fit-pose: the neck and a hip must be known, and apart, and in {int((~usable).sum())} pose(s) they are "
            "not; leave --fit-pose out, or choose poses with --pose-names"
        )
    return (poses - their_hips[:, None]) * (trunk / their_trunk)[:, None, None] + hips


def check_inside(poses: Float[Tensor, "p 18 2"], names: Sequence[str], size: tuple[int, int], source: str) -> list[str]:
    """Return notes on joints that lie outside of the picture of ``size``, where the networks do not see them.

    Raises:
        UserError: all known joints of a pose lie outside.
    """
    known = torch.isfinite(poses).all(dim=-1)
    out = known & outside(poses, size)
    for number, name in enumerate(names):
        if bool(known[number].any()) and bool((out | ~known)[number].all()):
            raise UserError(
                f"poses: all joints of {name} lie outside of the picture of {source}; in which frame are they "
                "(--pose-frame HEIGHT WIDTH), or should they be moved onto the source (--fit-pose)?"
            )
    affected = int(out.any(dim=1).sum())
    if not affected:
        return []
    return [f"{source}: {int(out.sum())} joint(s) of {affected} of {len(names)} pose(s) lie outside of the picture"]


def between(poses: Float[Tensor, "p 18 2"], count: int) -> Float[Tensor, "q 18 2"]:
    """Put ``count`` poses between neighbours, joint by joint on a straight line; unknown where either end is."""
    if count == 0 or len(poses) == 1:
        return poses
    share = torch.arange(count + 1, dtype=poses.dtype)[:, None, None] / (count + 1)
    # Not torch.lerp alone: the given poses keep the joints that a neighbour does not know.
    steps = poses[:-1, None] + share * (poses[1:, None] - poses[:-1, None])
    steps[:, 0] = poses[:-1]
    return torch.cat([steps.flatten(0, 1), poses[-1:]])


def names_between(names: Sequence[str], count: int) -> list[str]:
    """Return the names of the poses of `between`.

    >>> names_between(["a", "b"], 2)
    ['a', 'a+1', 'a+2', 'b']
    """
    after = [f"+{number}" if number else "" for number in range(count + 1)]
    return [*(name + suffix for name in names[:-1] for suffix in after), names[-1]]


def _trunks(poses: Float[Tensor, "p 18 2"]) -> tuple[Float[Tensor, "p 2"], Float[Tensor, "p"]]:
    """The middle of the hips that are known, and its distance from the neck."""
    hips = poses[:, list(HIPS)].nanmean(dim=1)
    return hips, (poses[:, NECK] - hips).norm(dim=-1)


def _size_of(name: str, folders: Sequence[Path]) -> tuple[int, int] | None:
    """Height and width of the picture a row is about, if it lies in one of the folders."""
    for folder in folders:
        if (folder / name).is_file():
            try:
                return header_size(folder / name)
            except UnusablePicture as error:
                raise UserError(f"poses: the frame of {name} is that of {folder / name}, which {error}") from error
    return None
