"""The rendered people that ship with the pose-morphing example are a consistent data set."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

PEOPLE = Path(__file__).parents[3] / "examples" / "pose_morph" / "people"
PHASES = ("train", "test")
HEIGHT, WIDTH = 128, 80


def identity(name: str) -> str:
    return name.rpartition("_")[0]


def pictures(phase: str) -> set[str]:
    return {path.name for path in (PEOPLE / phase).iterdir()}


def pairs(phase: str) -> list[tuple[str, str]]:
    with (PEOPLE / f"fasion-resize-pairs-{phase}.csv").open(newline="") as file:
        return [(row["from"], row["to"]) for row in csv.DictReader(file)]


def annotation(phase: str) -> dict[str, tuple[list[int], list[int]]]:
    with (PEOPLE / f"fasion-resize-annotation-{phase}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=":"))
    return {row["name"]: (json.loads(row["keypoints_y"]), json.loads(row["keypoints_x"])) for row in rows}


@pytest.mark.parametrize("phase", PHASES)
def test_pairs_pictures_and_annotations_name_the_same_files(phase: str) -> None:
    named = {name for pair in pairs(phase) for name in pair}
    assert pictures(phase) == set(annotation(phase))
    assert named <= pictures(phase)


@pytest.mark.parametrize("phase", PHASES)
def test_a_pair_is_two_pictures_of_one_person(phase: str) -> None:
    found = pairs(phase)
    assert len(found) == len(set(found))
    assert all(a != b and identity(a) == identity(b) for a, b in found)


def test_training_uses_every_ordered_pair() -> None:
    people = Counter(map(identity, pictures("train")))
    assert len(pairs("train")) == sum(count * (count - 1) for count in people.values())


@pytest.mark.parametrize("phase", PHASES)
def test_joints_are_18_and_lie_in_the_frame_or_are_missing(phase: str) -> None:
    for name, (ys, xs) in annotation(phase).items():
        assert len(ys) == len(xs) == 18, name
        for y, x in zip(ys, xs, strict=True):
            assert (y, x) == (-1, -1) or (0 <= y < HEIGHT and 0 <= x < WIDTH), name


def test_the_persons_right_shoulder_is_on_the_left_of_front_views_and_on_the_right_of_back_views() -> None:
    for name, (_, xs) in annotation("train").items():
        if name.endswith("front.jpg"):
            assert xs[2] < xs[5], name
        elif name.endswith("back.jpg"):
            assert xs[2] > xs[5], name
            assert xs[0] == -1, name


def test_held_out_people_are_not_trained_on() -> None:
    assert not {identity(name) for name in pictures("train")} & {identity(name) for name in pictures("test")}


@pytest.mark.parametrize(("phase", "people"), [("train", 100), ("test", 20)])
def test_there_are_enough_people_in_four_poses_each(phase: str, people: int) -> None:
    counts = Counter(map(identity, pictures(phase)))
    assert len(counts) >= people
    assert set(counts.values()) == {4}


@pytest.mark.parametrize("phase", PHASES)
def test_pictures_are_128_by_80(phase: str) -> None:
    for name in pictures(phase):
        with Image.open(PEOPLE / phase / name) as picture:
            assert (picture.height, picture.width, picture.mode) == (HEIGHT, WIDTH, "RGB"), name


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in PEOPLE.rglob("*") if path.is_file()) <= 6 * 2**20
