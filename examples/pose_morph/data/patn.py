"""Data folders in the layout of PATN, which XingGAN, DPTN and others share.

``{root}/{train,test}/*.jpg``, ``{root}/fasion-resize-pairs-{phase}.csv`` with the columns from and to, and
``{root}/fasion-resize-annotation-{phase}.csv``, separated by colons, with name, keypoints_y and keypoints_x: JSON lists
of 18 numbers in the frame of the stored picture, -1 for a joint that is not known. "fashion" is accepted, and so is
``fasion-pairs-``.
"""

from pathlib import Path
from typing import NamedTuple

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.listing import Listing, select
from examples.pose_morph.data.pose_data import DataError, Phase, PoseData
from examples.pose_morph.data.tables import find_table, read_annotation, read_pairs


class Located(NamedTuple):
    """Where one phase lies."""

    folder: Path
    pairs: Path
    annotation: Path


def read_patn(root: Path, phase: Phase, size: tuple[int, int]) -> PoseData:
    """Read one phase of a folder and fit its pictures to ``size`` (height, width).

    Pairs that name a picture which is not there, cannot be read or has no keypoints are left out, counted in ``notes``.

    Raises:
        DataError: a folder, file or column is missing, a row cannot be read, or no pair is left.
    """
    return select(list_patn(root, phase), root, phase, size)


def list_patn(root: Path, phase: Phase) -> Listing:
    """Read the tables of one phase."""
    folder, pairs, annotation = locate(root, phase, (phase,))
    return Listing(FolderStore(folder), read_annotation(annotation), annotation, read_pairs(pairs))


def locate(root: Path, phase: Phase, folders: tuple[str, ...]) -> Located:
    """Find the tables, and the pictures in the first of ``folders`` that is there.

    Raises:
        DataError: something is missing.
    """
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root}")
    there = [root / name for name in folders if (root / name).is_dir()]
    if not there:
        raise DataError(f"data: expected the pictures in {root / ' or '.join(folders)}, which is not there")
    return Located(there[0], find_table(root, "pairs", phase), find_table(root, "annotation", phase))
