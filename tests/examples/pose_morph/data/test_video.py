"""Random access to frames: number n is the n-th frame, whatever was read before."""

import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from examples.pose_morph.data.frames import OPEN_VIDEOS
from examples.pose_morph.data.pose_data import DataError
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.data.video import Video
from tests.examples.pose_morph.conftest import write_frames, write_video
from tests.files.trials import findings

COUNT = 40
LEVELS = [20 + 5 * number for number in range(COUNT)]

FILES = {
    "mp4 with B frames": ("a.mp4", "libx264", {"g": "12", "bf": "3"}),
    "mp4 with open groups": ("a.mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "mp4 with one key frame": ("a.mp4", "mpeg4", {"g": "1000"}),
    "avi without times": ("a.avi", "libx264", {"g": "12", "bf": "2"}),
    "vp8": ("a.webm", "libvpx", {"g": "12"}),
    "vp9": ("a.webm", "libvpx-vp9", {"g": "12"}),
    "motion jpeg": ("a.mkv", "mjpeg", {}),
}  # fmt: skip


def greys() -> list[Image.Image]:
    """Frame n is grey LEVELS[n]."""
    return [Image.new("RGB", (48, 64), (level,) * 3) for level in LEVELS]


def write(path, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of av has no {codec}")
    if codec == "mjpeg":
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 64, "yuvj420p"
            for picture in greys():
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode(None))
    else:
        write_video(path, greys(), codec, **options)


def level(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean())


@pytest.mark.parametrize("kind", FILES)
def test_every_frame_is_the_one_with_its_number_in_any_order(tmp_path, kind):
    name, codec, options = FILES[kind]
    write(tmp_path / name, codec, options)
    video = Video(tmp_path / name)
    assert len(video) == COUNT
    assert video.size == (64, 48)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()
    for number in [*order, *range(COUNT), *reversed(range(0, COUNT, 7)), 5, 5]:
        assert abs(level(video.read(number)) - LEVELS[number]) < 2.4


def test_a_gif_is_read_with_what_its_frames_leave_standing(tmp_path):
    frames = []
    picture = Image.new("RGB", (48, 64), "black")
    for number in range(12):  # each frame changes one square only, but for the sixth, which changes everything
        if number == 6:
            picture = Image.new("RGB", (48, 64), "gray")
        left = 8 * (number % 6)
        picture.paste((255, 255, 255), (left, 0, left + 8, 8))
        frames.append(picture.copy())
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    video = Video(tmp_path / "a.gif")
    for number in (4, 1, 5, 0, 9, 7, 11, 3, 6, 2, 2, 10, 8):
        assert np.abs(np.asarray(video.read(number)).astype(int) - np.asarray(frames[number])).max() < 8


def test_frames_in_order_are_decoded_once(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", greys(), g="1000")
    video = Video(tmp_path / "a.mp4")
    opened = []
    monkeypatch.setattr(video, "_open", lambda: opened.append(1) or Video._open(video))
    for number in range(COUNT):
        video.read(number)
    assert len(opened) == 1


def test_a_seek_decodes_no_more_than_its_group(tmp_path):
    write(tmp_path / "a.mp4", "libx264", {"g": "12", "bf": "0"})
    video = Video(tmp_path / "a.mp4")
    video.read(38)
    assert video.counted <= 12


@pytest.mark.parametrize("number", [-1, COUNT])
def test_a_frame_that_is_not_there_is_refused(tmp_path, number):
    write_video(tmp_path / "a.mp4", greys())
    with pytest.raises(DataError, match=f"a.mp4 has {COUNT} frames, numbered from 0; frame {number} was asked for"):
        Video(tmp_path / "a.mp4").read(number)


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"a.mp4 cannot be read as a video"):
        Video(tmp_path / "a.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="the reader is forked")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_reads_more_videos_than_are_kept_open(tmp_path):
    data = read_data(write_frames(tmp_path / "data", video=True, videos=OPEN_VIDEOS + 2), "train", (16, 16))
    data[0]  # its decoder stays open on this side
    assert not findings(lambda chance: [data[number] for number in range(len(data))], 1)


def test_a_frame_that_is_overwritten_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, greys(), "mpeg4", g="1")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    data[start + length // 2 : start + length] = bytes(length - length // 2)
    path.write_bytes(bytes(data))
    video = Video(path)
    assert abs(level(video.read(0)) - LEVELS[0]) < 2.4
    with pytest.raises(DataError, match=rf"frame {COUNT - 1} of .*a.mp4 cannot be decoded"):
        video.read(COUNT - 1)
