"""The ways in which people keep such data on disk, by name, and how a folder's is found out."""

from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import torch

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.frames import list_frames, locate_frames
from examples.pose_morph.data.gfla import FRAME, list_cfld, list_gfla
from examples.pose_morph.data.listing import Listing, select
from examples.pose_morph.data.nted import list_nted, locate_nted
from examples.pose_morph.data.patn import list_patn, locate
from examples.pose_morph.data.pose_data import DataError, Phase, PoseData, UnusablePicture
from examples.pose_morph.data.single import list_single, locate_single
from examples.pose_morph.data.tables import annotation_rows, has_annotation_columns
from examples.pose_morph.data.video import VIDEO_SUFFIXES

Found = Literal["patn", "gfla", "cfld", "nted", "frames", "single"]
Profile = Literal["auto", Found]

PROFILES: tuple[Found, ...] = get_args(Found)

NEARLY = 0.5
"""A profile of which such a share of its folders and tables is there is taken for the one that was meant."""

LOOKED_AT = 200
"""Pictures that are looked at to find out which frame their keypoints are in."""


def read_data(root: Path, phase: Phase, size: tuple[int, int], profile: Profile = "auto") -> PoseData:
    """Read one phase of a folder and fit its pictures to ``size`` (height, width); see the profiles' files.

    What cannot be used is left out and counted in ``notes``: what is missing, what does not begin like a picture, what
    has no keypoint in the frame, and what ``{root}/left_out.txt`` names.

    Raises:
        DataError: no profile fits, more than one does, a file or column is missing, or nothing is left.
    """
    return select(list_data(root, phase, size, profile), root, phase, size)


def list_data(root: Path, phase: Phase, size: tuple[int, int], profile: Profile = "auto") -> Listing:
    """Read the tables of one phase in the named profile."""
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root}")
    match find_profile(root, phase) if profile == "auto" else profile:
        case "patn":
            return list_patn(root, phase)
        case "gfla":
            return list_gfla(root, phase)
        case "cfld":
            return list_cfld(root, phase)
        case "nted":
            return list_nted(root, phase, size)
        case "frames":
            return list_frames(root, phase)
        case "single":
            return list_single(root, phase)
        case unknown:
            raise DataError(f"profile: expected auto or one of {', '.join(PROFILES)}, got {unknown}")


def find_profile(root: Path, phase: Phase) -> Found:
    """Return the one profile that fits what lies in a folder.

    Raises:
        DataError: none fits, or more than one; the message says why for each.
    """
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root}")
    against = {profile: _why_not(profile, root, phase) for profile in PROFILES}
    fitting = [profile for profile, reason in against.items() if reason is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"data: {root} could be {' or '.join(fitting)} for {phase}; say which one with --profile, as in --profile "
            f"{fitting[0]}"
        )
    found = {profile: _share_found(profile, root, phase) for profile in PROFILES}
    nearest = max(PROFILES, key=found.__getitem__)
    reasons = {profile: (reason or "").removeprefix("data: ") for profile, reason in against.items()}
    first = f"data: no profile fits {root} for {phase}"
    if found[nearest] < NEARLY:
        raise DataError("\n".join([first, *(f"  {profile}: {reason}" for profile, reason in reasons.items())]))
    others = ", ".join(profile for profile in PROFILES if profile != nearest)
    raise DataError(
        f"{first}; {nearest} nearly does:\n  {nearest}: {reasons[nearest]}\n"
        f"  less so: {others} (--profile NAME reads it so, or says what it lacks)"
    )


def _share_found(profile: Found, root: Path, phase: Phase) -> float:
    """Return the share of a profile's marks, folders and tables, that is there."""
    tables = [any(root.glob(f"*{what}-{phase}.csv")) for what in ("pairs", "annotation")]
    match profile:
        case "patn" | "gfla":
            marks = [(root / phase).is_dir(), *tables]
        case "cfld":
            marks = [(root / f"{phase}_highres").is_dir(), *tables]
        case "nted":
            marks = [any(root.glob("*-*/data.mdb")), (root / f"{phase}_pairs.txt").is_file(), (root / "pose").is_dir()]
        case "frames":
            inside = list((root / phase).iterdir()) if (root / phase).is_dir() else []
            videos = any(path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES for path in inside)
            marks = [videos, any(path.suffix == ".csv" for path in inside)]
        case "single":
            folder = next((path for path in (root / "train", root / "test") if path.is_dir()), None)
            pictures = any(FolderStore(root if folder is None else root / phase).names())
            marks = [pictures, any(map(has_annotation_columns, root.glob("*.csv"))), not any(root.glob("*pairs*.*"))]
    return sum(marks) / len(marks)


def _why_not(profile: Found, root: Path, phase: Phase) -> str | None:
    """Return what speaks against a profile, without reading its tables to the end."""
    try:
        match profile:
            case "patn" | "gfla":
                folder, _, annotation = locate(root, phase, (phase,))
                frame = _frame_of(folder, annotation)
                if profile == "patn" and frame == "DeepFashion's":
                    return f"the keypoints in {annotation.name} are in a frame of 256x176, not in the stored pictures'"
                if profile == "gfla" and frame == "the picture's":
                    return (
                        f"the keypoints in {annotation.name} are in the stored pictures' frame, not in one of 256x176"
                    )
            case "cfld":
                locate(root, phase, (f"{phase}_highres",))
            case "nted":
                locate_nted(root, phase)
            case "frames":
                locate_frames(root, phase)
            case "single":
                tables = sorted(path.name for path in root.glob("*pairs*.*"))
                if tables:
                    return f"there are pairs ({', '.join(tables)}), which it would not use"
                locate_single(root, phase)
    except DataError as error:
        return str(error)
    return None


def _frame_of(folder: Path, annotation: Path) -> Literal["the picture's", "DeepFashion's", "either"]:
    """Say whether keypoints are in the stored picture's frame (PATN) or in one of 256x176 (GFLA).

    The frame is the one that holds the joints of most pictures; if both do, the one in whose middle most people stand.
    """
    store = FolderStore(folder)
    inside, middle, same = [], [], 0
    for name, points in islice(annotation_rows(annotation), LOOKED_AT):
        known = points[torch.isfinite(points).all(dim=1)]
        try:
            size = store.size(name)
        except UnusablePicture:
            continue
        if len(known):
            same += size == FRAME
            frames = [known / known.new_tensor([width, height]) for height, width in (size, FRAME)]
            inside.append(torch.stack([(joints <= 1).all() for joints in frames]))
            middle.append(torch.stack([(joints.mean(dim=0) - 0.5).abs().amax() for joints in frames]))
    if 2 * same >= len(inside):  # nothing speaks against it; stored at 256x176, both frames are the same
        return "the picture's"
    holds_picture, holds_fashion = (torch.stack(inside).float().mean(dim=0) > 0.5).tolist()
    if holds_picture != holds_fashion:
        return "the picture's" if holds_picture else "DeepFashion's"
    off_picture, off_fashion = torch.stack(middle).median(dim=0).values.tolist()
    if abs(off_picture - off_fashion) < 0.1:
        return "either"
    return "the picture's" if off_picture < off_fashion else "DeepFashion's"
