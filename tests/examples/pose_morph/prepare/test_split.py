"""Splitting by person."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.tables import read_annotation
from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.annotation import write_annotation
from examples.pose_morph.prepare.split import Split, held_out, split


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five people, three pictures each, in a folder each."""
    for person in ("ann", "bob", "cy", "dee", "eve"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (4, 6)).save(tmp_path / "photos" / person / f"{person}_{number}.png")
    return tmp_path / "photos"


def phases(out: Path) -> dict[str, set[str]]:
    return {
        phase: {path.relative_to(out / phase).as_posix() for path in (out / phase).rglob("*.png")}
        for phase in ("train", "test")
    }


@pytest.mark.parametrize("person", [r"^(.+)_[^/]*$", r"^([^/]+)/", r"(?:ann|bob|cy|dee|eve)(?=_)"])
def test_no_person_is_in_both_phases_and_no_picture_is_lost(photos, tmp_path, console, person):
    split(Split(photos, tmp_path / "out", person=person, test_share=0.4), console)
    train, test = phases(tmp_path / "out").values()
    assert len(train) == 9
    assert len(test) == 6
    assert not {name.split("/")[0] for name in train} & {name.split("/")[0] for name in test}
    assert "train: 3 people, 9 pictures" in console.file.getvalue()


def test_the_annotation_is_split_along_and_what_does_not_fit_is_counted(photos, tmp_path, console):
    joints = {f"{who}/{who}_0.png": torch.full((18, 2), 2.0) for who in ("ann", "bob", "cy", "dee", "eve", "zoe")}
    write_annotation(tmp_path / "all.csv", joints)
    split(Split(photos, tmp_path / "out", annotation=tmp_path / "all.csv"), console)
    for phase, names in phases(tmp_path / "out").items():
        rows = read_annotation(tmp_path / "out" / f"fasion-resize-annotation-{phase}.csv").joints
        assert set(rows) == names & joints.keys()
    assert "1 row(s) have no picture and are left out: zoe/zoe_0.png" in console.file.getvalue()
    assert "10 picture(s) have no row in" in console.file.getvalue()


def test_the_seed_decides_alone():
    people = [f"p{i}" for i in range(30)]
    assert held_out(people, 0.2, 0) == held_out(people[::-1], 0.2, 0)
    assert held_out(people, 0.2, 0) != held_out(people, 0.2, 1)
    assert len(held_out(people, 0.2, 0)) == 6
    assert len(held_out(people[:2], 0.99, 0)) == 1


def test_a_dry_run_writes_nothing(photos, tmp_path, console):
    split(Split(photos, tmp_path / "out", dry_run=True), console)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_said(photos, tmp_path, console):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"finds no person in ann/ann_0.png .15 of 15"):
        split(Split(photos, out, person="nobody"), console)
    with pytest.raises(UserError, match=r"no regular expression"):
        split(Split(photos, out, person="("), console)
    with pytest.raises(UserError, match=r"at least two people to split, found photo"):
        held_out(["photo"], 0.1, 0)
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        split(Split(tmp_path / "nowhere", out), console)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--pictures: expected pictures .* in .*empty"):
        split(Split(tmp_path / "empty", out), console)
    split(Split(photos, out), console)
    with pytest.raises(UserError, match=r"already there .*--overwrite"):
        split(Split(photos, out), console)
