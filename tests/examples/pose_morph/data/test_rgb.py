"""Pictures of every mode come out as what they show."""

import numpy as np
import pytest
from PIL import Image

from examples.pose_morph.data.folder_store import FolderStore
from examples.pose_morph.data.orientation import orientation_of
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.rgb import as_rgb


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"])
def test_a_plain_mode_keeps_black_and_white(mode):
    source = Image.new("RGB" if mode != "LAB" else "LAB", (2, 2), "white" if mode != "LAB" else (255, 128, 128))
    picture = as_rgb(source.convert(mode) if mode != "LAB" else source)
    assert picture.mode == "RGB"
    assert min(picture.getpixel((0, 0))) > 250


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_shows_white(mode):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "PA":
        mask = picture.getchannel("A")
        picture = picture.convert("RGB").convert("P")
        picture.putalpha(mask)
    shown = as_rgb(picture if picture.mode == "PA" else picture.convert(mode))
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == (0, 0, 0)


def test_a_transparent_palette_colour_shows_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    shown = FolderStore(tmp_path).read("a.png")
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257 * 250, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    shown = FolderStore(tmp_path).read("a.png")
    assert [shown.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (250, 250, 250), (255, 255, 255)]


def test_a_cmyk_jpeg_is_read(tmp_path):
    Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK").save(tmp_path / "a.jpg")
    r, g, b = FolderStore(tmp_path).read("a.jpg").getpixel((4, 4))
    assert r > 200
    assert max(g, b) < 60


def test_a_mode_without_a_range_is_refused_with_the_files_name(tmp_path):
    Image.new("F", (2, 2)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a.tif: mode F, floating point, has no agreed range"):
        FolderStore(tmp_path).read("a.tif")
    with pytest.raises(ValueError, match="from 0 to 70000: expected 0 to 65535"):
        as_rgb(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_a_note_to_turn_the_picture_is_kept(tmp_path, mode):
    picture = Image.new(mode, (4, 8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert orientation_of(FolderStore(tmp_path).read("a.png")) == 6


def test_a_note_to_turn_the_picture_is_not_followed(tmp_path):
    picture = Image.new("RGB", (4, 8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert FolderStore(tmp_path).size("a.jpg") == (8, 4)
    assert FolderStore(tmp_path).read("a.jpg").size == (4, 8)
