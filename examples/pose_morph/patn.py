"""Data folders in the layout of PATN, which XingGAN, DPTN and others share.

``{root}/{train,test}/*.jpg``, ``{root}/fasion-resize-pairs-{phase}.csv`` with the columns from and to, and
``{root}/fasion-resize-annotation-{phase}.csv``, separated by colons, with name, keypoints_y and keypoints_x: JSON lists
of 18 numbers in the frame of the stored picture, -1 for a joint that is not known. "fashion" is accepted, and so is
``fasion-pairs-``.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from examples.pose_morph.errors import UserError
from examples.pose_morph.pose import JOINTS, scale_keypoints

Phase = Literal["train", "test"]


class DataError(UserError):
    """The data folder cannot be used; the message says what is missing and where."""


@dataclass(frozen=True)
class PosePairs:
    """Pictures held in memory, and which of them show one person in two poses.

    Attributes:
        names: File names of the n pictures.
        images: The pictures, fitted to one size.
        keypoints: (x, y) of the joints in the fitted pictures; NaN where not known.
        pairs: Picture numbers (from, to).
        notes: What was left out, and why, in sentences.
    """

    names: list[str]
    images: UInt8[Tensor, "n 3 h w"]
    keypoints: Float[Tensor, "n 18 2"]
    pairs: Int[Tensor, "p 2"]
    notes: list[str]


def read_patn(root: Path, phase: Phase, size: tuple[int, int]) -> PosePairs:
    """Read one phase of a folder and fit its pictures to ``size`` (height, width).

    Pairs that name a picture which is not there, cannot be read or has no keypoints are left out, counted in ``notes``.

    Raises:
        DataError: a folder, file or column is missing, a row cannot be read, or no pair is left.
    """
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root}")
    folder = root / phase
    if not folder.is_dir():
        raise DataError(f"data: expected the pictures in {folder}, which is not there")
    wanted = _read_pairs(_find(root, phase, "pairs"))
    joints = _read_annotation(_find(root, phase, "annotation"))

    lost: dict[str, list[str]] = {}
    names: list[str] = []
    images: list[Tensor] = []
    keypoints: list[Tensor] = []
    for name in sorted({name for pair in wanted for name in pair}):
        fitted, reason = None, "have no row in the annotation"
        if name in joints:
            reason = "have no known keypoint"
            if bool(torch.isfinite(joints[name]).any()):
                fitted, reason = _read_picture(folder / name, joints[name], size)
        if fitted is None:
            lost.setdefault(reason, []).append(name)
            continue
        names.append(name)
        images.append(fitted[0])
        keypoints.append(fitted[1])

    number = {name: index for index, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a, b in wanted if a in number and b in number]
    notes = [
        f"{phase}: {len(those)} picture(s) of the pairs {reason}: {', '.join([*those[:3], '…'][: len(those)])}"
        for reason, those in lost.items()
    ]
    if len(pairs) < len(wanted):
        notes.append(f"{phase}: {len(wanted) - len(pairs)} of {len(wanted)} pairs are left out for that")
    if not pairs:
        raise DataError("\n".join([f"data: no usable pair in {root} for {phase}", *notes]))
    return PosePairs(names, torch.stack(images), torch.stack(keypoints), torch.tensor(pairs), notes)


def _find(root: Path, phase: Phase, what: Literal["pairs", "annotation"]) -> Path:
    """Return the table under any of the spellings in use."""
    names = [f"{fashion}-{middle}{what}-{phase}.csv" for fashion in ("fasion", "fashion") for middle in ("resize-", "")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"data: expected one of {', '.join(names)} in {root}, and none is there")


def _rows(path: Path, delimiter: str, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line number, the named columns) of a table."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            table = csv.DictReader(file.read().splitlines(), delimiter=delimiter)
        except UnicodeDecodeError as error:
            raise DataError(f"data: {path} is no text in UTF-8 ({error})") from error
        found = table.fieldnames or ()
        missing = [column for column in columns if column not in found]
        if missing:
            raise DataError(
                f"data: {path} has no column {', '.join(missing)}: expected {delimiter.join(columns)} in the first "
                f"line, got {delimiter.join(found) or 'an empty file'}"
            )
        for row in table:
            values = tuple(row[column] for column in columns)
            if any(value is None for value in values):
                raise DataError(f"data: {path}, line {table.line_num}: expected {len(columns)} columns, got fewer")
            yield table.line_num, values


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    return [(a, b) for _, (a, b) in _rows(path, ",", ("from", "to"))]


def _read_annotation(path: Path) -> dict[str, Float[Tensor, "18 2"]]:
    joints = {}
    for line, (name, text_y, text_x) in _rows(path, ":", ("name", "keypoints_y", "keypoints_x")):
        try:
            points = torch.tensor([json.loads(text_x), json.loads(text_y)], dtype=torch.float32).t()
        except (ValueError, TypeError, RuntimeError) as error:
            message = f"data: {path}, line {line}: keypoints that are no JSON lists of numbers ({error})"
            raise DataError(message) from error
        if points.shape != (len(JOINTS), 2):
            raise DataError(f"data: {path}, line {line}: expected {len(JOINTS)} joints, got {len(points)}")
        joints[name] = torch.where((points < 0).any(dim=1, keepdim=True), torch.nan, points)
    return joints


def _read_picture(
    path: Path, keypoints: Float[Tensor, "18 2"], size: tuple[int, int]
) -> tuple[tuple[Tensor, Tensor] | None, str]:
    """Return (picture and keypoints fitted to size, reason why not)."""
    if not path.is_file():
        return None, "are not in the folder"
    try:
        with Image.open(path) as picture:
            return fit(picture.convert("RGB"), keypoints, size), ""
    except (UnidentifiedImageError, OSError):
        return None, "cannot be read as pictures"


def fit(
    picture: Image.Image, keypoints: Float[Tensor, "18 2"], size: tuple[int, int]
) -> tuple[UInt8[Tensor, "3 h w"], Float[Tensor, "18 2"]]:
    """Resize a picture as a whole, keeping its shape, and pad it to ``size`` with its own border; joints follow."""
    height, width = size
    factor = min(height / picture.height, width / picture.width)
    inner = (min(width, max(1, round(picture.width * factor))), min(height, max(1, round(picture.height * factor))))
    filter_ = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    pixels = np.asarray(picture.resize(inner, filter_))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    padding = ((top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0))
    pixels = np.pad(pixels, padding, mode="edge")
    moved = scale_keypoints(keypoints[None], factor, (left, top))[0]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), moved
