"""Pictures of a study: chosen once, of one size and one length, and nothing that tells them apart."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from examples.pose_morph.errors import UserError
from examples.pose_morph.study.exhibition import gather, shuffle_blocks
from tests.examples.pose_morph.study.conftest import write_pictures


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_half_are_real_and_golden_ones_have_pictures_of_their_own(folders):
    shown = gather(*folders, count=5, golden_count=7)
    kinds = [(exhibit.truth, exhibit.golden) for exhibit in shown.exhibits]
    assert [kinds.count((truth, golden)) for golden in (False, True) for truth in ("real", "generated")] == [5, 5, 4, 3]
    names = [exhibit.name for exhibit in shown.exhibits]
    assert len(set(names)) == len(names) == len(shown.pictures)
    assert all(
        exhibit.name.startswith("40")
        for exhibit in shown.exhibits
        if exhibit.truth == "generated" and not exhibit.golden
    )
    assert all(exhibit.name.startswith("200") for exhibit in shown.exhibits if exhibit.golden)


def test_no_file_tells_by_its_length_size_or_format_what_it_is(tmp_path):
    real = write_pictures(tmp_path / "real", 12, hue=200, size=(48, 64), suffix=".jpg")
    generated = write_pictures(tmp_path / "generated", 6, hue=40)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for path in real.iterdir():  # as cameras do
        with Image.open(path) as picture:
            picture.save(path, icc_profile=profile)
    shown = gather(real, generated, count=4, golden_count=4)
    assert shown.frame == (32, 24)
    assert {len(picture) for picture in shown.pictures} == {len(shown.pictures[0])}
    assert {(opened(picture).size, opened(picture).mode, opened(picture).format) for picture in shown.pictures} == {
        ((24, 32), "RGB", "PNG")
    }
    assert not any(opened(picture).info for picture in shown.pictures)


def test_the_seed_decides(folders):
    assert gather(*folders, count=5, golden_count=2) == gather(*folders, count=5, golden_count=2)
    assert (
        gather(*folders, count=5, golden_count=2).exhibits != gather(*folders, count=5, golden_count=2, seed=1).exhibits
    )


def test_examples_are_spare_pictures(folders):
    shown = gather(*folders, count=8, golden_count=2)
    assert [truth for truth, _ in shown.examples] == ["real", "real", "generated", "generated"]
    assert not set(shown.pictures) & {picture for _, picture in shown.examples}
    fewer = gather(*folders, count=9, golden_count=2)
    assert [truth for truth, _ in fewer.examples] == ["real", "real", "generated"]
    assert any("to spare" in note for note in fewer.notes)


def test_golden_folders_are_used(tmp_path, folders):
    golden = write_pictures(tmp_path / "good", 3, hue=90), write_pictures(tmp_path / "bad", 3, hue=120)
    shown = gather(*folders, count=5, golden_count=4, golden=golden)
    found = [(exhibit.name[:3], exhibit.truth) for exhibit in shown.exhibits if exhibit.golden]
    assert found == [("90_", "real")] * 2 + [("120", "generated")] * 2


def test_an_obvious_fake_has_the_same_blocks_and_none_in_its_place():
    picture = Image.new("L", (3, 4))
    picture.putdata(range(12))
    shuffled = shuffle_blocks(picture, "seed").tobytes()
    assert sorted(shuffled) == list(range(12))
    assert all(value != place for place, value in enumerate(shuffled))


def test_other_shapes_are_refused_unless_a_frame_cuts_them(tmp_path, folders):
    wide = write_pictures(tmp_path / "wide", 20, hue=10, size=(32, 32))
    with pytest.raises(UserError, match=r"frame: .* is 32x32 .*32x24.*--frame HEIGHT WIDTH"):
        gather(wide, folders[1], count=3, golden_count=2)
    shown = gather(wide, folders[1], count=3, golden_count=2, frame=(32, 24))
    assert {opened(picture).size for picture in shown.pictures} == {(24, 32)}


def test_too_few_pictures_are_named(folders):
    with pytest.raises(UserError, match=r"generated: expected 11 different pictures in .*found 10, and 0 that cannot"):
        gather(*folders, count=11, golden_count=2)
    with pytest.raises(UserError, match=r"real: expected 21 different pictures .*6 of them to be shuffled"):
        gather(*folders, count=8, golden_count=13)
    with pytest.raises(UserError, match="generated: there is no folder"):
        gather(folders[0], folders[1] / "nothing")


def test_a_picture_in_two_roles_is_refused(folders):
    with pytest.raises(UserError, match="are the same picture"):
        gather(folders[0], folders[0], count=20, golden_count=0)


def test_pictures_are_shown_as_the_camera_says_and_deep_grey_is_scaled(tmp_path, folders):
    stored = Image.new("RGB", (32, 24), "red")
    stored.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(folders[1] / "turned.png", exif=exif)
    Image.fromarray(np.full((32, 24), 257 * 120, dtype=np.uint16)).save(folders[1] / "deep.png")
    shown = gather(*folders, count=12, golden_count=2)
    seen = {exhibit.name: opened(picture) for exhibit, picture in zip(shown.exhibits, shown.pictures, strict=True)}
    assert seen["turned.png"].getpixel((23, 0)) == (0, 0, 255)
    assert seen["deep.png"].getpixel((0, 0)) == (120, 120, 120)


def test_files_that_are_no_pictures_are_counted_and_odd_modes_are_read(tmp_path, folders):
    for number in range(3):
        (folders[1] / f"broken{number}.png").write_bytes(b"\x89PNG and no more")
    clear = Image.new("RGBA", (24, 32), (255, 0, 0, 0))
    clear.save(folders[1] / "clear.png")
    Image.new("L", (24, 32), 5).save(folders[1] / "grey.png")
    shown = gather(*folders, count=12, golden_count=2)
    assert any(note.startswith(f"generated: 3 pictures of {folders[1]} cannot be read") for note in shown.notes)
    number = next(number for number, exhibit in enumerate(shown.exhibits) if exhibit.name == "clear.png")
    assert opened(shown.pictures[number]).getpixel((3, 3)) == (255, 255, 255)
