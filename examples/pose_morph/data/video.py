"""Frames of a video by number."""

from collections.abc import Iterator
from pathlib import Path

import av
from av.video.frame import VideoFrame
from PIL import Image

from examples.pose_morph.data.pose_data import DataError

VIDEO_SUFFIXES = (".mp4", ".gif", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""Endings of the files that are taken for videos."""

ONE_PACKET_PER_FRAME = frozenset({"av1", "ffv1", "h264", "hevc", "mjpeg", "mpeg2video", "mpeg4", "png", "vp9"})
"""Codecs whose packets, counted without decoding, are the frames; VP8 for one has packets that show nothing."""

TELL_TIMES = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers whose packets carry the times at which their frames are shown; in AVI they are guessed."""


class Video:
    """An open file; frame ``number`` is the one that comes as the number-th in order of display, from zero.

    Packets are listed once, without decoding them where they can be trusted. A frame is reached from the key frame
    before it, or from the last frame that was read where that is nearer. A note in the file that it should be shown
    turned is not followed.
    """

    def __init__(self, path: Path) -> None:
        """Open and list a file.

        Raises:
            DataError: it is no video, or holds no frame.
        """
        self.path = path
        try:
            self._open()
            self.times, self.key_times = self._list()
            self._open()
        except DataError:
            raise
        except Exception as error:  # FFmpeg's errors, and what Python makes of texts and numbers in a broken file
            raise DataError(f"data: {path} cannot be read as a video ({error})") from error
        if not self.times:
            raise DataError(f"data: {path} holds no frame of video")

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.stream.height, self.stream.width

    def read(self, number: int) -> Image.Image:
        """Return a frame as RGB.

        Raises:
            DataError: there is no such frame, or it cannot be decoded.
        """
        if not 0 <= number < len(self):
            raise DataError(f"data: {self.path} has {len(self)} frames, numbered from 0; frame {number} was asked for")
        wanted = self.times[number]
        broken = None
        for go_there in (self._go_on, self._seek, self._rewind):
            try:
                if not go_there(wanted):
                    continue
                for frame in self.frames:
                    self.time = self._time(frame)
                    if self.time == wanted:
                        return frame.to_image()
                    if self.time > wanted:  # the container's seek went too far
                        break
            except Exception as error:  # as above
                broken = str(error)
        self.time = None
        raise DataError(f"data: frame {number} of {self.path} cannot be decoded ({broken or 'it does not come'})")

    def _open(self) -> None:
        self.container = av.open(str(self.path))
        if not self.container.streams.video:
            raise DataError(f"data: {self.path} holds no frame of video")
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1  # workers are processes
        self.codec = self.stream.codec_context.name
        self.counted = 0
        self.time: int | None = None
        self.frames: Iterator[VideoFrame] = self.container.decode(self.stream)

    def _list(self) -> tuple[list[int], list[int]]:
        """Return the times of all frames, and of those that decoding can start at, both in order of display."""
        self.by_count = False
        if self.codec in ONE_PACKET_PER_FRAME and self.container.format.name in TELL_TIMES:
            packets = [packet for packet in self.container.demux(self.stream) if packet.size and not packet.is_discard]
            times = [packet.pts for packet in packets]
            if None not in times and len(set(times)) == len(times):
                return sorted(times), sorted(packet.pts for packet in packets if packet.is_keyframe)
            self._open()
        decoded = [(frame.pts, frame.key_frame) for frame in self.frames]
        times = [time for time, _ in decoded]
        if None in times or sorted(set(times)) != times:  # the file tells no time: count
            self.by_count = True
            return list(range(len(times))), [0]
        return times, [time for time, key in decoded if key]

    def _time(self, frame: VideoFrame) -> int:
        self.counted += 1
        return self.counted - 1 if self.by_count else frame.pts

    def _go_on(self, wanted: int) -> bool:
        """Stay where the decoder is, if the frame is still to come and no key frame lies in between."""
        return self.time is not None and self.time < wanted and self._key_before(wanted) <= self.time

    def _seek(self, wanted: int) -> bool:
        """Go to the key frame before, if seeking can be trusted."""
        if self.by_count or self._key_before(wanted) <= self.times[0]:
            return False
        self.container.seek(self._key_before(wanted), stream=self.stream, backward=True)
        self.frames = self.container.decode(self.stream)
        return True

    def _rewind(self, wanted: int) -> bool:
        self._open()
        return True

    def _key_before(self, wanted: int) -> int:
        return max((time for time in self.key_times if time <= wanted), default=self.times[0])


def frame_number(name: str) -> int | None:
    """Return the number of the frame that a row of a video's table is about, or None.

    >>> frame_number("7"), frame_number("007.png"), frame_number("last")
    (7, 7, None)
    """
    number = name.strip().partition(".")[0]
    return int(number) if number.isdecimal() else None
