"""Data folders in the layouts of GFLA and CFLD: the tables of PATN, with pictures of any size.

The keypoints are those of pictures 256 high and 176 wide, whatever is stored. GFLA keeps its pictures in
``{root}/{train,test}``, CFLD in ``{root}/{train,test}_highres``; each is accepted for the other.
"""

from pathlib import Path

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.patn import locate
from examples.pose_morph.data.pose_data import Phase
from examples.pose_morph.data.tables import read_annotation, read_pairs

FRAME = (256, 176)
"""Height and width of the frame that the keypoints of DeepFashion are in."""


def list_gfla(root: Path, phase: Phase) -> Listing:
    """Read the tables of one phase; pictures in ``{phase}`` before ``{phase}_highres``."""
    return _list(root, phase, (phase, f"{phase}_highres"))


def list_cfld(root: Path, phase: Phase) -> Listing:
    """Read the tables of one phase; pictures in ``{phase}_highres`` before ``{phase}``."""
    return _list(root, phase, (f"{phase}_highres", phase))


def _list(root: Path, phase: Phase, folders: tuple[str, ...]) -> Listing:
    folder, pairs, annotation = locate(root, phase, folders)
    return Listing(FolderStore(folder), read_annotation(annotation), annotation, read_pairs(pairs), FRAME)
