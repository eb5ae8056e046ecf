"""Tests of H.264 with Picamera2's hardware encoder class, which the rig replaces by Picamera2's software encoder:
frames and their release during stills, reopening, and connects and disconnects of clients."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.rig.rig import Rig
from tests.rig.test_portal_fmp4 import probe, run
from tests.support.rig_client import Portal, decode, photographs, psnr_db, recognise, shrunk, start_portal, wait_until
from tests.support.timeouts import PATIENCE_S

_HD = ("--camera", "Virtual0", "--width", "1280", "--height", "720", "--fps", "30", "--linger", "1")
_WELL = {"RIG_H264": "well"}
_NEAR_DB = 27.0  # as in test_portal_fmp4


class Film:
    """Records `/stream.mp4` in a thread, to be checked by ffprobe afterwards."""

    def __init__(self, portal: Portal) -> None:
        self._socket = socket.create_connection(("127.0.0.1", portal.port), timeout=PATIENCE_S)
        self._socket.sendall(b"GET /stream.mp4 HTTP/1.1\r\nHost: rig\r\n\r\n")
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, name="rig-film", daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        return len(self._data)

    def end(self) -> bytes:
        with contextlib.suppress(OSError):  # already closed
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._socket.close()
        return bytes(self._data).partition(b"\r\n\r\n")[2]

    def _read(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # the portal closed the connection while more was on its way
            while block := self._socket.recv(65536):
                self._data += block


Films = Callable[[Portal], Film]


@pytest.fixture
def films() -> Iterator[Films]:
    """Starts recordings of the stream, which end with the test."""
    made: list[Film] = []

    def make(portal: Portal) -> Film:
        made.append(Film(portal))
        return made[-1]

    yield make
    for film in made:
        film.end()


def packets_of(film: bytes) -> list[tuple[float, bool]]:
    """The time of each packet, and whether it is a keyframe; checks that all can be decoded."""
    for program in ("ffprobe", "ffmpeg"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    decoded = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            "-",
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1:90000",
            "-f",
            "null",
            "-",
        ],
        input=film,
        capture_output=True,
        check=True,
    )
    assert decoded.stderr == b""
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_packets", "-"], input=film, capture_output=True, check=True
    )
    return [(float(packet["pts_time"]), "K" in packet["flags"]) for packet in json.loads(shown.stdout)["packets"]]


def starts(portal: Portal) -> int:
    return portal.running.output.count("rig: encoder for ")


def stops(portal: Portal) -> int:
    return portal.running.output.count("rig: encoder stopped")


@pytest.mark.parametrize("how", ["well", "behind"])
def test_hardware_encoder_runs_while_clients_are_connected(rig: Rig, how: str) -> None:
    portal = start_portal(rig, *_HD, "--bitrate", "3000000", env={"RIG_H264": how})
    stream, times = probe(portal, 4)
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 1280, 720)
    assert "Baseline" in str(stream["profile"])
    assert (stream["color_range"], stream["color_space"], stream["color_transfer"]) == (
        *("pc", "smpte170m", "iec61966-2-1"),
    )
    assert len(times) > 40
    assert all(before < after for before, after in pairwise(times))
    portal.wait_for_status(viewers=0, h264=None)
    wait_until(lambda: stops(portal) == 1, lambda: portal.running.output)
    portal.running.wait_for_line("rig: encoder for 1280x720 NV12 at 3000000, baseline")
    shown = run(
        *("ffmpeg", "-nostdin", "-v", "error", "-t", "2", "-i", f"{portal.url}/stream.mp4"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
    )
    picture = np.frombuffer(shown, np.uint8).reshape(-1, 720, 1280, 3)[-1]
    wanted = photographs(rig.root)[recognise(rig, picture)]
    assert psnr_db(shrunk(picture), shrunk(wanted)) > _NEAR_DB
    assert "libx264" not in portal.running.output
    assert starts(portal) == 2


def test_hardware_encoder_stops_during_stills(rig: Rig, films: Films) -> None:
    portal = start_portal(rig, *_HD, env=_WELL)
    film = films(portal)
    wait_until(lambda: film.size > 100_000, lambda: portal.running.output)
    for number in range(1, 4):
        answer = portal.get("/snapshot.jpg?full=1")
        assert answer.status == 200
        decode(answer.body)
        assert stops(portal) == number
        before = film.size
        wait_until(lambda: film.size > before + 50_000, lambda: portal.running.output)  # noqa: B023
    packets = packets_of(film.end())
    moments = [moment for moment, _ in packets]
    assert all(earlier < later for earlier, later in pairwise(moments))
    assert sum(is_keyframe for _, is_keyframe in packets) >= 4
    portal.wait_for_status(h264=None)
    assert starts(portal) == 4
    for trouble in ("were not released", "Traceback", "libx264"):
        assert trouble not in portal.running.output


def test_hardware_encoder_after_reopening(rig: Rig, films: Films) -> None:
    portal = start_portal(rig, *_HD, env=_WELL)
    first = films(portal)
    wait_until(lambda: first.size > 100_000, lambda: portal.running.output)
    second = films(portal)
    wait_until(lambda: second.size > 100_000, lambda: portal.running.output)
    assert packets_of(first.end())[0][1]
    assert packets_of(second.end())[0][1]
    assert starts(portal) == 1
    portal.wait_for_status(state="closed")
    descriptors, threads = len(portal.running.descriptors()), len(portal.running.threads())
    for _ in range(3):
        film = films(portal)
        wait_until(lambda: film.size > 100_000, lambda: portal.running.output)  # noqa: B023
        film.end()
        portal.wait_for_status(state="closed")
    wait_until(lambda: stops(portal) == 4, lambda: portal.running.output)
    # The connection of the last status request may still be open.
    wait_until(lambda: len(portal.running.descriptors()) <= descriptors, lambda: f"{portal.running.descriptors()}")
    wait_until(lambda: len(portal.running.threads()) <= threads, lambda: f"{portal.running.threads()}")
    assert portal.status["opens"] == 4


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("broken", r"\[Errno 12\] Cannot allocate memory"),
        ("silent", "no packet from the hardware encoder for 2 s"),
    ],
)
def test_fallback_to_libx264(rig: Rig, films: Films, how: str, reason: str) -> None:
    portal = start_portal(rig, *_HD, env={"RIG_H264": how})
    with portal.watch() as viewer:
        film = films(portal)
        portal.running.wait_for_line(f"WARNING Falling back to libx264: {reason}")
        viewer.wait_for_pictures(30)
        again = films(portal)
        wait_until(lambda: again.size > 100_000, lambda: portal.running.output)
        assert packets_of(again.end())[0][1]
        film.end()
        assert portal.get("/snapshot.jpg?full=1").status == 200
        viewer.wait_for_pictures(10)
    status = portal.status
    assert (status["opens"], status["restarts"]) == (1, 0)
    assert portal.running.output.count("Falling back to libx264") == 1
    assert "were not released" not in portal.running.output


def test_fallback_when_device_is_not_an_encoder(rig: Rig, films: Films, tmp_path: Path) -> None:
    device = tmp_path / "video11"
    device.touch()
    portal = Portal(rig.start(rig.portal(*_HD), shared={"/dev/video11": device}))
    film = films(portal)
    portal.running.wait_for_line("WARNING Falling back to libx264: .*Inappropriate ioctl")
    wait_until(lambda: film.size > 100_000, lambda: portal.running.output)
    assert packets_of(film.end())[0][1]
    assert "/dev/video11" not in portal.running.descriptors().values()
    portal.wait_for_status(state="closed")
    assert "were not released" not in portal.running.output


def test_no_log_without_hardware_encoder(rig: Rig) -> None:
    portal = start_portal(rig, *_HD)
    probe(portal, 1)
    assert "hardware" not in portal.running.output
