"""What is missing or odd in a data set, in groups, each with what to do about it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch

from examples.pose_morph.data.examination import Examined
from examples.pose_morph.data.listing import Listing
from examples.pose_morph.data.person import DEEPFASHION, person_of
from examples.pose_morph.data.pose import outside

SMALLEST = 32
"""Pictures with a side of fewer pixels are odd."""

USUAL = 0.8
"""If so large a share of the pictures has one size, the others are odd."""


class Finding(NamedTuple):
    """One kind of trouble.

    Attributes:
        what: To follow a count, as in "3 picture(s) are damaged".
        remedy: What to do, in a sentence.
        names: Whom it concerns.
        left_out: The names of pictures that cannot be used and belong into left_out.txt; often none.
    """

    what: str
    remedy: str
    names: list[str]
    left_out: list[str]


def findings_in_tables(listing: Listing) -> list[Finding]:
    """Return what is wrong with rows and pairs, without looking at pictures."""
    joints = listing.annotation.joints
    table = listing.source.name
    named = sorted({name for pair in listing.pairs for name in pair})
    without = [name for name in named if name not in joints]
    unknown = [name for name, points in joints.items() if not bool(torch.isfinite(points).any())]
    found = [
        Finding(
            f"picture(s) of the pairs have no keypoints in {table}",
            "Find their keypoints (python -m examples.pose_morph.prepare keypoints), or leave them out.",
            without,
            without,
        ),
        Finding(
            f"picture(s) have not one known joint in {table}",
            "Nobody was found in them; correct the rows or leave them out.",
            unknown,
            unknown,
        ),
        _plain(
            f"name(s) have several rows in {table}", "Keep one row; the last one counts.", listing.annotation.repeated
        ),
    ]
    if not listing.paired:
        return _with_names(found)
    people = [(person_of(a, DEEPFASHION), person_of(b, DEEPFASHION)) for a, b in listing.pairs]
    counts = Counter(listing.pairs)
    found += [
        _plain(
            "pair(s) are listed more than once",
            "Remove the repetitions: these pairs weigh more than others.",
            [_arrow(pair) for pair, count in counts.items() if count > 1],
        ),
        _plain(
            "pair(s) are a picture with itself",
            "Remove them: nothing is learnt from them but to copy.",
            [_arrow(pair) for pair in counts if pair[0] == pair[1]],
        ),
        _plain(
            "pair(s) show different people, or clothes, as their names tell",
            "Correct or remove these rows.",
            [_arrow(pair) for pair, (a, b) in zip(listing.pairs, people, strict=True) if a and b and a != b],
        ),
    ]
    return _with_names(found)


def findings_in_pictures(listing: Listing, examined: Mapping[str, Examined]) -> list[Finding]:
    """Return what is wrong with the pictures, and with keypoints beside them."""
    broken: dict[str, list[str]] = {}
    for name, one in examined.items():
        if one.broken:
            broken.setdefault(one.broken, []).append(name)
    found = [
        Finding(
            f"picture(s) that the tables name {reason}" if reason.startswith("are not in") else f"picture(s) {reason}",
            "Restore them, or leave them out.",
            names,
            names,
        )
        for reason, names in broken.items()
    ]
    whole = {name: one for name, one in examined.items() if not one.broken and one.size}
    found += [_sizes(whole, listing.frame), *_oddities(whole), *_joints_outside(listing, whole)]
    return _with_names(found)


def finding_of_unannotated(names: Iterable[str], source: str) -> list[Finding]:
    """Return what is to be said of pictures that no table names."""
    names = list(names)
    what = f"picture(s) have no keypoints in {source} and are not used"
    remedy = "Find their keypoints (python -m examples.pose_morph.prepare keypoints), or leave them out."
    return _with_names([Finding(what, remedy, names, names)])


def finding_of_both_phases(train: Listing, test: Listing) -> list[Finding]:
    """Return the people who are trained on and tested on, as far as names tell."""
    named = [{name for pair in listing.pairs for name in pair} for listing in (train, test)]
    people = [{person_of(name, DEEPFASHION) for name in names} - {None} for names in named]
    if not train.paired and train.store.folder == test.store.folder:  # drawn by the hash of the names
        remedy = "Split the folder by person (python -m examples.pose_morph.prepare split)"
    else:
        remedy = "Move them to one phase"
    remedy += ": scores on people who were trained on say little."
    return _with_names([_plain("person(s) are in train and in test", remedy, sorted(map(str, people[0] & people[1])))])


def _sizes(whole: Mapping[str, Examined], frame: tuple[int, int] | None) -> Finding:
    sizes = Counter(one.size for one in whole.values())
    usual, count = sizes.most_common(1)[0] if sizes else (None, 0)

    def odd(size: tuple[int, int]) -> bool:
        if min(size) < SMALLEST:
            return True
        if frame is not None:  # joints are stretched to the picture, so that its shape must be that of the frame
            return not 0.9 < (size[0] / size[1]) / (frame[0] / frame[1]) < 1.1
        return size != usual and count >= USUAL * len(whole)

    expected = f"the shape of {frame[0]}x{frame[1]}" if frame else f"{usual[0]}x{usual[1]}" if usual else ""
    return _plain(
        f"picture(s) have an odd size: expected {expected} and no side under {SMALLEST}",
        "Look at them: crop or resize them with their keypoints, or leave them out.",
        [f"{name} ({one.size[0]}x{one.size[1]})" for name, one in whole.items() if one.size and odd(one.size)],
    )


def _oddities(whole: Mapping[str, Examined]) -> list[Finding]:
    def those(which: Callable[[Examined], bool]) -> list[str]:
        return [f"{name} ({one.mode})" for name, one in whole.items() if which(one)]

    return [
        _plain(
            "picture(s) are not stored as RGB",
            "They are converted when they are read (transparency over white, 16 bits scaled to 8); look whether that "
            "is what they show, or save them as RGB.",
            those(lambda one: one.mode != "RGB"),
        ),
        _plain(
            "picture(s) ask to be shown turned (EXIF orientation)",
            "They are used as they are stored; keypoints must be in that frame. To be safe, save them upright and find "
            "their keypoints again.",
            those(lambda one: one.turned),
        ),
    ]


def _joints_outside(listing: Listing, whole: Mapping[str, Examined]) -> list[Finding]:
    some_out, all_out = [], []
    for name, one in whole.items():
        points = listing.annotation.joints.get(name)
        if points is None or one.size is None:
            continue
        known = int(torch.isfinite(points).all(dim=1).sum())
        beyond = int(outside(points, listing.frame or one.size).sum())
        if beyond and beyond == known:
            all_out.append(name)
        elif beyond:
            some_out.append(f"{name} ({beyond} of {known})")
    return [
        _plain(
            "picture(s) have keypoints outside their frame",
            "These joints count as unknown; if it is many, the keypoints are in another frame (--profile).",
            some_out,
        ),
        Finding(
            "picture(s) have all their keypoints outside their frame",
            "The rows belong to other pictures, or to another frame (--profile).",
            all_out,
            all_out,
        ),
    ]


def _plain(what: str, remedy: str, names: list[str]) -> Finding:
    return Finding(what, remedy, names, [])


def _with_names(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.names]


def _arrow(pair: tuple[str, str]) -> str:
    return f"{pair[0]} -> {pair[1]}"
