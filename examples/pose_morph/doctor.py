"""Read a data set to its last byte, and name every missing or odd file and what to do about it.

The exit code is 0 where nothing was found, 1 where something was, 2 where a phase cannot be used at all.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from examples.pose_morph.command_line import run_command
from examples.pose_morph.data.examination import Examined, examine_all
from examples.pose_morph.data.findings import (
    Finding,
    finding_of_both_phases,
    finding_of_unannotated,
    findings_in_pictures,
    findings_in_tables,
)
from examples.pose_morph.data.left_out import FILE_NAME, add_left_out, is_left_out, lines_for, read_left_out
from examples.pose_morph.data.listing import Listing, select, without_left_out
from examples.pose_morph.data.person import DEEPFASHION, person_of
from examples.pose_morph.data.pose_data import PHASES, DataError, Phase
from examples.pose_morph.data.profiles import Profile, find_profile, list_data
from examples.pose_morph.messages import counted, say, some
from examples.pose_morph.option_types import RequiredFolder, Switch, check_least
from examples.pose_morph.progress import progress_bar

SHOWN = 5
"""Names per finding without --all."""
FEW = 500
"""So many pictures are read sooner than worker processes start."""


@dataclass(frozen=True)
class Options:
    """What to examine."""

    data: RequiredFolder
    """The data set's folder."""
    profile: Profile = "auto"
    """How the data lie on disk; auto finds out."""
    size: tuple[int, int] = (256, 176)
    """Height and width to train at: where pictures are stored in several sizes (nted), this chooses."""
    all: Switch = False
    """Show all names instead of the first few."""
    write_left_out: Switch = False
    """Add the pictures that cannot be used to left_out.txt, so that training leaves them out."""
    workers: int = min(8, os.cpu_count() or 1)
    """Processes that read pictures; 0 reads them in this one."""


def examine_folder(options: Options, console: Console) -> int:
    """Examine a folder, print what was found, and return the exit code."""
    check_least("workers", options.workers, 0)
    left_out = read_left_out(options.data)
    listings = list_phases(options, console)
    unusable = len(listings) < len(PHASES)
    findings: list[tuple[str, Finding]] = []
    for phase in listings:
        found, usable = examine_phase(phase, listings, options, set(left_out), console)
        findings += [(f"{phase}: ", finding) for finding in found]
        unusable |= not usable
    if len(listings) == len(PHASES):
        findings += [("", finding) for finding in finding_of_both_phases(listings["train"], listings["test"])]
    findings += [("", finding) for finding in unmatched_lines(left_out, listings)]

    for prefix, finding in findings:
        shown = finding.names if options.all else finding.names[:SHOWN]
        say(console, f"\n{prefix}{len(finding.names)} {finding.what}", style="yellow")
        for name in shown:
            say(console, f"  {name}")
        if len(shown) < len(finding.names):
            say(console, f"  … and {len(finding.names) - len(shown)} more (--all shows them)")
        say(console, f"  {finding.remedy}")

    wanted = sorted({f"{prefix[:-2]}/{name}" for prefix, finding in findings for name in finding.left_out})
    if options.write_left_out and wanted:
        add_left_out(options.data, wanted)
        path = options.data / FILE_NAME
        say(console, f"\n{len(wanted)} picture(s) were added to {path}: run this again to see what remains")
    elif wanted and not unusable:
        say(
            console, f"\n--write-left-out would leave out what cannot be used, {len(wanted)} picture(s): {some(wanted)}"
        )
    if unusable:
        return 2
    if not findings:
        say(console, "\nnothing is missing or odd")
    return 1 if findings else 0


def list_phases(options: Options, console: Console) -> dict[Phase, Listing]:
    """Read the tables of both phases; say what makes one of them unusable."""
    listings: dict[Phase, Listing] = {}
    for phase in PHASES:
        try:
            found = find_profile(options.data, phase) if options.profile == "auto" else options.profile
            listings[phase] = list_data(options.data, phase, options.size, found)
            say(console, f"{phase}: laid out like {found}")
        except DataError as error:
            say(console, f"{phase}: {error}", style="red")
    if len({(type(listing.store), listing.frame, listing.paired) for listing in listings.values()}) > 1:
        warning = "train and test are laid out in different ways; if that is a mistake, say which with --profile"
        say(console, warning, style="yellow")
    return listings


def examine_phase(
    phase: Phase, listings: dict[Phase, Listing], options: Options, left_out: set[str], console: Console
) -> tuple[list[Finding], bool]:
    """Read the pictures of a phase, print what it is, and return its findings and whether it can be used."""
    listing = without_left_out(listings[phase], phase, left_out)
    named = {name for pair in listing.pairs for name in pair} | set(listing.annotation.joints)
    mine = [name for name in pictures_of(phase, listings, options.data) if not is_left_out(name, phase, left_out)]
    examined = read_pictures(phase, listing, sorted(named | set(mine)), options.workers, console)
    findings = findings_in_tables(listing) + findings_in_pictures(listing, examined)
    findings += finding_of_unannotated((name for name in mine if name not in named), listing.source.name)
    say(console, "\n".join(describe(phase, listing, examined)))
    try:
        data = select(listings[phase], options.data, phase, options.size)
    except DataError as error:
        say(console, str(error), style="red")
        return [_restored(finding) for finding in findings], False
    used = counted(len(data), "picture") + (f" and {counted(len(data.pairs), 'pair')}" if data.paired else "")
    say(console, f"  used {'in training' if phase == 'train' else 'for scores'}: {used}")
    for note in data.notes:
        say(console, f"  {note}")
    return findings, True


def _restored(finding: Finding) -> Finding:
    """The finding of a phase that nothing would be left of, so that there is nothing to be left out."""
    if not finding.left_out:
        return finding
    return finding._replace(remedy="Restore or correct them: nothing of this phase can be used.", left_out=[])


def read_pictures(
    phase: Phase, listing: Listing, names: list[str], workers: int, console: Console
) -> dict[str, Examined]:
    """Examine pictures under a progress bar."""
    examined: dict[str, Examined] = {}
    with progress_bar(console, transient=True) as bar:
        task = bar.add_task(f"{phase}: reading pictures", total=len(names))
        for chunk in examine_all(listing.store, names, 0 if len(names) < FEW else workers):
            examined |= chunk
            bar.advance(task, len(chunk))
    return examined


def pictures_of(phase: Phase, listings: dict[Phase, Listing], root: Path) -> list[str]:
    """Return the pictures that lie in a phase's store, without those that belong to the other phase."""
    store = listings[phase].store
    if store.folder.parent == root and store.folder.name.startswith(phase):  # train/ or train_highres/
        return store.names()
    if len(listings) < len(PHASES):  # one store for both phases: nobody knows whose the others are
        return []
    other = listings["test" if phase == "train" else "train"]
    others = set(other.annotation.joints) | {name for pair in other.pairs for name in pair}
    ours = set(listings[phase].annotation.joints)
    # Pictures that neither phase names are told once, with the training pictures.
    return [name for name in store.names() if name in ours or (phase == "train" and name not in others)]


def describe(phase: Phase, listing: Listing, examined: dict[str, Examined]) -> list[str]:
    """Return what a phase holds, in lines."""
    sizes = Counter(one.size for one in examined.values() if one.size and not one.broken)
    common = ", ".join(f"{size[0]}x{size[1]} ({count})" for size, count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    people = {person_of(name, DEEPFASHION) for name in examined} - {None}
    joints = [torch.isfinite(points).all(dim=1).sum() for points in listing.annotation.joints.values()]
    known = float(torch.stack(joints).float().mean()) if joints else 0.0
    return [
        f"{phase}: {counted(len(examined), 'picture')}"
        + (f" of {len(people)} people" if people else "")
        + (f", {counted(len(listing.pairs), 'pair')}" if listing.paired else ", unpaired"),
        f"  height x width: {common or 'unknown'}{more}",
        f"  joints known: {known:.1f} of 18 on average, {len(joints)} rows",
    ]


def unmatched_lines(lines: list[str], listings: dict[Phase, Listing]) -> list[Finding]:
    """Return the lines of left_out.txt that name nothing; only known where both phases can be read."""
    if len(listings) < len(PHASES) or not lines:
        return []
    matching: set[str] = set()
    for phase, listing in listings.items():
        named = {*listing.annotation.joints, *(name for pair in listing.pairs for name in pair)}
        for name in named.union(listing.store.names()):
            matching.update(lines_for(name, phase))
    unmatched = [line for line in lines if line not in matching]
    remedy = "Correct or remove them; a line is a picture's name, or train/name, as the tables write it."
    return [Finding(f"line(s) of {FILE_NAME} name no picture", remedy, unmatched, [])] if unmatched else []


def main() -> None:
    """Read the command line and examine."""
    run_command(Options, examine_folder, prog="python -m examples.pose_morph.doctor", description=__doc__)


if __name__ == "__main__":
    main()
