"""The tables that data folders come with: pairs of names, and keypoints in the annotation format of PATN."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.pose_data import DataError

ANNOTATION_COLUMNS = ("name", "keypoints_y", "keypoints_x")


class Annotation(NamedTuple):
    """Joints by picture, as (x, y) with NaN for one that is not known, and the names that had several rows."""

    joints: dict[str, Float[Tensor, "18 2"]]
    repeated: list[str]


def find_table(root: Path, what: str, phase: str) -> Path:
    """Return the table of ``what`` ("pairs" or "annotation") under any of the spellings in use."""
    names = [f"{fashion}-{middle}{what}-{phase}.csv" for fashion in ("fasion", "fashion") for middle in ("resize-", "")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"data: expected one of {', '.join(names)} in {root}, and none is there")


def read_text(path: Path) -> str:
    """Return a table's text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"data: {path} is no text in UTF-8 ({error})") from error
    except OSError as error:
        raise DataError(f"data: {path} cannot be read ({error.strerror})") from error


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read a table with the columns from and to, separated by commas."""
    return [(a, b) for _, (a, b) in _rows(path, ",", ("from", "to"))]


def read_annotation(path: Path) -> Annotation:
    """Read name, keypoints_y and keypoints_x, separated by colons: JSON lists of 18 numbers, negative for unknown.

    Of several rows for one name the last one counts.
    """
    return collect((name, points) for name, points in annotation_rows(path))


def collect(rows: Iterable[tuple[str, Float[Tensor, "18 2"]]]) -> Annotation:
    """Gather rows by name."""
    joints: dict[str, Tensor] = {}
    repeated: dict[str, None] = {}
    for name, points in rows:
        if name in joints:
            repeated[name] = None
        joints[name] = points
    return Annotation(joints, list(repeated))


def annotation_rows(path: Path) -> Iterator[tuple[str, Float[Tensor, "18 2"]]]:
    """Yield (name, joints) row by row."""
    for line, (name, text_y, text_x) in _rows(path, ":", ANNOTATION_COLUMNS):
        try:
            points = torch.tensor([json.loads(text_x), json.loads(text_y)], dtype=torch.float32).t()
        except (ValueError, TypeError, RuntimeError) as error:
            message = f"data: {path}, line {line}: keypoints that are no JSON lists of numbers ({error})"
            raise DataError(message) from error
        if points.shape != (len(JOINTS), 2):
            raise DataError(f"data: {path}, line {line}: expected {len(JOINTS)} joints, got {len(points)}")
        yield name, unknown_where_negative(points)


def unknown_where_negative(points: Float[Tensor, "18 2"]) -> Float[Tensor, "18 2"]:
    """Put NaN for both numbers of a joint if either is negative or no number."""
    return torch.where((points >= 0).all(dim=1, keepdim=True), points, torch.nan)


def has_annotation_columns(path: Path) -> bool:
    """Whether a file's first line is that of an annotation."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(200).decode("utf-8-sig", errors="replace")
    return set(ANNOTATION_COLUMNS) <= set(first.strip().split(":"))


def _rows(path: Path, delimiter: str, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line number, the named columns) of a table."""
    table = csv.DictReader(read_text(path).splitlines(), delimiter=delimiter)
    found = table.fieldnames or ()
    missing = [column for column in columns if column not in found]
    if missing:
        raise DataError(
            f"data: {path} has no column {', '.join(missing)}: expected {delimiter.join(columns)} in the first "
            f"line, got {delimiter.join(found) or 'an empty file'}"
        )
    try:
        for row in table:
            values = tuple(row[column] for column in columns)
            if any(value is None for value in values):
                raise DataError(f"data: {path}, line {table.line_num}: expected {len(columns)} columns, got fewer")
            yield table.line_num, values
    except csv.Error as error:
        raise DataError(f"data: {path}, line {table.line_num}: cannot be read as a row ({error})") from error
