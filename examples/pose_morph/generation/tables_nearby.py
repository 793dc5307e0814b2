"""The row of a picture in a table of joints that lies near it."""

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.tables import has_annotation_columns, read_annotation
from examples.pose_morph.errors import UserError

Joints = Float[Tensor, "18 2"]


def row_of(path: Path, rows: dict[str, Joints]) -> Joints | None:
    """Return the row of a picture: under the longest end of its path that the table names, as ``dresses/a.jpg``."""
    parts = path.absolute().parts
    for first in range(len(parts)):
        name = "/".join(parts[first:])
        if name in rows:
            return rows[name]
    return None


def nearby_row(path: Path) -> Joints | None:
    """Return a picture's row in the tables beside it, in the folder's own (``walk.csv`` beside ``walk/``) or above it.

    Raises:
        UserError: several tables of one place have different rows.
    """
    folder = path.absolute().parent
    own = folder.parent / f"{folder.name}.csv"
    for tables in (folder.glob("*.csv"), [own], folder.parent.glob("*.csv")):
        found = {}
        for table in sorted(tables):
            row = row_of(path, _rows_of(table)) if has_annotation_columns(table) else None
            if row is not None:
                found[table] = row
        (first, row), *others = found.items() or [(None, None)]
        for table, other in others:
            if not torch.equal(row.nan_to_num(-1), other.nan_to_num(-1)):
                raise UserError(f"keypoints: {first} and {table} differ about {path.name}; keep only one of them there")
        if row is not None:
            return row
    return None


@cache
def _rows_of(table: Path) -> dict[str, Joints]:
    """Read a table once, however many pictures ask for it."""
    return read_annotation(table).joints
