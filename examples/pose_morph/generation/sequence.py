"""Sequences of poses: a table in its order, a folder of frames, or a video."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from examples.pose_morph.data.folder_store import pictures_in
from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.tables import annotation_rows, read_annotation
from examples.pose_morph.data.video import VIDEO_SUFFIXES, Video, frame_number
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.detection import detect_joints
from examples.pose_morph.generation.people import NoPerson, read_person
from examples.pose_morph.generation.poses import TargetPose, framed, is_known
from examples.pose_morph.messages import some


def read_sequence(path: Path, frame: tuple[int, int] | None) -> tuple[list[TargetPose], list[str]]:
    """Read the poses of a .csv table, a folder of frames or a video, and say in notes what is left out.

    A video's joints are the rows of the table that has its name (``walk.csv`` beside ``walk.mp4``, rows named after the
    frames' numbers from 0); without that table they are extracted. Frames in which no joint is known are left out.

    Raises:
        UserError: nothing is there, it is none of the three, or no frame has a person.
    """
    notes = []
    if path.is_dir():
        poses, names, broken = [], sorted(pictures_in(path, "--pose-sequence"), key=_by_number), []
        for name in names:
            try:
                person = read_person(path / name)
            except NoPerson as error:
                broken.append(f"  {str(error).removeprefix('data: ')}")
                continue
            size = (person.picture.height, person.picture.width)
            poses.append(TargetPose(person.name, person.keypoints, size))
        if broken:
            notes.append("\n".join([f"{len(broken)} of {len(names)} frames of {path} are left out:", *broken]))
    elif not path.is_file():
        raise UserError(f"--pose-sequence: there is no {path}")
    elif path.suffix.lower() == ".csv":
        poses = framed(list(annotation_rows(path)), path, frame)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        poses = list(_video_poses(path))
    else:
        kinds = f"a .csv table, a folder of pictures or a video ({', '.join(VIDEO_SUFFIXES)})"
        raise UserError(f"--pose-sequence: expected {kinds}, got {path}")
    kept = [pose for pose in poses if is_known(pose.keypoints)]
    if not kept:
        raise UserError(f"--pose-sequence: no joint is known in any of the {len(poses)} frame(s) of {path}")
    lost = [pose.name for pose in poses if not is_known(pose.keypoints)]
    if lost:
        notes.append(f"{len(lost)} of {len(poses)} frames of {path} have no known joint and are left out: {some(lost)}")
    return kept, notes


def _video_poses(path: Path) -> Iterator[TargetPose]:
    table = path.with_suffix(".csv")
    rows = None
    if table.is_file():
        rows = {frame_number(name): points for name, points in read_annotation(table).joints.items()}
    video = Video(path)
    unknown = torch.full((len(JOINTS), 2), torch.nan)
    for number in range(len(video)):
        if rows is None:
            points = detect_joints(video.read(number), f"frame {number} of {path}")
        else:
            points = rows.get(number, unknown)
        yield TargetPose(f"{path.stem}_{number:05d}", points, video.size)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort frame 2 before frame 10, with or without leading zeros."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
