"""Data folders in the layout of PATN, which XingGAN, DPTN and others share.

``{root}/{train,test}/*.jpg``, ``{root}/fasion-resize-pairs-{phase}.csv`` with the columns from and to, and
``{root}/fasion-resize-annotation-{phase}.csv``, separated by colons, with name, keypoints_y and keypoints_x: JSON lists
of 18 numbers in the frame of the stored picture, -1 for a joint that is not known. "fashion" is accepted, and so is
``fasion-pairs-``.
"""

from pathlib import Path
from typing import NamedTuple

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.pose_data import DataError, Phase
from examples.pose_morph.data.tables import find_table, read_annotation, read_pairs


class Located(NamedTuple):
    """Where one phase lies."""

    folder: Path
    pairs: Path
    annotation: Path


def list_patn(root: Path, phase: Phase) -> Listing:
    """Read the tables of one phase.

    Raises:
        DataError: a folder, file or column is missing, or a row cannot be read.
    """
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
