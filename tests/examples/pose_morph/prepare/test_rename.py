"""From DeepFashion's tree to PATN's names."""

from pathlib import Path

import pytest
from PIL import Image

from examples.pose_morph.errors import UserError
from examples.pose_morph.prepare.rename import Rename, patn_name, read_split, rename

RAW = (
    "WOMEN/Dresses/id_00002629/02_3_back.jpg",
    "WOMEN/Dresses/id_00002629/02_1_front.jpg",
    "WOMEN/Blouses_Shirts/id_00000001/02_7_additional.jpg",
    "MEN/Denim/id_00000080/01_4_full.jpg",
)
NAMES = (
    "fashionWOMENDressesid0000262902_3back.jpg",
    "fashionWOMENDressesid0000262902_1front.jpg",
    "fashionWOMENBlouses_Shirtsid0000000102_7additional.jpg",
    "fashionMENDenimid0000008001_4full.jpg",
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An In-shop tree of 256x256 pictures with white bars of 40 pixels; red marks the middle."""
    for path in RAW:
        picture = Image.new("RGB", (256, 256), "white")
        picture.paste((200, 0, 0), (40, 0, 216, 256))
        file = tmp_path / "img_highres" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=95, subsampling=0)
    return tmp_path / "img_highres"


def lists(folder: Path, train: list[str], test: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.lst").write_text("\n".join(train) + "\n")
    (folder / "test.lst").write_text("\n".join(test) + "\n")
    return folder


@pytest.mark.parametrize(("raw", "name"), list(zip(RAW, NAMES, strict=True)))
def test_the_names_are_patns(raw, name):
    assert patn_name(f"In-shop/img/{raw}") == name


@pytest.mark.parametrize(
    "odd",
    [
        "WOMEN/Dresses/02_3_back.jpg",
        "CHILDREN/Tops/id_00000001/02_1_front.jpg",
        "WOMEN/Dresses/id_1/02_1_front.jpg",
        "WOMEN/Dresses/id_00000001/02_1_front.txt",
    ],
)
def test_other_paths_have_no_name(odd):
    assert patn_name(odd) is None


def test_pictures_follow_the_lists_and_the_rest_is_counted(raw, tmp_path, console):
    split = lists(
        tmp_path / "lists", [NAMES[0], NAMES[1].removesuffix(".jpg"), "fashionMENabsent_1front.jpg"], [NAMES[3]]
    )
    Image.new("RGB", (4, 4)).save(raw / "notes.png")
    rename(Rename(raw, tmp_path / "out", split=split), console)
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg"))
    assert found == sorted([f"train/{NAMES[0]}", f"train/{NAMES[1]}", f"test/{NAMES[3]}"])
    said = console.file.getvalue()
    assert "1 picture(s) have other names than the In-shop tree's and are left out: notes.png" in said
    assert "1 picture(s) of the train list are not below" in said
    assert "fashionMENabsent_1front.jpg" in said
    assert f"1 pictures are in neither list and are left out: {NAMES[2]}" in said
    assert "3 pictures written, 0 left out" in said


def test_white_bars_are_cut_off_and_nothing_is_stretched(raw, tmp_path, console):
    rename(Rename(raw, tmp_path / "out"), console)
    for path in (tmp_path / "out").rglob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.size == (176, 256)
            for corner in ((0, 0), (175, 255)):
                red, green, _ = picture.getpixel(corner)
                assert abs(red - 200) < 12
                assert green < 12


def test_tables_of_pairs_are_a_split_too(tmp_path):
    for phase, names in (("train", NAMES[:2]), ("test", NAMES[2:])):
        (tmp_path / f"fasion-resize-pairs-{phase}.csv").write_text(f"from,to\n{names[0]},{names[1]}\n")
    assert read_split(tmp_path) == {"train": set(NAMES[:2]), "test": set(NAMES[2:])}


def test_without_lists_no_garment_is_in_both_phases_and_the_seed_decides(raw, tmp_path, console):
    def phases(out: str, seed: int) -> dict[str, set[str]]:
        rename(Rename(raw, tmp_path / out, test_share=0.34, seed=seed), console)
        return {phase: {path.name for path in (tmp_path / out / phase).iterdir()} for phase in ("train", "test")}

    first = phases("a", 0)
    assert first == phases("b", 0)
    assert first["train"] | first["test"] == set(NAMES)
    assert len({NAMES[0], NAMES[1]} & first["train"]) in (0, 2)
    assert any(phases(f"c{seed}", seed) != first for seed in range(1, 6))


def test_kept_files_are_links_and_resized_ones_are_not(raw, tmp_path, console):
    rename(Rename(raw, tmp_path / "kept", keep_size=True), console)
    kept = next((tmp_path / "kept").rglob(NAMES[0]))
    assert kept.samefile(raw / RAW[0])
    rename(Rename(raw, tmp_path / "kept", keep_size=True, overwrite=True), console)
    assert not list((tmp_path / "kept").rglob("*.partial"))


def test_a_dry_run_writes_nothing(raw, tmp_path, console):
    rename(Rename(raw, tmp_path / "out", dry_run=True), console)
    assert not (tmp_path / "out").exists()
    assert "nothing is written (--dry-run)" in console.file.getvalue()


def test_existing_files_are_kept_without_overwrite(raw, tmp_path, console):
    rename(Rename(raw, tmp_path / "out"), console)
    with pytest.raises(UserError, match=r"already there \(4 file\(s\).* --overwrite"):
        rename(Rename(raw, tmp_path / "out"), console)
    rename(Rename(raw, tmp_path / "out", overwrite=True), console)


def test_a_broken_picture_is_left_out_and_named(raw, tmp_path, console):
    (raw / RAW[3]).write_bytes(b"no picture")
    rename(Rename(raw, tmp_path / "out"), console)
    assert "3 pictures written, 1 left out" in console.file.getvalue()
    assert RAW[3] in console.file.getvalue()
    assert not list((tmp_path / "out").rglob(NAMES[3]))


def test_what_cannot_be_done_is_said(raw, tmp_path, console):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        rename(Rename(raw, tmp_path / "out", split=tmp_path / "nowhere"), console)
    with pytest.raises(UserError, match=r"none of the listed pictures"):
        rename(Rename(raw, tmp_path / "out", split=lists(tmp_path / "l", ["a.jpg"], ["b.jpg"])), console)
    with pytest.raises(UserError, match=r"1 pictures are in both phases .*a.jpg"):
        rename(Rename(raw, tmp_path / "out", split=lists(tmp_path / "l", ["a.jpg"], ["a.jpg"])), console)
    with pytest.raises(UserError, match=r"lies in .*, which is read"):
        rename(Rename(raw, raw / "out"), console)
    with pytest.raises(UserError, match=r"--test-share: expected a share between 0 and 1, got 1.5"):
        rename(Rename(raw, tmp_path / "out", test_share=1.5), console)
    copy = raw / "low" / RAW[0]
    copy.parent.mkdir(parents=True)
    copy.write_bytes((raw / RAW[0]).read_bytes())
    with pytest.raises(UserError, match=f"would both become {NAMES[0]}; choose one tree"):
        rename(Rename(raw, tmp_path / "out"), console)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "other" / "a.png")
    with pytest.raises(UserError, match=r"expected pictures such as WOMEN/Dresses.* found 1 others, such as a.png"):
        rename(Rename(tmp_path / "other", tmp_path / "out"), console)
