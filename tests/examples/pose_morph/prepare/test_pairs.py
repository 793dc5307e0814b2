"""Pairs from names."""

from itertools import permutations
from pathlib import Path

import pytest
from PIL import Image

from examples.pose_morph.data.person import BEFORE_LAST_UNDERSCORE
from examples.pose_morph.data.tables import read_pairs
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.pairs import Pairs, make_pairs, pairs_of, write_pairs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for phase, people in (("train", "abc"), ("test", "d")):
        (tmp_path / phase).mkdir()
        for person in people:
            for number in range(1 if person == "c" else 3):
                Image.new("RGB", (4, 6)).save(tmp_path / phase / f"{person}_{number}.jpg")
    return tmp_path


def test_all_ordered_pairs_of_one_person(root, console):
    make_pairs(Pairs(root), console)
    expected = [pair for who in "ab" for pair in permutations([f"{who}_{i}.jpg" for i in range(3)], 2)]
    assert read_pairs(root / "fasion-resize-pairs-train.csv") == expected
    assert len(read_pairs(root / "fasion-resize-pairs-test.csv")) == 6
    assert "train: 12 pairs of 7 pictures; 1 pictures are in no pair" in console.file.getvalue()


def test_at_most_so_many_per_person_whoever_else_is_there():
    names = [f"{who}_{i}.jpg" for who in "ab" for i in range(5)]
    drawn = pairs_of(names, BEFORE_LAST_UNDERSCORE, 4, 0)
    assert len(drawn) == len(set(drawn)) == 8
    assert all(a != b and a[0] == b[0] for a, b in drawn)
    assert pairs_of(names[:5], BEFORE_LAST_UNDERSCORE, 4, 0) == drawn[:4]
    assert pairs_of(names, BEFORE_LAST_UNDERSCORE, 4, 1) != drawn


def test_tables_that_are_there_are_kept_without_overwrite(root, console):
    make_pairs(Pairs(root), console)
    with pytest.raises(UserError, match=r"pairs-train.csv is already there .*--overwrite"):
        make_pairs(Pairs(root, at_most=1), console)
    make_pairs(Pairs(root, at_most=1, overwrite=True), console)
    assert len(read_pairs(root / "fasion-resize-pairs-train.csv")) == 2


def test_what_cannot_be_done_is_said_and_nothing_is_written(root, tmp_path, console):
    with pytest.raises(UserError, match=r"expected train or test in .*train, and neither"):
        make_pairs(Pairs(root / "train"), console)
    with pytest.raises(UserError, match=r"no person has two pictures in .*train"):
        make_pairs(Pairs(root, person=r"^(.+)\.jpg$"), console)
    with pytest.raises(UserError, match=r"--at-most: expected at least 1, got 0"):
        make_pairs(Pairs(root, at_most=0), console)
    with pytest.raises(UserError, match=r"a,b.jpg holds a comma"):
        write_pairs(tmp_path / "x.csv", [("a,b.jpg", "c.jpg")])
    assert not list(tmp_path.glob("*.csv"))
