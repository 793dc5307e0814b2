"""Generated pictures find their truth by name; what does not match is said."""

from pathlib import Path

import pytest
from PIL import Image

from examples.pose_morph.errors import UserError
from examples.pose_morph.evaluation.matching import match_pictures


def write(folder: Path, *names: str, size: tuple[int, int] = (8, 12)) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "name",
    ["b.png", "b.jpg", "a___b.png", "a.jpg___b.jpg_vis.png", "a_2_b_vis.jpg", "b_vis.png", "deep/a___b.png"],
)
def test_names_of_other_programs_match(tmp_path, name):
    matched = match_pictures(write(tmp_path / "generated", name), write(tmp_path / "truth", "b.jpg"))
    assert [(made.name, truth.name) for made, truth in matched.pairs] == [(Path(name).name, "b.jpg")]
    assert matched.notes == []


def test_folders_are_part_of_a_name(tmp_path):
    truth = write(tmp_path / "truth", "WOMEN/id_1/02.jpg", "WOMEN/id_2/02.jpg")
    matched = match_pictures(write(tmp_path / "generated", "x___WOMEN_id_2_02.png"), truth)
    assert matched.pairs[0][1] == truth / "WOMEN/id_2/02.jpg"


def test_what_has_no_partner_is_counted_and_named(tmp_path):
    generated = write(tmp_path / "generated", "a.png", "x.png", "y.png")
    matched = match_pictures(generated, write(tmp_path / "truth", "a.jpg", "b.jpg"))
    assert matched.notes == [
        "2 of 3 generated picture(s) have no truth: x.png, y.png",
        "1 of 2 true picture(s) have no generated one: b.jpg",
    ]


def test_refusals_name_the_file_and_what_to_do(tmp_path):
    truth = write(tmp_path / "truth", "a.jpg")
    with pytest.raises(UserError, match="--generated: there is no folder nowhere"):
        match_pictures(Path("nowhere"), truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--generated: expected pictures .* none is there"):
        match_pictures(tmp_path / "empty", truth)
    with pytest.raises(UserError, match=r"no name in .* matches .* got z.png and a.jpg"):
        match_pictures(write(tmp_path / "other", "z.png"), truth)
    with pytest.raises(UserError, match=r"1 of 1 picture\(s\) do not have their truth's size, first .*a.png with 9x9"):
        match_pictures(write(tmp_path / "square", "a.png", size=(9, 9)), truth)
    with pytest.raises(UserError, match="go by one name, a; keep one"):
        match_pictures(write(tmp_path / "made", "a.png"), write(tmp_path / "both", "a.jpg", "a.png"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"broken/a.png cannot be read as a picture"):
        match_pictures(tmp_path / "broken", truth)
