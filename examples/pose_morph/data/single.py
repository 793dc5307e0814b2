"""A folder of pictures with keypoints and no pairs: unpaired training, L_self and L_GAN (section 3.3).

Pictures in ``{root}/{train,test}``, or in ``{root}`` itself; then about a tenth of them is the test phase, chosen by
their names' hashes, so that a picture stays where it is when others are added. Keypoints, in the frame of the stored
picture, in the one file ``*.csv`` of ``root`` that has the annotation's header, or in one that ends in
``-train.csv`` and one that ends in ``-test.csv``.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.pose_data import DataError, Phase
from examples.pose_morph.data.tables import Annotation, has_annotation_columns, read_annotation
from examples.pose_morph.messages import some

TEST_SHARE = 0.1


class Located(NamedTuple):
    """Where one phase lies, and whether the folder holds both."""

    folder: Path
    annotation: Path
    whole: bool


def list_single(root: Path, phase: Phase) -> Listing:
    """Read one phase; every picture is its own pair.

    With train and test folders and one table for both, a row belongs to the phase whose folder has its picture; a row
    without a picture belongs to both.
    """
    folder, table, whole = locate_single(root, phase)
    store, annotation = FolderStore(folder), read_annotation(table)
    names = sorted(annotation.joints)
    notes = ["there are no pairs: every picture is its own (L_self and L_GAN)"]
    if whole:
        chosen = _test_names(names)
        names = [name for name in names if (name in chosen) == (phase == "test")]
        notes.append(
            f"there are no folders train and test: {len(names)} of {len(annotation.joints)} pictures, by the hash of "
            "their names, which does not look at who is in them"
        )
    elif not table.stem.endswith(f"-{phase}"):
        other = root / ("test" if phase == "train" else "train")
        names = [name for name in names if (folder / name).is_file() or not (other / name).is_file()]
    unannotated = sorted(set(store.names()) - set(annotation.joints))
    if unannotated:
        notes.append(f"{len(unannotated)} picture(s) have no keypoints in {table.name}: {some(unannotated)}")
    kept = set(names)
    repeated = [name for name in annotation.repeated if name in kept]
    ours = Annotation({name: annotation.joints[name] for name in names}, repeated)
    return Listing(store, ours, table, [(name, name) for name in names], paired=False, notes=notes)


def locate_single(root: Path, phase: Phase) -> Located:
    """Find pictures and table.

    Raises:
        DataError: there are no pictures, or no table, or more tables than one.
    """
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root}")
    whole = not (root / "train").is_dir() and not (root / "test").is_dir()
    folder = root if whole else root / phase
    if not folder.is_dir():
        raise DataError(f"data: expected the pictures in {folder}, which is not there")
    if not any(FolderStore(folder).names()):
        raise DataError(f"data: expected pictures in {folder}, and there is none")
    tables = [path for path in sorted(root.glob("*.csv")) if has_annotation_columns(path)]
    ours = [path for path in tables if path.stem.endswith(f"-{phase}")]
    both = [path for path in tables if not path.stem.endswith(("-train", "-test"))]
    fitting = both if whole else ours or both
    if len(fitting) != 1:
        found = ", ".join(path.name for path in fitting) or "none"
        raise DataError(
            f"data: expected one table of keypoints (.csv, first line name:keypoints_y:keypoints_x) in {root} for "
            f"{phase}, found {found}"
        )
    return Located(folder, fitting[0], whole)


def _test_names(names: list[str]) -> set[str]:
    """Choose a tenth by hash, and at least one."""
    place = {name: zlib.crc32(name.encode()) / 2**32 for name in names}
    return {name for name in names if place[name] < TEST_SHARE} or set(sorted(names, key=place.__getitem__)[:1])
