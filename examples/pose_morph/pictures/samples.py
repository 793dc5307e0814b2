"""Sample grids of a run: source, both poses, result and truth, side by side."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import draw_sheet, to_picture
from examples.pose_morph.pictures.skeleton import draw_skeleton
from examples.pose_morph.training.batch import Batch

COLUMNS = ("source", "source pose", "target pose", "result", "truth")
POSE_FROM = "pose from"
"""What stands above the last column instead where pictures have no pairs."""
CELL_HEIGHT = 192


def save_samples(
    path: Path, batch: Batch, result: Float[Tensor, "b 3 h w"], title: str, *, paired: bool = True
) -> None:
    """Write one row per pair under a header.

    In unpaired data the target picture shows somebody else, who lent the pose, and there is no truth.
    """
    columns = COLUMNS if paired else (*COLUMNS[:-1], POSE_FROM)
    size = (batch.source.shape[-2], batch.source.shape[-1])
    scale = max(1, round(CELL_HEIGHT / size[0]))
    rows = [
        (
            to_picture(batch.source[row], scale),
            draw_skeleton(batch.source_keypoints[row].cpu(), size, scale),
            draw_skeleton(batch.target_keypoints[row].cpu(), size, scale),
            to_picture(result[row], scale),
            to_picture(batch.target[row], scale),
        )
        for row in range(len(result))
    ]
    write_png(path, draw_sheet(rows, columns, title))
