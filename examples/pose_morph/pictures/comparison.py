"""Several answers to the same pairs side by side, like the paper's Fig. 6."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from examples.pose_morph.data.pixels import to_image
from examples.pose_morph.pictures.png import write_png
from examples.pose_morph.pictures.sheet import draw_sheet, to_picture
from examples.pose_morph.pictures.skeleton import draw_skeleton
from examples.pose_morph.training.batch import Batch

CELL_HEIGHT = 192


def save_comparison(
    path: Path,
    pairs: Sequence[Batch],
    results: dict[str, Sequence[UInt8[Tensor, "3 h w"]]],
    title: str,
) -> None:
    """Write a row per pair: source, target pose, each result, truth.

    Args:
        path: A PNG file.
        pairs: Batches of one pair each.
        results: Per column one picture for every pair; others of another size are fitted into the pairs'.
        title: Stands above the sheet.
    """
    height, width = pairs[0].source.shape[-2:]
    scale = max(1, round(CELL_HEIGHT / height))
    cell = (width * scale, height * scale)
    rows = []
    for row, pair in enumerate(pairs):
        pose = draw_skeleton(pair.target_keypoints[0].cpu(), (height, width), scale)
        middle = [_fitted(to_picture(to_image(column[row]), scale), cell) for column in results.values()]
        rows.append([to_picture(pair.source[0], scale), pose, *middle, to_picture(pair.target[0], scale)])
    write_png(path, draw_sheet(rows, ["source", "target pose", *results, "truth"], title))


def _fitted(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    return picture if picture.size == cell else ImageOps.pad(picture, cell, color="white")
