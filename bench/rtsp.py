"""Compares the cost of one more RTSP viewer with that of GStreamer's server, which plays the same H.264.

    rtsp.py compare REEL FPS BITRATE VIEWERS SECONDS LOAD     prints one JSON object; LOAD is the compiled c/rtsp_load.c
    rtsp.py serve FILE FPS                                    the portal's RTSP server, which plays a file

A cost is the server's CPU time with VIEWERS viewers minus that with one, for each additional megabyte that was
delivered. Both servers play an encoding of the reel with the portal's encoder; the medians are of rounds in which they
alternate. All traffic is on the loopback interface.
"""

import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent))  # bench/ is not a package

import numpy as np  # noqa: E402

from softcam.h264.packet import Packet, PacketSink, VideoFormat  # noqa: E402

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, which has gi
ROUNDS = 3
KEYFRAME_EVERY = 60
NOISE = 3.0  # standard deviation
START_S = 30.0
START_CODE = b"\0\0\0\1"
SIZE = 1920, 1080
PATH = "stream"


# --- the file ----------------------------------------------------------------------------------------------------


def make_file(reel: Path, path: Path, fps: float, bitrate: int) -> float:
    """Encode the reel, with the noise of a sensor, so that the encoder needs `bitrate`; returns the resulting one.

    Forwards and backwards, so that it can be repeated.
    """
    from encode import to_planes
    from reel import read_reel

    from softcam.h264.x264 import X264
    from softcam.imaging.frame import Frame

    pictures = [to_planes(picture) for picture in read_reel(reel)]
    pictures += pictures[::-1]
    height, width = pictures[0][0].shape
    backend = X264((width, height), "YUV420", fps, bitrate)
    noise = np.random.default_rng(15)
    units = []
    for number, planes in enumerate(itertools.chain(pictures, pictures)):  # twice: the rate has settled then
        luma = planes[0].astype(np.int16) + noise.normal(0, NOISE, planes[0].shape).astype(np.int16)
        noisy = (luma.clip(0, 255).astype(np.uint8), *planes[1:])
        frame = Frame(noisy, "YUV420", width, height, began_s=number / fps)
        backend.send_frame(frame, is_keyframe=number % KEYFRAME_EVERY == 0)
        while (packet := backend.receive_packet()) is not None:
            sets = backend.parameter_sets if packet.is_keyframe else ()
            units.append(START_CODE + START_CODE.join((*sets, *_nal_units(packet.data))))
    units = units[-len(pictures) :]
    path.write_bytes(b"".join(len(unit).to_bytes(4, "little") + unit for unit in units))
    return sum(map(len, units)) * 8 * fps / len(units)


def _nal_units(data: bytes) -> list[bytes]:
    from softcam.rtsp.rtp import nal_units

    return [bytes(unit) for unit in nal_units(data)]


def _read_units(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    while data:
        size = int.from_bytes(data[:4], "little")
        yield data[4 : 4 + size]
        data = data[4 + size :]


# --- the portal's server -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    data: bytes
    is_keyframe: bool


class FileSource:
    """Plays the file in place of the encoder, from its first keyframe."""

    def __init__(self, path: Path, fps: float) -> None:
        self._units: list[_Unit] = []
        self._fps = fps
        self._sink: PacketSink | None = None
        self._next = 0
        for annex_b in _read_units(path):
            nals = annex_b.split(START_CODE)[1:]
            sets = [nal for nal in nals if nal[0] & 0x1F in (7, 8)]
            if sets:
                self._format = VideoFormat(*SIZE, fps, *sets)
            slices = [len(nal).to_bytes(4, "big") + nal for nal in nals if nal not in sets]
            self._units.append(_Unit(b"".join(slices), bool(sets)))
        threading.Thread(target=self._play, name="file", daemon=True).start()

    def subscribe(self, sink: PacketSink) -> None:
        sink.on_format(self._format)
        self._sink = sink

    def unsubscribe(self, _sink: PacketSink) -> None:
        self._sink = None

    def request_keyframe(self) -> None:
        """Continue with the beginning of the file."""
        self._next = 0

    def _play(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s += 1 / self._fps
            time.sleep(max(0.0, due_s - time.monotonic()))
            unit = self._units[self._next]
            self._next = (self._next + 1) % len(self._units)
            if (sink := self._sink) is not None:
                sink.on_packet(Packet(unit.data, unit.is_keyframe, due_s, time.time()))


def serve(path: Path, fps: float) -> None:
    from softcam.net.event_loop import EventLoop
    from softcam.rtsp.server.handler import HandlerLimits
    from softcam.rtsp.server.server import RtspServer, ServerLimits, listening_socket
    from softcam.rtsp.server.stream import RtpStream

    loop = EventLoop("event-loop", print)
    stream = RtpStream(FileSource(path, fps), loop, print)
    limits = ServerLimits(HandlerLimits(max_viewers=1000))
    server = RtspServer(loop, {PATH: stream}, lambda: lambda: None, (), lambda: "open", print, limits)
    loop.start()
    address = server.start(listening_socket("127.0.0.1", 0))
    print(f"listening on {address.rstrip('/').rpartition(':')[2]}", flush=True)
    threading.Event().wait()


# --- the comparison ----------------------------------------------------------------------------------------------


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a server during the block; yields its process and its port."""
    from servers import WITH_PARENT

    with subprocess.Popen(
        [*WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = re.match(r"listening on (\d+)", process.stdout.readline())
            if said is None:
                raise SystemExit(f"{command[1]} does not listen")
            yield process.pid, int(said[1])
        finally:
            process.terminate()


def measure(command: list[str], transport: str, viewers: int, seconds: float, load: str) -> dict[str, Any]:
    """The cost of the additional viewers in CPU microseconds per megabyte, and what the slowest one received."""
    one: dict[str, float] = {}
    many: dict[str, float] = {}
    with running(command) as (pid, port):
        for count, result in ((1, one), (viewers, many)):
            words = [load, str(port), PATH, transport, str(count), str(seconds), str(pid)]
            run = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=seconds + START_S, check=True)
            result.update(json.loads(run.stdout))
    cpu_ms = many["server_cpu_ms"] / many["seconds"] - one["server_cpu_ms"] / one["seconds"]
    megabytes = (many["bytes"] / many["seconds"] - one["bytes"] / one["seconds"]) / 1e6
    return {
        "us_per_megabyte": cpu_ms * 1000 / megabytes,
        "least_share": many["bytes_least"] / many["seconds"] / (one["bytes"] / one["seconds"]),
        "viewer_cpu_ms_per_s": cpu_ms / (viewers - 1),
        "load_cpu_ms_per_s": many["load_cpu_ms"] / many["seconds"],
    }


def compare(reel: Path, fps: float, bitrate: int, viewers: int, seconds: float, load: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        result: dict[str, Any] = {"bitrate": make_file(reel, path, fps, bitrate)}
        servers = {
            "portal": [sys.executable, str(Path(__file__)), "serve", str(path), str(fps)],
            "gstreamer": [SYSTEM_PYTHON, str(BENCH / "gst_rtsp.py"), str(path), str(fps)],
        }
        for transport in ("tcp", "udp"):
            rounds = [
                {name: measure(command, transport, viewers, seconds, load) for name, command in servers.items()}
                for _ in range(ROUNDS)
            ]
            for name in servers:
                for key in rounds[0][name]:
                    result[f"{transport}_{name}_{key}"] = statistics.median(each[name][key] for each in rounds)
            ratios = (each["portal"]["us_per_megabyte"] / each["gstreamer"]["us_per_megabyte"] for each in rounds)
            result[f"{transport}_ratio"] = statistics.median(ratios)
    return result


def main(arguments: list[str]) -> None:
    match arguments:
        case ["compare", reel, fps, bitrate, viewers, seconds, load]:
            print(json.dumps(compare(Path(reel), float(fps), int(bitrate), int(viewers), float(seconds), load)))
        case ["serve", path, fps]:
            serve(Path(path), float(fps))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
