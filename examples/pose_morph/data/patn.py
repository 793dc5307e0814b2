"""Data folders in the layout of PATN, which XingGAN, DPTN and others share.

``{root}/{train,test}/*.jpg``, ``{root}/fasion-resize-pairs-{phase}.csv`` with the columns from and to, and
``{root}/fasion-resize-annotation-{phase}.csv``, separated by colons, with name, keypoints_y and keypoints_x: JSON lists
of 18 numbers in the frame of the stored picture, -1 for a joint that is not known. "fashion" is accepted, and so is
``fasion-pairs-``.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.pose_data import DataError, FolderStore, Phase, PoseData, usable


def read_patn(root: Path, phase: Phase, size: tuple[int, int]) -> PoseData:
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

    store = FolderStore(folder)
    names, notes = usable(sorted({name for pair in wanted for name in pair}), joints, store, phase)
    number = {name: index for index, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a, b in wanted if a in number and b in number]
    if len(pairs) < len(wanted):
        notes.append(f"{phase}: {len(wanted) - len(pairs)} of {len(wanted)} pairs are left out for that")
    if not pairs:
        raise DataError("\n".join([f"data: no usable pair in {root} for {phase}", *notes]))
    keypoints = torch.stack([joints[name] for name in names])
    return PoseData(names, store, keypoints, torch.tensor(pairs), size, notes)


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
