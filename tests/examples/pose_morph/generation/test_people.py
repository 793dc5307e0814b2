"""Sources: where their joints come from, pictures that are stored turned, and what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from examples.pose_morph.data.orientation import upright
from examples.pose_morph.errors import UserError
from examples.pose_morph.generation import people as people_module
from examples.pose_morph.generation.people import read_people
from tests.examples.pose_morph.conftest import write_table

UNKNOWN = torch.full((18, 2), torch.nan)


@pytest.fixture(autouse=True)
def extractor(monkeypatch):
    """An extractor that finds nobody, so that no test depends on what is installed."""
    asked = []

    def detect(picture, called):
        asked.append(called)
        return UNKNOWN

    monkeypatch.setattr(people_module, "detect_joints", detect)
    return asked


@pytest.fixture
def photo(tmp_path):
    """A picture, 64x40, in a folder of its own."""
    path = tmp_path / "album" / "photos" / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 64), "red").save(path)
    return path


def test_joints_come_from_the_given_table_then_from_beside_then_from_above(photo, standing):
    folder, above = photo.parent, photo.parents[1]
    write_table(above / "all.csv", {"a.png": standing + 1})
    assert torch.equal(read_people([photo], None)[0][0].keypoints, standing + 1)
    write_table(above / "photos.csv", {"a.png": standing + 2})  # the folder's own, as frames of a video have it
    assert torch.equal(read_people([photo], None)[0][0].keypoints, standing + 2)
    write_table(folder / "beside.csv", {"a.png": standing + 3})
    assert torch.equal(read_people([photo], None)[0][0].keypoints, standing + 3)
    given = photo.parents[2] / "given.csv"
    write_table(given, {"photos/a.png": standing + 4})
    ((person,), _) = read_people([photo], given)
    assert torch.equal(person.keypoints, standing + 4)
    assert (person.name, person.picture.size, person.picture.mode) == ("a", (40, 64), "RGB")


def test_a_folders_own_table_has_its_whole_name(photo, standing):
    folder = photo.parent.rename(photo.parents[1] / "photos.v2")
    write_table(folder.parent / "photos.csv", {"a.png": standing})
    write_table(folder.parent / "photos.v2.csv", {"a.png": standing + 1})
    assert torch.equal(read_people([folder / "a.png"], None)[0][0].keypoints, standing + 1)


def test_a_given_table_may_name_more_of_the_path_than_the_command_line(photo, standing, monkeypatch):
    write_table(photo.parents[2] / "given.csv", {"photos/a.png": standing})
    monkeypatch.chdir(photo.parent)
    assert torch.equal(read_people([Path("a.png")], photo.parents[2] / "given.csv")[0][0].keypoints, standing)


def test_a_row_in_another_frame_is_brought_to_the_picture(photo, standing):
    write_table(photo.parent / "t.csv", {"a.png": standing})
    ((person,), _) = read_people([photo], None, (32, 20))
    assert torch.equal(person.keypoints[9], (standing[9] + 0.5) * 2 - 0.5)


def test_tables_that_contradict_each_other_are_named(photo, standing):
    write_table(photo.parent / "one.csv", {"a.png": standing})
    write_table(photo.parent / "two.csv", {"a.png": standing})
    assert torch.equal(read_people([photo], None)[0][0].keypoints, standing)
    write_table(photo.parent / "three.csv", {"a.png": standing + 1})
    with pytest.raises(UserError, match=r"one\.csv and .*three\.csv differ about a\.png"):
        read_people([photo], None)


def test_other_tables_beside_a_picture_are_not_mistaken_for_joints(photo, extractor):
    (photo.parent / "pairs.csv").write_text("from,to\na.png,a.png\n")
    with pytest.raises(UserError, match=r"no joint of .*a\.png is known"):
        read_people([photo], None)
    assert extractor == [str(photo)]


def test_a_folder_gives_all_its_pictures(photo, standing):
    Image.new("RGB", (20, 30)).save(photo.parent / "b.jpg")
    (photo.parent / "notes.txt").write_text("no picture")
    write_table(photo.parent / "t.csv", {"a.png": standing, "b.jpg": standing})
    assert [person.name for person in read_people([photo.parent], None)[0]] == ["a", "b"]
    (photo.parents[1] / "empty").mkdir()
    with pytest.raises(UserError, match=r"pictures: expected pictures .* in .*empty, and none is there"):
        read_people([photo.parents[1] / "empty"], None)


def test_what_cannot_be_used_is_named(photo, standing):
    table = photo.parents[2] / "t.csv"
    with pytest.raises(UserError, match=r"picture: there is no .*lost\.png"):
        read_people([photo.with_name("lost.png")], None)
    write_table(table, {"b.png": standing})
    with pytest.raises(UserError, match=r"t\.csv has no row a\.png; its first is b\.png"):
        read_people([photo], table)
    write_table(table, {"a.png": UNKNOWN})
    with pytest.raises(UserError, match=r"no joint of .*a\.png is known"):
        read_people([photo], table)
    write_table(table, {"a.png": standing + 64})
    with pytest.raises(UserError, match=r"all joints of .*a\.png lie outside of it, which is 64x40"):
        read_people([photo], table)
    write_table(table, {"a.png": standing})
    photo.write_bytes(photo.read_bytes()[:60])
    with pytest.raises(UserError, match=r"a\.png cannot be read as a picture"):
        read_people([photo], table)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_pictures_of_any_mode_become_rgb(tmp_path, standing, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (40, 64)).save(path)
    write_table(tmp_path / "t.csv", {path.name: standing})
    assert read_people([path], None)[0][0].picture.mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_set_upright_with_its_joints(tmp_path, standing, orientation):
    """A red pixel under a joint of the stored picture lies under that joint of the upright one."""
    stored = Image.new("RGB", (40, 64))
    x, y = (int(value) for value in standing[4])
    stored.putpixel((x, y), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    write_table(tmp_path / "t.csv", {"a.png": standing})
    ((person,), _) = read_people([tmp_path / "a.png"], None)
    assert person.picture.size == ((40, 64) if orientation <= 4 else (64, 40))
    assert person.picture.getpixel(tuple(int(value) for value in person.keypoints[4])) == (255, 0, 0)
    with Image.open(tmp_path / "a.png") as picture:
        assert ImageOps.exif_transpose(picture).tobytes() == person.picture.tobytes()


def test_a_tiff_that_pillow_turns_is_not_turned_again(tmp_path, standing):
    picture = Image.new("RGB", (40, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.tif", exif=exif)
    write_table(tmp_path / "t.csv", {"a.tif": standing.flip(1)})
    ((person,), _) = read_people([tmp_path / "a.tif"], None)
    assert person.picture.size == (64, 40)
    assert torch.equal(person.keypoints, standing.flip(1))


def test_an_upright_picture_is_left_alone(standing):
    picture = Image.new("RGB", (4, 5))
    assert upright(picture, standing, 1) == (picture, standing)
