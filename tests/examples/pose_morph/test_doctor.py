"""The doctor names what is missing or odd, leaves sound data alone, and what it leaves out is left out."""

import io
import json
import shutil
import sys

import lmdb
import pytest
import torch
from PIL import Image
from rich.console import Console

from examples.pose_morph import doctor
from examples.pose_morph.data.examination import examine, examine_all
from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.left_out import read_left_out
from examples.pose_morph.data.person import DEEPFASHION, person_of
from examples.pose_morph.data.profiles import read_data
from tests.examples.pose_morph.conftest import (
    write_frames,
    write_gfla,
    write_nted,
    write_people,
    write_single,
    write_table,
)

TRAIN = "fasion-resize-{}-train.csv"


def examined(root, **options) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    text = io.StringIO()
    console = Console(file=text, width=500)
    return doctor.examine_folder(
        doctor.Options(data=root, size=(64, 40), workers=0, **options), console
    ), text.getvalue()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_sound_data_are_described_and_nothing_is_found(root, layout):
    code, text = examined(root)
    assert code == 0, text
    assert f"train: laid out like {layout.partition(',')[0]}" in text
    assert "nothing is missing or odd" in text
    assert "of 18 on average" in text


def cut(root):
    path = root / "train" / "train0_0.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def replace_picture(mode, size=(40, 64), **options):
    def change(root):
        picture = Image.new(mode, size)
        picture.save(root / "train" / "train0_0.jpg", "PNG" if mode != "CMYK" else "JPEG", **options)

    return change


def turn(root):
    picture = Image.new("RGB", (40, 64))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(root / "train" / "train0_0.jpg", exif=exif)


def set_joints(change):
    def rewrite(root):
        table = root / TRAIN.format("annotation")
        rows = table.read_text().splitlines()
        name, y, x = rows[1].split(":")
        y, x = change(json.loads(y), json.loads(x))
        table.write_text("\n".join([rows[0], f"{name}:{y}:{x}", *rows[2:]]) + "\n")

    return rewrite


def append(what, line):
    def write(root):
        with (root / TRAIN.format(what)).open("a") as file:
            file.write(line + "\n")

    return write


def repeat_a_row(root):
    append("annotation", (root / TRAIN.format("annotation")).read_text().splitlines()[1])(root)


TROUBLES = {
    "cut off": (
        cut,
        "1 picture(s) are damaged: they begin well and cannot be decoded to the end",
        "train0_0.jpg",
        True,
    ),
    "empty file": (
        lambda r: (r / "train/train0_0.jpg").write_bytes(b""),
        "1 picture(s) cannot be read as pictures",
        "train0_0.jpg",
        True,
    ),
    "missing": (
        lambda r: (r / "train/train0_0.jpg").unlink(),
        "1 picture(s) that the tables name are not in the folder",
        "train0_0.jpg",
        True,
    ),
    "no row": (
        lambda r: edit(r / TRAIN.format("annotation"), "train0_0.jpg", "other.jpg"),
        "1 picture(s) of the pairs have no keypoints in fasion",
        "train0_0.jpg",
        True,
    ),
    "row without picture": (
        append("annotation", f"gone.jpg: {[1] * 18}: {[1] * 18}"),
        "1 picture(s) that the tables name are not in the folder",
        "gone.jpg",
        True,
    ),
    "picture without row": (
        lambda r: shutil.copy(r / "train/train0_0.jpg", r / "train/extra.jpg"),
        "1 picture(s) have no keypoints in fasion-resize-annotation-train.csv and are not used",
        "extra.jpg",
        True,
    ),
    "nobody": (
        set_joints(lambda y, x: ([-1] * 18, [-1] * 18)),
        "1 picture(s) have not one known joint",
        "train0_0.jpg",
        True,
    ),
    "outside": (
        set_joints(lambda y, x: ([64, *y[1:]], x)),
        "1 picture(s) have keypoints outside their frame",
        "train0_0.jpg (1 of 18)",
        False,
    ),
    "all outside": (
        set_joints(lambda y, x: ([n + 64 for n in y], x)),
        "1 picture(s) have all their keypoints outside their frame",
        "train0_0.jpg",
        True,
    ),
    "repeated row": (repeat_a_row, "1 name(s) have several rows", "train0_0.jpg", False),
    "repeated pair": (
        append("pairs", "train0_0.jpg,train0_1.jpg"),
        "1 pair(s) are listed more than once",
        "train0_0.jpg -> train0_1.jpg",
        False,
    ),
    "itself": (
        append("pairs", "train0_0.jpg,train0_0.jpg"),
        "1 pair(s) are a picture with itself",
        "train0_0.jpg -> train0_0.jpg",
        False,
    ),
    "absent pair": (
        append("pairs", "train0_0.jpg,gone.jpg"),
        "1 picture(s) of the pairs have no keypoints",
        "gone.jpg",
        True,
    ),
    "odd size": (
        replace_picture("RGB", (80, 64)),
        "1 picture(s) have an odd size: expected 64x40",
        "train0_0.jpg (64x80)",
        False,
    ),
    "tiny": (replace_picture("RGB", (20, 64)), "1 picture(s) have an odd size", "train0_0.jpg (64x20)", False),
    "grey": (replace_picture("L"), "1 picture(s) are not stored as RGB", "train0_0.jpg (L)", False),
    "cmyk": (replace_picture("CMYK"), "1 picture(s) are not stored as RGB", "train0_0.jpg (CMYK)", False),
    "turned": (turn, "1 picture(s) ask to be shown turned", "train0_0.jpg (RGB)", False),
    "left out and not there": (
        lambda r: (r / "left_out.txt").write_text("nobody.jpg"),
        "1 line(s) of left_out.txt name no picture",
        "nobody.jpg",
        False,
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trouble_is_named_and_can_be_left_out(tmp_path, trouble):
    root = write_people(tmp_path / "data", train=6)
    break_it, what, name, can_be_left_out = TROUBLES[trouble]
    break_it(root)
    code, text = examined(root)
    assert code == 1
    assert what in text
    assert f"\n  {name}\n" in text
    assert not (root / "left_out.txt").exists() or trouble.startswith("left out")
    code, text = examined(root, write_left_out=True)
    assert code == 1
    assert (root / "left_out.txt").exists() == (can_be_left_out or trouble.startswith("left out"))
    if can_be_left_out:
        assert examined(root)[0] == 0
        data = read_data(root, "train", (64, 40), "patn")
        for number in range(len(data)):
            data[number]


def test_lines_that_are_there_already_stay(people):
    cut(people)
    (people / "left_out.txt").write_text("train1_0.jpg  # blurred")
    examined(people, write_left_out=True)
    assert (people / "left_out.txt").read_text() == "train1_0.jpg  # blurred\ntrain/train0_0.jpg\n"


def test_a_name_with_a_number_sign_can_be_left_out(people):
    shutil.copy(people / "train" / "train0_0.jpg", people / "train" / "look#7.jpg")
    (people / "left_out.txt").write_text("# twice the same\ntrain/look#7.jpg # the second\n")
    assert read_left_out(people) == ["train/look#7.jpg"]
    assert examined(people)[0] == 0


@pytest.mark.parametrize("name", ["train_photos", "tests"])
def test_a_folder_of_both_phases_may_begin_like_one_of_them(tmp_path, name):
    """Each phase's pictures lie beside the other's, whatever the folder is called."""
    code, text = examined(write_single(tmp_path / name))
    assert code == 0, text


def test_the_first_names_are_shown_and_all_on_demand(tmp_path):
    root = write_people(tmp_path / "data", train=6)
    for path in (root / "train").iterdir():
        path.unlink()
    code, text = examined(root)
    assert code == 2  # nothing is left to train on
    assert "  … and 7 more (--all shows them)" in text
    assert "\n  train5_1.jpg\n" not in text
    assert "\n  train5_1.jpg\n" in examined(root, all=True)[1]


def test_a_wrong_header_and_a_missing_table_are_said_for_their_phase(people):
    edit(people / TRAIN.format("annotation"), "keypoints_y", "ky")
    (people / "fasion-resize-pairs-test.csv").unlink()
    code, text = examined(people, profile="patn")
    assert code == 2
    assert "train: data: " in text
    assert "has no column keypoints_y" in text
    assert "test: data: expected one of fasion-resize-pairs-test.csv" in text


def test_different_people_and_people_in_both_phases_are_found_by_their_names(tmp_path):
    root = write_gfla(tmp_path / "data")
    with (root / "fasion-pairs-train.csv").open("a") as file:
        file.write("fashionWOMENTeesid0000000001_1front.jpg,fashionWOMENTeesid0000000101_2back.jpg\n")
    _, text = examined(root)
    assert "1 pair(s) show different people" in text
    for phase in ("train", "test"):
        name = (
            "fashionWOMENTeesid0000000001_1front.jpg" if phase == "train" else "fashionWOMENTeesid0001000001_1front.jpg"
        )
        shutil.copy(root / phase / name, root / phase / "fashionWOMENTeesid0000000001_3side.jpg")
        table = root / f"fasion-annotation-{phase}.csv"
        edit(table, f"{name}:", "fashionWOMENTeesid0000000001_3side.jpg:")
        edit(root / f"fasion-pairs-{phase}.csv", name, "fashionWOMENTeesid0000000001_3side.jpg")
    _, text = examined(root)
    assert "1 person(s) are in train and in test\n  fashionWOMENTeesid0000000001\n" in text


def test_an_emptied_phase_is_to_be_restored_not_left_out(people):
    for path in (people / "test").iterdir():
        path.unlink()
    code, text = examined(people)
    assert code == 2
    assert "used in training: 6 pictures and 6 pairs" in text
    assert "Restore or correct them: nothing of this phase can be used." in text
    assert "leave" not in text
    examined(people, write_left_out=True)
    assert not (people / "left_out.txt").exists()


def test_the_offer_to_leave_out_names_what_it_is_about(people):
    (people / "train" / "train0_0.jpg").write_bytes(b"no picture")
    _, text = examined(people)
    assert "--write-left-out would leave out what cannot be used, 1 picture(s): train/train0_0.jpg" in text
    assert "test: 4 pictures" in text
    assert "  used for scores: 4 pictures and 4 pairs" in text


def test_one_folder_for_both_phases_is_to_be_split_by_person(tmp_path, standing):
    names = [f"fashionWOMENTeesid0000000101_{pose}front.png" for pose in range(30)]
    (tmp_path / "one").mkdir()
    for name in names:
        Image.new("RGB", (40, 64)).save(tmp_path / "one" / name)
    write_table(tmp_path / "one" / "joints.csv", dict.fromkeys(names, standing))
    _, text = examined(tmp_path / "one")
    assert "1 person(s) are in train and in test" in text
    assert "Split the folder by person (python -m examples.pose_morph.prepare split)" in text
    assert "Move them" not in text


def test_phases_that_are_laid_out_in_different_ways_are_said(tmp_path):
    root, other = write_people(tmp_path / "data"), write_gfla(tmp_path / "other")
    for path in (root / "test", *root.glob("*-test.csv")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (other / "test", *other.glob("*-test.csv")):
        path.rename(root / path.name)
    code, text = examined(root)
    assert code == 0
    assert "train and test are laid out in different ways" in text


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("fashionWOMENDressesid0000262902_3back.jpg", "fashionWOMENDressesid0000262902"),
        ("img/WOMEN/Dresses/id_00002629/02_3_back.png", "img/WOMEN/Dresses/id_00002629/02"),
        ("annyid00000200_1side.jpg", "annyid00000200"),
        ("walk/0001.png", None),
        ("holiday_2.jpg", None),
    ],
)
def test_a_name_tells_its_person_only_in_the_form_of_deepfashion(name, person):
    assert person_of(name, DEEPFASHION) == person


def test_a_damaged_value_of_a_database_is_named(tmp_path):
    root = write_nted(tmp_path / "data")
    key = "img/WOMEN/Tees/id_00000000/01_1_front.png"
    with lmdb.open(str(root / "256-176"), map_size=2**24) as database, database.begin(write=True) as values:
        values.put(key.encode(), values.get(key.encode())[:-300])
        values.put(b"img/extra.png", values.get(b"img/WOMEN/Tees/id_00010000/01_1_front.png"))
    code, text = examined(root)
    assert code == 1
    assert f"1 picture(s) are damaged: they begin well and cannot be decoded to the end\n  {key}\n" in text
    assert "train: 1 picture(s) have no keypoints in pose and are not used\n  img/extra.png\n" in text
    assert "test: 1" not in text


def test_a_damaged_video_is_named(tmp_path):
    root = write_frames(tmp_path / "data", video=True)
    (root / "train" / "dancer0.mp4").write_bytes(b"nothing")
    code, text = examined(root)
    assert code == 1
    assert "3 picture(s) are in videos that cannot be read\n  dancer0.mp4/0\n" in text


def test_a_mode_without_a_range_is_broken(tmp_path):
    Image.new("F", (2, 2)).save(tmp_path / "a.tif")
    assert examine(FolderStore(tmp_path), "a.tif").broken == "are stored in mode F, which has no agreed range"


def test_worker_processes_find_the_same(people):
    cut(people)
    store = FolderStore(people / "train")
    here, there = ({n: e for some in examine_all(store, store.names(), w) for n, e in some.items()} for w in (0, 1))
    assert here == there
    assert here["train0_0.jpg"].broken


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--data", "PEOPLE"], 0, "nothing is missing or odd"),
        (["--data", "NOWHERE"], 2, "there is no folder"),
        (["--data", "PEOPLE", "--workers", "-1"], 2, "--workers: expected at least 0, got -1"),
    ],
)
def test_the_command_ends_with_its_exit_code_and_without_a_traceback(
    people, monkeypatch, capsys, arguments, code, said
):
    places = {"PEOPLE": str(people), "NOWHERE": str(people / "nowhere")}
    monkeypatch.setattr(sys, "argv", ["doctor", *(places.get(word, word) for word in arguments)])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    assert end.value.code == code
    printed = capsys.readouterr()
    assert said in printed.out
    assert "Traceback" not in printed.out + printed.err


def test_a_folder_that_cannot_be_written_is_named(people, monkeypatch):
    cut(people)
    (people / "left_out.txt.partial").mkdir()
    monkeypatch.setattr(sys, "argv", ["doctor", "--data", str(people), "--write-left-out"])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    assert end.value.code == 2
    assert not (people / "left_out.txt").exists()


def test_pictures_of_many_sizes_are_not_odd(tmp_path):
    root = write_single(tmp_path / "data", pictures=8)
    for number in range(4):
        path = root / f"photo{number}.png"
        with Image.open(path) as picture:
            larger = picture.resize((picture.width * (number + 2), picture.height * (number + 2)))
        larger.save(path)
    assert examined(root)[0] == 0
    assert torch.isfinite(read_data(root, "train", (64, 40)).keypoints).all()
