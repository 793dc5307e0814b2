"""PATN's annotation table: a line ``name: keypoints_y: keypoints_x`` per picture, whole pixels, -1 where not known."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.atomic import write_text
from examples.pose_morph.data.tables import ANNOTATION_COLUMNS
from examples.pose_morph.errors import UserError

HEADER = ":".join(ANNOTATION_COLUMNS)


def annotation_row(name: str, joints: Float[Tensor, "18 2"]) -> str:
    """Return the line of one picture; ``joints`` are (x, y), NaN where not known.

    >>> annotation_row("a.jpg", torch.tensor([[1.0, 2.4], [torch.nan, 3.0]]))
    'a.jpg: [2, -1]: [1, -1]'
    """
    known = torch.isfinite(joints).all(dim=1, keepdim=True)
    x, y = torch.where(known, joints.round(), -1).int().t().tolist()
    return f"{name}: {json.dumps(y)}: {json.dumps(x)}"


def write_annotation(path: Path, joints: Mapping[str, Float[Tensor, "18 2"]]) -> None:
    """Write the whole table in one step, in the order of the mapping.

    Raises:
        UserError: a name holds the table's separator.
    """
    for name in joints:
        if ":" in name:
            raise UserError(
                f"annotation: {name} holds a colon, which separates the table's columns; rename the picture"
            )
    lines = [HEADER, *(annotation_row(name, points) for name, points in joints.items())]
    write_text(path, "\n".join(lines) + "\n")
