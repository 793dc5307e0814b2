"""Data folders in the layout of NTED and PIDM: pictures in LMDB databases, keypoints in small text files.

``{root}/256-176`` and ``{root}/512-352`` (height-width) hold PNG bytes under keys such as
``img/WOMEN/Dresses/id_00002629/02_1_front.png``. A line of ``{root}/{train,test}_pairs.txt`` is a target and one or
more sources, separated by commas, where ``.jpg`` stands for ``.png``. ``{root}/pose/WOMEN/…/02_1_front.txt`` has 18
lines x y in a square frame 256 wide, which shows the picture between white bars of 40 columns; negative is unknown.
"""

import re
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.pose_morph.data.gfla import FRAME
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.lmdb_store import LmdbStore
from examples.pose_morph.data.pose import JOINTS
from examples.pose_morph.data.pose_data import DataError, Phase
from examples.pose_morph.data.tables import Annotation, read_text, unknown_where_negative

WHITE_BAR = 40
"""Columns of white on either side of the frame that the keypoints were found in."""


class Located(NamedTuple):
    """Where one phase lies."""

    databases: dict[tuple[int, int], Path]
    pairs: Path
    poses: Path


def list_nted(root: Path, phase: Phase, size: tuple[int, int]) -> Listing:
    """Read pairs and keypoints of one phase; of several databases take the smallest that is no lower than ``size``."""
    databases, table, poses = locate_nted(root, phase)
    enough = [stored for stored in databases if stored[0] >= size[0]]
    chosen = min(enough) if enough else max(databases)
    pairs = _read_pairs(table)
    joints = {}
    for name in sorted({name for pair in pairs for name in pair}):
        path = (poses / name.removeprefix("img/")).with_suffix(".txt")
        if path.is_file():
            joints[name] = _read_pose(path)
    others = [path.name for stored, path in databases.items() if stored != chosen]
    notes = [f"pictures are read from {databases[chosen].name}, not from {', '.join(others)}"] if others else []
    return Listing(LmdbStore(databases[chosen]), Annotation(joints, []), poses, pairs, FRAME, notes=notes)


def locate_nted(root: Path, phase: Phase) -> Located:
    """Find databases, pairs and poses.

    Raises:
        DataError: something is missing.
    """
    databases = {}
    for path in sorted(root.glob("*-*")):
        found = re.fullmatch(r"(\d+)-(\d+)", path.name)
        if found and (path / "data.mdb").is_file():
            databases[int(found[1]), int(found[2])] = path
    if not databases:
        raise DataError(f"data: expected a database such as {root / '256-176' / 'data.mdb'}, and none is there")
    pairs, poses = root / f"{phase}_pairs.txt", root / "pose"
    if not pairs.is_file():
        raise DataError(f"data: expected the pairs in {pairs}, which is not there")
    if not poses.is_dir():
        raise DataError(f"data: expected the keypoints in the folder {poses}, which is not there")
    return Located(databases, pairs, poses)


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        target, *sources = (re.sub(r"\.jpg$", ".png", name.strip()) for name in line.split(","))
        if not sources or not all((target, *sources)):
            raise DataError(f"data: {path}, line {number}: expected target,source, got {line.strip()}")
        pairs += [(source, target) for source in sources]
    return pairs


def _read_pose(path: Path) -> Float[Tensor, "18 2"]:
    try:
        rows = []
        for line in read_text(path).strip().splitlines():
            x, y = map(float, line.split()[:2])
            rows.append((x, y))
    except ValueError as error:
        raise DataError(f"data: {path}, line {len(rows) + 1}: expected numbers x y ({error})") from error
    points = torch.tensor(rows, dtype=torch.float32)
    if points.shape != (len(JOINTS), 2):
        raise DataError(f"data: {path}: expected {len(JOINTS)} rows of x y, got {tuple(points.shape)}")
    return unknown_where_negative(points) - points.new_tensor([WHITE_BAR, 0])
