"""GIF and MP4: every frame arrives, at its size and pace, and a broken write leaves nothing new."""

import av
import numpy as np
import pytest
from PIL import Image

from examples.pose_morph.errors import UserError
from examples.pose_morph.generation.animation import check_animation, write_animation

GREYS = (0, 60, 120, 180, 240)


def frames(size=(40, 64)):
    return (Image.new("RGB", size, (grey, grey, 255 - grey)) for grey in GREYS)


def test_a_gif_has_every_frame_in_order_and_runs_forever(tmp_path):
    write_animation(tmp_path / "new" / "a.gif", frames(), fps=12.5)
    with Image.open(tmp_path / "new" / "a.gif") as gif:
        assert (gif.size, gif.n_frames, gif.info["loop"]) == ((40, 64), len(GREYS), 0)
        for number, grey in enumerate(GREYS):
            gif.seek(number)
            assert gif.info["duration"] == 80
            assert np.abs(np.subtract(gif.convert("RGB").getpixel((20, 30)), (grey, grey, 255 - grey))).max() <= 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.gif"]


@pytest.mark.parametrize(("size", "even"), [((40, 64), (40, 64)), ((39, 63), (40, 64))])
def test_an_mp4_has_every_frame_in_order_and_even_sides(tmp_path, size, even):
    write_animation(tmp_path / "a.MP4", frames(size), fps=7.5)
    with av.open(str(tmp_path / "a.MP4")) as video:
        decoded = [frame.to_image() for frame in video.decode(video=0)]
        assert float(video.streams.video[0].average_rate) == 7.5
    assert [picture.size for picture in decoded] == [even] * len(GREYS)
    for picture, grey in zip(decoded, GREYS, strict=True):
        middle, edge = picture.getpixel((20, 30)), picture.getpixel((even[0] - 1, even[1] - 1))
        assert np.abs(np.subtract(middle, (grey, grey, 255 - grey))).max() <= 12
        assert np.abs(np.subtract(middle, edge)).max() <= 8  # the last row and column are repeated, not black


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_an_animation_that_breaks_off_leaves_the_old_one(tmp_path, name):
    def broken():
        yield from list(frames())[:2]
        raise RuntimeError("out of memory")

    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="out of memory"):
        write_animation(tmp_path / name, broken(), fps=10)
    assert (tmp_path / name).read_bytes() == b"old"


def test_a_single_frame_is_an_animation_too(tmp_path):
    for name in ("a.gif", "a.mp4"):
        write_animation(tmp_path / name, [Image.new("RGB", (8, 8), "red")], fps=1)
        with av.open(str(tmp_path / name)) as video:
            assert len(list(video.decode(video=0))) == 1


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("a.webp", 10, r"ends in \.gif or \.mp4, got a\.webp"),
        ("a.gif", 60, r"0\.01 to 50 for \.gif, got 60"),
        ("a.mp4", 0, r"0\.01 to 240"),
        ("a.gif", 0.001, r"0\.01 to 50"),
        ("a.mp4", float("nan"), r"0\.01 to 240"),
    ],
)
def test_what_no_viewer_plays_is_refused(tmp_path, name, fps, message):
    with pytest.raises(UserError, match=message):
        check_animation(tmp_path.joinpath(name).relative_to(tmp_path), fps)
