"""Compares the cost of `/stream.mp4` with libx264 alone, and that of ten clients with one.

    fmp4.py encode REEL FPS BITRATE     CPU of encoder, packets and fragments per frame, and of libx264 alone
    fmp4.py substream REEL WxH@FPS      CPU of scaling and encoding per frame, and of libx264 alone on scaled pictures
    fmp4.py watch PORT PID SECONDS      CPU of a running portal per frame, with one client and with ten

Each prints one JSON object with the medians of rounds in which both sides alternate. `encode` runs the portal's classes
and their thread in this process; `watch` has one thread and one epoll. All traffic is on the loopback interface.
"""

import json
import select
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # bench/ is not a package

import av  # noqa: E402
import numpy as np  # noqa: E402
from encode import to_planes  # noqa: E402
from reel import read_reel  # noqa: E402

from softcam.h264.bitrate import fixed_bitrate, substream_bitrate  # noqa: E402
from softcam.h264.encoder import KEYFRAME_S, VideoEncoder  # noqa: E402
from softcam.h264.packet import Packet  # noqa: E402
from softcam.h264.x264 import X264  # noqa: E402
from softcam.imaging.frame import Frame, NewestFrame  # noqa: E402
from softcam.runtime.deadline import Deadline  # noqa: E402
from softcam.streaming.fmp4_channel import Fmp4Stream  # noqa: E402

PICTURES = 10  # of the reel
FRAMES = 60  # per measurement
ROUNDS = 7
SETTLE_S = 1.0
LIMIT_S = 30.0
VIEWERS = 10


def in_one_buffer(planes: list[np.ndarray]) -> np.ndarray:
    """The planes in the layout of a camera's buffer, one after the other: (height * 3 / 2, width)."""
    height, width = planes[0].shape
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(height * 3 // 2, width)


def planes_in(buffer: np.ndarray) -> tuple[np.ndarray, ...]:
    height, width = buffer.shape[0] * 2 // 3, buffer.shape[1]
    flat = buffer.reshape(-1)
    quarter = width * height // 4
    luma, rest = flat[: width * height].reshape(height, width), flat[width * height :]
    return luma, *(part.reshape(height // 2, width // 2) for part in (rest[:quarter], rest[quarter:]))


class Alone:
    """libx264 alone, through PyAV with the portal's settings and as many keyframes."""

    def __init__(self, buffers: list[np.ndarray], fps: float, bitrate: int) -> None:
        height, width = buffers[0].shape[0] * 2 // 3, buffers[0].shape[1]
        # The context of the portal's backend, so that the settings are the same.
        self._context = X264((width, height), "YUV420", fps, bitrate)._context
        self._pictures = [av.VideoFrame.from_numpy_buffer(buffer, "yuv420p") for buffer in buffers]
        self._keyframe_every = round(KEYFRAME_S * fps)
        self._count = 0

    def measure(self) -> float:
        """Return the CPU milliseconds per frame."""
        kinds = av.video.frame.PictureType
        began_s = time.process_time()
        for _ in range(FRAMES):
            picture = self._pictures[self._count % len(self._pictures)]
            picture.pts = self._count
            picture.pict_type = kinds.NONE if self._count % self._keyframe_every else kinds.I
            self._count += 1
            self._context.encode(picture)
        return (time.process_time() - began_s) * 1000 / FRAMES


def _skip_update(_stream: Fmp4Stream, _update: Any) -> None:
    """Replaces the fan-out, which is measured elsewhere."""


class Pipeline:
    """The portal's components from the newest frame to the fragment that is passed to the fan-out."""

    def __init__(self, buffers: list[np.ndarray], fps: float, bitrate: int) -> None:
        self._planes = [planes_in(buffer) for buffer in buffers]
        self._fps = fps
        self._slot = NewestFrame()
        self._video = VideoEncoder(self._slot, lambda: fps, fixed_bitrate(bitrate), print)
        self._fmp4 = Fmp4Stream(self._video, _skip_update)
        self._fed = threading.Semaphore(0)
        self._now_s = time.monotonic()
        self._count = 0
        self._video.subscribe(self)

    def on_format(self, fmt: Any) -> None:
        self._fmp4.on_format(fmt)

    def on_packet(self, packet: Packet) -> None:
        self._fmp4.on_packet(packet)
        self._fed.release()

    def measure(self) -> float:
        began_s = time.process_time()
        for _ in range(FRAMES):
            planes = self._planes[self._count % len(self._planes)]
            height, width = planes[0].shape
            self._now_s += 1 / self._fps
            self._count += 1
            self._slot.put_frame(Frame(planes, "YUV420", width, height, began_s=self._now_s))
            self._video.on_frame()
            if not self._fed.acquire(timeout=LIMIT_S):
                raise SystemExit("timed out waiting for a packet")
        return (time.process_time() - began_s) * 1000 / FRAMES

    def stop(self) -> None:
        self._video.stop(Deadline.after(LIMIT_S))
        self._slot.clear()


class Scaled:
    """The encoder of the smaller stream: scales and encodes."""

    def __init__(self, buffers: list[np.ndarray], fps: float, bitrate: int, size: tuple[int, int]) -> None:
        height, width = buffers[0].shape[0] * 2 // 3, buffers[0].shape[1]
        self._encoder = X264((width, height), "YUV420", fps, bitrate, fit=size)
        self._frames = [Frame(planes_in(buffer), "YUV420", width, height) for buffer in buffers]
        self._keyframe_every = round(KEYFRAME_S * fps)
        self._count = 0

    def measure(self) -> float:
        began_s = time.process_time()
        for _ in range(FRAMES):
            frame = self._frames[self._count % len(self._frames)]
            self._encoder.encode(frame, is_keyframe=self._count % self._keyframe_every == 0)
            self._count += 1
        return (time.process_time() - began_s) * 1000 / FRAMES


def read_buffers(reel: Path) -> list[np.ndarray]:
    return [in_one_buffer(to_planes(picture)) for picture in read_reel(reel)[:PICTURES]]


def measure_encode(reel: Path, fps: float, bitrate: int) -> dict[str, Any]:
    buffers = read_buffers(reel)
    alone, pipeline = Alone(buffers, fps, bitrate), Pipeline(buffers, fps, bitrate)
    try:
        turns = [(alone.measure(), pipeline.measure()) for _ in range(ROUNDS)]
    finally:
        pipeline.stop()
    return compare(turns, "pipeline_cpu_ms")


def measure_substream(reel: Path, size: tuple[int, int], fps: float) -> dict[str, Any]:
    buffers, bitrate = read_buffers(reel), substream_bitrate(size, fps)
    pictures = [av.VideoFrame.from_numpy_buffer(buffer, "yuv420p") for buffer in buffers]
    small = [picture.reformat(*size, interpolation="AREA").to_ndarray() for picture in pictures]
    alone, scaled = Alone(small, fps, bitrate), Scaled(buffers, fps, bitrate, size)
    return compare([(alone.measure(), scaled.measure()) for _ in range(ROUNDS)], "scaled_cpu_ms")


def compare(turns: list[tuple[float, float]], name: str) -> dict[str, Any]:
    """Of the encoder alone, and of what `name` says, in turns."""
    return {
        "alone_cpu_ms": statistics.median(one for one, _ in turns),
        name: statistics.median(other for _, other in turns),
        "ratio": statistics.median(other / one for one, other in turns),
    }


class Clients:
    """Clients that read everything; `count` is the number of fragments that the first one has received."""

    def __init__(self, port: int, viewers: int) -> None:
        self._epoll = select.epoll()
        self._sockets = {}
        self.count = 0
        self._tail = b""
        for _ in range(viewers):
            connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
            connection.sendall(b"GET /stream.mp4 HTTP/1.1\r\nHost: bench\r\n\r\n")
            connection.setblocking(False)
            self._epoll.register(connection, select.EPOLLIN)
            self._sockets[connection.fileno()] = connection
        self._first = min(self._sockets)

    def read_for(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left_s):
                data = self._sockets[descriptor].recv(1 << 20)
                if not data:
                    raise SystemExit("the portal closed a connection")
                if descriptor == self._first:
                    # A fragment's header may be split between two reads; H.264 data hardly contains these four bytes.
                    self.count += (self._tail + data).count(b"moof")
                    self._tail = data[-3:]

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._epoll.close()


def process_cpu_s(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) computes it


def watch(port: int, pid: int, seconds: float, viewers: int) -> dict[str, float]:
    clients = Clients(port, viewers)
    try:
        clients.read_for(SETTLE_S)
        began_s, before = process_cpu_s(pid), clients.count
        clients.read_for(seconds)
        frames = clients.count - before
        return {"frames": frames, "cpu_ms": (process_cpu_s(pid) - began_s) * 1000 / max(1, frames)}
    finally:
        clients.close()


def measure_watch(port: int, pid: int, seconds: float) -> dict[str, Any]:
    turns = [(watch(port, pid, seconds, 1), watch(port, pid, seconds, VIEWERS)) for _ in range(3)]
    return {
        "one_cpu_ms": statistics.median(one["cpu_ms"] for one, _ in turns),
        "ten_cpu_ms": statistics.median(ten["cpu_ms"] for _, ten in turns),
        "ratio": statistics.median(ten["cpu_ms"] / one["cpu_ms"] for one, ten in turns),
        "fps": statistics.median(ten["frames"] / seconds for _, ten in turns),
    }


def main(arguments: list[str]) -> None:
    match arguments:
        case ["encode", reel, fps, bitrate]:
            result = measure_encode(Path(reel), float(fps), int(bitrate))
        case ["substream", reel, wanted]:
            size, _, rate = wanted.partition("@")
            width, _, height = size.partition("x")
            result = measure_substream(Path(reel), (int(width), int(height)), float(rate))
        case ["watch", port, pid, seconds]:
            result = measure_watch(int(port), int(pid), float(seconds))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
