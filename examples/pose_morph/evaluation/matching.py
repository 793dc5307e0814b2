"""Generated pictures on disk, and the true picture that each belongs to, by name."""

from pathlib import Path
from typing import NamedTuple

from examples.pose_morph.data.folder_store import SUFFIXES, header_size, pictures_in
from examples.pose_morph.data.pose_data import UnusablePicture
from examples.pose_morph.errors import UserError
from examples.pose_morph.messages import some

SEPARATORS = ("___", "_2_")
"""What stands between source and target in a generated picture's name: PATN's and ours, and GFLA's."""


class Matched(NamedTuple):
    """Pairs of files (generated, truth), and notes on what has no partner."""

    pairs: list[tuple[Path, Path]]
    notes: list[str]


def picture_files(folder: Path, option: str) -> list[Path]:
    """Return the pictures in a folder and below it, sorted.

    Raises:
        UserError: there is no such folder, or no picture in it.
    """
    return [folder / name for name in pictures_in(folder, option)]


def match_pictures(generated: Path, truth: Path) -> Matched:
    """Find the truth of every generated picture.

    A generated ``target.png``, ``source___target.png``, ``source_2_target.png``, each also with ``_vis`` at its end,
    belongs to the true ``target.*``. Folders below become part of a name: ``a/b.png`` is ``a_b``.

    Raises:
        UserError: two true pictures share a name, no name matches, a picture cannot be read, or sizes differ.
    """
    known: dict[str, Path] = {}
    for path in picture_files(truth, "--truth"):
        name = flat_name(path.relative_to(truth))
        if name in known:
            raise UserError(f"--truth: {known[name]} and {path} go by one name, {name}; keep one of them")
        known[name] = path
    made = picture_files(generated, "--generated")
    pairs, lost = [], []
    for path in made:
        target = next((name for name in _targets(flat_name(path.relative_to(generated))) if name in known), None)
        if target is None:
            lost.append(path.name)
        else:
            pairs.append((path, known[target]))
    if not pairs:
        raise UserError(
            f"--generated: no name in {generated} matches one in {truth}; expected target.png or source___target.png, "
            f"got {made[0].name} and {next(iter(known.values())).name}"
        )
    _check_sizes(pairs)
    notes = []
    if lost:
        notes.append(f"{len(lost)} of {len(made)} generated picture(s) have no truth: {some(lost)}")
    unused = [path.name for path in known.values() if path not in {second for _, second in pairs}]
    if unused:
        notes.append(f"{len(unused)} of {len(known)} true picture(s) have no generated one: {some(unused)}")
    return Matched(pairs, notes)


def flat_name(path: Path) -> str:
    """Return a file's name without its suffix, folders before it joined by underscores."""
    return "_".join(path.with_suffix("").parts)


def _targets(name: str) -> list[str]:
    """The names that the truth may have, likeliest first."""
    names = []
    for whole in (name, name.removesuffix("_vis")):
        for last in (whole, *(whole.rsplit(mark, 1)[-1] for mark in SEPARATORS if mark in whole)):
            names += [last, *(last.removesuffix(suffix) for suffix in SUFFIXES if last.endswith(suffix))]
    return names


def _check_sizes(pairs: list[tuple[Path, Path]]) -> None:
    other = [(a, b, _size(a), _size(b)) for a, b in pairs if _size(a) != _size(b)]
    if other:
        a, b, got, wanted = other[0]
        raise UserError(
            f"--generated: {len(other)} of {len(pairs)} picture(s) do not have their truth's size, first {a} with "
            f"{got[0]}x{got[1]} where {b} has {wanted[0]}x{wanted[1]} (width x height); crop padding off, or resize"
        )


def _size(path: Path) -> tuple[int, int]:
    try:
        height, width = header_size(path)
    except UnusablePicture as error:
        raise UserError(f"{path} cannot be read as a picture ({error.__cause__}); mend it or take it out") from error
    return width, height
