"""Rename DeepFashion's In-shop pictures to the names that PATN, GFLA and their successors use.

``img_highres/WOMEN/Dresses/id_00002629/02_3_back.jpg`` becomes ``fashionWOMENDressesid0000262902_3back.jpg``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from examples.pose_morph.data.folder_store import pictures_in
from examples.pose_morph.data.person import by_person
from examples.pose_morph.data.pose_data import PHASES
from examples.pose_morph.data.tables import find_table, read_pairs, read_text
from examples.pose_morph.errors import UserError
from examples.pose_morph.existing import refuse_inside
from examples.pose_morph.messages import say, say_names
from examples.pose_morph.option_types import OptionalFolder, RequiredFolder, Switch
from examples.pose_morph.prepare.placing import Placement, place
from examples.pose_morph.prepare.split import held_out

RAW = re.compile(r"(?:^|/)((?:WO)?MEN)/([^/]+)/id_(\d{8})/(\d{2})_(\d[^/]*\.(?:jpg|jpeg|png))$", re.IGNORECASE)
GARMENT = r"id(\d{8})\d{2}_"
"""DeepFashion numbers garments, not people: one person may wear several, which only published lists can know."""


@dataclass(frozen=True)
class Rename:
    """Rename raw DeepFashion In-shop pictures to PATN's names, in OUT/train and OUT/test, and resize them."""

    raw: RequiredFolder
    """Folder that holds WOMEN/ and MEN/ at any depth, such as In-shop/Img/img_highres."""
    out: RequiredFolder
    """Folder to fill."""
    split: OptionalFolder = None
    """Folder with train.lst and test.lst, or with the tables of pairs, as PATN and GFLA publish them. Without it the
    garments are split at random, seeded, none in both."""
    test_share: float = 0.1
    """Share of the garments that is held out where there is no --split."""
    size: tuple[int, int] = (256, 176)
    """Height and width to resize to; 512 352 is the other size in use."""
    keep_size: Switch = False
    """Keep the files as they are, as hard links where that is possible."""
    seed: int = 0
    """Seed of the split where there is no --split."""
    dry_run: Switch = False
    """Only show what would be done."""
    overwrite: Switch = False
    """Write over files that are there."""


def patn_name(raw: str) -> str | None:
    """Return PATN's name of a raw path, or None where it is no picture of the In-shop tree.

    >>> patn_name("In-shop/img_highres/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg")
    'fashionWOMENBlouses_Shirtsid0000000102_1front.jpg'
    """
    found = RAW.search(raw)
    if found is None:
        return None
    gender, category, garment, outfit, view = found.groups()
    return f"fashion{gender}{category}id{garment}{outfit}_{view.replace('_', '')}"


def read_split(folder: Path) -> dict[str, set[str]]:
    """Read the names of both phases from lists (a name a line, with or without .jpg) or from tables of pairs.

    Raises:
        UserError: there is neither, or a name is in both phases.
    """
    if not folder.is_dir():
        raise UserError(f"--split: there is no folder {folder}")
    names = {}
    for phase in PHASES:
        listed = folder / f"{phase}.lst"
        if listed.is_file():
            names[phase] = {_with_suffix(line.strip()) for line in read_text(listed).splitlines() if line.strip()}
        else:
            names[phase] = {
                _with_suffix(name) for pair in read_pairs(find_table(folder, "pairs", phase)) for name in pair
            }
    both = sorted(names["train"] & names["test"])
    if both:
        raise UserError(f"--split: {len(both)} pictures are in both phases of {folder}, such as {both[0]}")
    return names


def _with_suffix(name: str) -> str:
    """Bring a listed name to PATN's form."""
    name = patn_name(name) or name
    return name if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png") else f"{name}.jpg"


def own_split(names: Iterable[str], share: float, seed: int) -> dict[str, set[str]]:
    """Split PATN's names by garment."""
    groups = by_person(list(names), GARMENT)
    test = held_out(groups, share, seed)
    return {
        phase: {name for garment, own in groups.items() if (garment in test) == (phase == "test") for name in own}
        for phase in PHASES
    }


def rename(options: Rename, console: Console) -> None:
    """Place all pictures and say what was left out."""
    if min(options.size) < 1:
        raise UserError(f"--size: expected a height and a width of at least 1, got {options.size}")
    refuse_inside(options.out, options.raw)
    raw = {}
    odd = []
    for path in pictures_in(options.raw, "--raw"):
        name = patn_name(path)
        if name is None:
            odd.append(path)
        elif name in raw:
            raise UserError(
                f"--raw: {raw[name]} and {path} would both become {name}; choose one tree, such as img_highres"
            )
        else:
            raw[name] = path
    if not raw:
        raise UserError(
            f"--raw: expected pictures such as WOMEN/Dresses/id_00002629/02_3_back.jpg below {options.raw}, found "
            f"{len(odd)} others, such as {odd[0]}"
        )
    say_names(console, "picture(s) have other names than the In-shop tree's and are left out", odd)
    phases = read_split(options.split) if options.split else own_split(raw, options.test_share, options.seed)
    placements = []
    for phase, wanted in phases.items():
        chosen = sorted(wanted & raw.keys())
        placements += [Placement(options.raw / raw[name], options.out / phase / name) for name in chosen]
        say(console, f"{phase}: {len(chosen)} pictures")
        say_names(console, f"picture(s) of the {phase} list are not below {options.raw}", sorted(wanted - raw.keys()))
    say_names(
        console, "pictures are in neither list and are left out", sorted(raw.keys() - phases["train"] - phases["test"])
    )
    if not placements:
        raise UserError(f"--split: none of the listed pictures is below {options.raw}; is it the same data set?")
    size = None if options.keep_size else options.size
    place(placements, console, size=size, overwrite=options.overwrite, dry_run=options.dry_run)
