"""A source of real H.264 packets for tests, and a reader of the resulting files."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.h264.x264 import X264
from softcam.imaging.frame import Frame

FPS = 20.0
SMALL = (64, 48)


def numbered_frame(number: int, size: tuple[int, int] = SMALL) -> Frame:
    """A frame whose shade of grey encodes the number modulo 16."""
    width, height = size
    luma = np.full((height, width), 8 + 16 * (number % 16), np.uint8)
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return Frame((luma, chroma, chroma), "YUV420", width, height)


class FakeSource:
    """A `VideoSource` without a thread: `give` encodes on the caller's. A keyframe per second, and on request."""

    def __init__(self, size: tuple[int, int] = SMALL) -> None:
        self.sinks: list[PacketSink] = []
        self.wanted = 0  # keyframes
        self.given = 0
        self.keyframes: list[int] = []  # numbers of frames
        self.began_s = time.monotonic()  # of the next frame
        self.clock_error_s = 0.0  # of Unix time
        self._since_keyframe = 0
        self._joined: set[int] = set()
        self._is_keyframe_wanted = True
        self._encoder: X264 | None = None
        self.resize(size)

    def resize(self, size: tuple[int, int]) -> None:
        """Use another frame size from now on, as after reopening the camera."""
        if self._encoder is not None:
            self._encoder.close()
        self._size = size
        self._encoder = X264(size, "YUV420", FPS, 1_000_000)
        self.fmt = VideoFormat(*size, FPS, *self._encoder.parameter_sets)
        self._is_keyframe_wanted = True
        self._joined.clear()

    def subscribe(self, sink: PacketSink) -> None:
        if sink not in self.sinks:
            self.sinks.append(sink)
            self._is_keyframe_wanted = True

    def unsubscribe(self, sink: PacketSink) -> None:
        if sink in self.sinks:
            self.sinks.remove(sink)
            self._joined.discard(id(sink))

    def request_keyframe(self) -> None:
        self.wanted += 1
        self._is_keyframe_wanted = True

    def give(self, frames: int, *, after_s: float = 0.0) -> None:
        """Encode and deliver `frames` frames; `after_s` is a gap before them."""
        self.began_s += after_s
        for _ in range(frames):
            is_keyframe = self._is_keyframe_wanted or self._since_keyframe >= FPS
            self._is_keyframe_wanted = False
            assert self._encoder is not None
            data, is_keyframe = self._encoder.encode(numbered_frame(self.given, self._size), is_keyframe=is_keyframe)
            self._since_keyframe = 1 if is_keyframe else self._since_keyframe + 1
            if is_keyframe:
                self.keyframes.append(self.given)
            timestamp_s = time.time() + self.clock_error_s + self.began_s - time.monotonic()
            packet = Packet(data, is_keyframe, self.began_s, timestamp_s)
            for sink in list(self.sinks):
                if id(sink) not in self._joined:
                    if not is_keyframe:
                        continue
                    self._joined.add(id(sink))
                    sink.on_format(self.fmt)
                sink.on_packet(packet)
            self.given += 1
            self.began_s += 1 / FPS


@dataclass(frozen=True)
class Seen:
    """What a player reads from a file: the times of its frames in seconds, and their numbers modulo 16."""

    times: list[float]
    numbers: list[int]
    duration_s: float
    size: tuple[int, int]


def play(path: Path, number_of: Callable[[Any], int] | None = None) -> Seen:
    """Decode the whole file."""
    with av.open(str(path)) as movie:
        stream = movie.streams.video[0]
        times, numbers = [], []
        for frame in movie.decode(stream):
            times.append(float(frame.time or 0.0))
            luma = float(np.mean(frame.to_ndarray()[: frame.height]))
            numbers.append(round((luma - 8) / 16))
        duration = 0.0 if movie.duration is None else movie.duration / 1_000_000
        return Seen(times, numbers, duration, (stream.width, stream.height))
