"""Render a small data set of articulated, textured people in the file layout of PATN.

Every person has four pictures. Clothes are functions of the rest-pose point, so the same stripe sits on the same piece
of cloth in every picture, and the 18 joints come from the body model, not from a detector. The pictures in `people/`
were made by this script with its default options; it needs `anny`, `warp-lang`, `pillow` and `rich`.

Example:
    python -m examples.pose_morph.render_people --out /tmp/people --identities 8 --test-identities 2
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from examples.pose_morph.figures.body import Body
from examples.pose_morph.figures.camera import Photo, dressed, frame_body, photograph
from examples.pose_morph.figures.poses import Pose, sample_pose
from examples.pose_morph.figures.wardrobe import Look, sample_look

PHASES = ("train", "test")
TRIES_PER_POSE = 12
GOOD_FIT = 0.93


@dataclass(frozen=True)
class Portrait:
    """One picture of one person: its file name without a folder, the pose and the photo."""

    name: str
    pose: Pose
    photo: Photo


def portraits(body: Body, identity: int, *, poses: int, seed: int) -> Iterator[Portrait]:
    """Yield the pictures of one person. They depend on `seed` and `identity` alone, so runs can be split and repeated.

    Args:
        body: the body model, shared by all people.
        identity: number of the person.
        poses: pictures to draw.
        seed: seed of the whole data set.
    """
    rng = np.random.default_rng([seed, identity])
    look = sample_look(rng)
    # One picture in six or seven is a back view, never the first one.
    backs = [False] + [rng.random() < 0.2 for _ in range(poses - 1)]
    for number, back in enumerate(backs, start=1):
        pose, photo = _best_photo(body, look, rng, back=back)
        turn = abs(np.degrees(pose.yaw)) % 360
        view = "back" if back else "front" if turn < 25 else "side"
        yield Portrait(f"annyid{identity:08d}_{number}{view}.jpg", pose, photo)


def _best_photo(body: Body, look: Look, rng: np.random.Generator, *, back: bool) -> tuple[Pose, Photo]:
    """Photograph the first pose that fits the frame nearly unshrunk, or else the best of several."""
    best = None
    for _ in range(TRIES_PER_POSE):
        pose = sample_pose(rng, back=back)
        posed = body.posed(look.phenotype, pose)
        view, fit = frame_body(dressed(posed, look, body.rest_fields, body.faces), posed.height, rng)
        if best is None or fit > best[0]:
            best = fit, pose, posed, view
        if fit >= GOOD_FIT:
            break
    assert best is not None
    _, pose, posed, view = best
    return pose, photograph(posed, look, body.rest_fields, body.faces, view)


def annotation_row(name: str, joints: np.ndarray) -> str:
    """Return a line `name:keypoints_y:keypoints_x` of PATN's annotation file.

    >>> annotation_row("a.jpg", np.array([[1, 2], [-1, -1]]))
    'a.jpg: [1, -1]: [2, -1]'
    """
    rows, columns = joints.T.tolist()
    return f"{name}: {json.dumps(rows)}: {json.dumps(columns)}"


def write_people(out: Path, *, identities: int, test_identities: int, poses: int, pairs: int, seed: int) -> None:
    """Render all people and write pictures, annotations and pairs below `out`.

    Args:
        out: folder to fill.
        identities: people to train on.
        test_identities: other people, held out.
        poses: pictures per person.
        pairs: ordered pairs per held-out person; training uses all ordered pairs.
        seed: seed of everything.
    """
    try:
        from PIL import Image
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("pictures and progress need: pip install pillow rich") from error

    body = Body()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        first = 0
        for phase, count in zip(PHASES, (identities, test_identities), strict=True):
            folder = out / phase
            folder.mkdir(parents=True, exist_ok=True)
            rows, pair_rows = [], []
            pair_rng = np.random.default_rng([seed, PHASES.index(phase), count])
            for identity in progress.track(range(first, first + count), description=phase):
                names = []
                for portrait in portraits(body, identity, poses=poses, seed=seed):
                    picture = Image.fromarray(portrait.photo.pixels)
                    picture.save(folder / portrait.name, quality=93, subsampling=0, optimize=True)
                    rows.append(annotation_row(portrait.name, portrait.photo.joints))
                    names.append(portrait.name)
                ordered = list(permutations(names, 2))
                if phase == "test":
                    chosen = pair_rng.permutation(len(ordered))[:pairs]
                    ordered = [ordered[i] for i in sorted(chosen)]
                pair_rows += ordered
            first += count
            (out / f"fasion-resize-annotation-{phase}.csv").write_text(
                "\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n"
            )
            with (out / f"fasion-resize-pairs-{phase}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("from", "to"), *pair_rows])


def main() -> None:
    """Read the options and render."""
    parser = argparse.ArgumentParser(
        description="Render textured, articulated people in the patn layout (128 rows x 80 columns).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--identities", type=int, default=200, help="people to train on")
    parser.add_argument("--test-identities", type=int, default=24, help="other people, held out")
    parser.add_argument("--poses", type=int, default=4, help="pictures per person")
    parser.add_argument("--pairs", type=int, default=4, help="ordered pairs per held-out person")
    parser.add_argument("--seed", type=int, default=0, help="seed of people, clothes and poses")
    options = parser.parse_args()
    try:
        write_people(
            options.out,
            identities=options.identities,
            test_identities=options.test_identities,
            poses=options.poses,
            pairs=options.pairs,
            seed=options.seed,
        )
    except ImportError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
