"""What a folder says about one phase, before any picture is opened, and the selection of what can be used."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.left_out import FILE_NAME, is_left_out, read_left_out
from examples.pose_morph.data.pose import outside
from examples.pose_morph.data.pose_data import DataError, Phase, PictureStore, PoseData, UnusablePicture
from examples.pose_morph.data.tables import Annotation
from examples.pose_morph.messages import some


@dataclass(frozen=True)
class Listing:
    """The claims of one phase: pictures may be missing, rows may be absent, joints may lie anywhere.

    Attributes:
        store: Where the pictures lie.
        annotation: Joints by name, (x, y) with NaN where not known.
        source: What holds the joints, for messages: a table's path, or a folder's.
        pairs: Names (from, to). Unpaired data name every picture twice.
        frame: Height and width of the frame that the joints are in; None is the stored picture's own.
        paired: Whether pairs show a person in two poses.
        notes: What a person should know about how the folder was read.
    """

    store: PictureStore
    annotation: Annotation
    source: Path
    pairs: list[tuple[str, str]]
    frame: tuple[int, int] | None = None
    paired: bool = True
    notes: list[str] = field(default_factory=list)


class Selected(NamedTuple):
    """The pictures that can be used, their joints, and notes on the others."""

    names: list[str]
    keypoints: list[Float[Tensor, "18 2"]]
    notes: list[str]


def select(listing: Listing, root: Path, phase: Phase, size: tuple[int, int]) -> PoseData:
    """Keep what can be used, count and explain the rest in ``notes``, and fit pictures to ``size`` when they are read.

    A pair is left out with either of its pictures. A picture is left out if it is named in ``left_out.txt``, has no
    joints, is not there, or does not begin like a picture; joints outside the frame count as unknown.

    Raises:
        DataError: no pair is left.
    """
    names, keypoints, notes = _usable(listing, root, phase)
    number = {name: index for index, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a, b in listing.pairs if a in number and b in number]
    if listing.paired and len(pairs) < len(listing.pairs):
        notes.append(f"{phase}: {len(listing.pairs) - len(pairs)} of {len(listing.pairs)} pairs are left out for that")
    notes = [*(f"{phase}: {note}" for note in listing.notes), *notes]
    if not pairs:
        what = "pair" if listing.paired else "picture"
        raise DataError("\n".join([f"data: no usable {what} in {root} for {phase}", *notes]))
    return PoseData(
        names, listing.store, torch.stack(keypoints), torch.tensor(pairs), size, notes, listing.frame, listing.paired
    )


def without_left_out(listing: Listing, phase: Phase, lines: set[str]) -> Listing:
    """Return a listing that does not mention what left_out.txt names."""
    joints, repeated = listing.annotation
    kept = {name: points for name, points in joints.items() if not is_left_out(name, phase, lines)}
    pairs = [pair for pair in listing.pairs if not any(is_left_out(name, phase, lines) for name in pair)]
    annotation = listing.annotation._replace(joints=kept, repeated=[name for name in repeated if name in kept])
    return replace(listing, annotation=annotation, pairs=pairs)


def _usable(listing: Listing, root: Path, phase: Phase) -> Selected:
    left_out = set(read_left_out(root))
    of_the_pairs = " of the pairs" if listing.paired else ""
    kept: dict[str, Tensor] = {}
    lost: dict[str, list[str]] = {}
    beyond: dict[str, int] = {}
    for name in sorted({name for pair in listing.pairs for name in pair}):
        try:
            if is_left_out(name, phase, left_out):
                raise UnusablePicture(f"are named in {FILE_NAME}")
            points, count = _known(listing, name)
        except UnusablePicture as error:
            lost.setdefault(str(error), []).append(name)
            continue
        kept[name] = points
        if count:
            beyond[name] = count
    notes = [
        f"{phase}: {len(those)} picture(s){of_the_pairs} {reason}: {some(those)}" for reason, those in lost.items()
    ]
    if beyond:
        notes.append(
            f"{phase}: {sum(beyond.values())} keypoint(s) in {len(beyond)} picture(s) lie outside the frame and count "
            f"as unknown: {some(beyond)}"
        )
    repeated = [name for name in listing.annotation.repeated if name in kept]
    if repeated:
        notes.append(f"{phase}: {len(repeated)} name(s) have several rows, the last one counts: {some(repeated)}")
    return Selected(list(kept), list(kept.values()), notes)


def _known(listing: Listing, name: str) -> tuple[Float[Tensor, "18 2"], int]:
    """Return a usable picture's joints, NaN outside the frame, and how many were outside."""
    if name not in listing.annotation.joints:
        raise UnusablePicture(f"have no keypoints in {listing.source.name}")
    points = listing.annotation.joints[name]
    if not bool(torch.isfinite(points).any()):
        raise UnusablePicture("have no known keypoint")
    stored = listing.store.size(name)
    beyond = outside(points, listing.frame or stored)
    points = torch.where(beyond[:, None], torch.nan, points)
    if not bool(torch.isfinite(points).any()):
        raise UnusablePicture("have no keypoint inside the frame")
    return points, int(beyond.sum())
