"""Tests of `/stream.mp4` on a running portal: boxes, ffprobe and ffmpeg, slow clients, recovery, a change of size."""

import http.client
import json
import shutil
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient as PictureViewer
from tests.support.http_client import ask, port_of, post, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
SIZE = (640, 360)
FLAGS = ("--width", "640", "--height", "360", "--fps", "20", "--bitrate", "2000000")
SHARED_FLAGS = ("--watchdog-timeout", "1", *FLAGS)
FRAME_S = 0.05
KEYFRAME_S = 2.0


@dataclass(frozen=True, slots=True)
class Fragment:
    number: int
    time_s: float  # decode time in the fMP4 stream
    length_s: float
    is_keyframe: bool
    came_s: float  # Unix time


class Fmp4Client:
    """A client of `/stream.mp4` that checks every box with assertions."""

    def __init__(self, portal: Portal, *, receive_bytes: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(PATIENCE_S)
        self.asked_s = time.time()
        self._socket.connect(("127.0.0.1", port_of(portal)))
        self._socket.sendall(b"GET /stream.mp4 HTTP/1.1\r\nHost: test\r\n\r\n")
        self._stream = self._socket.makefile("rb")
        assert self._stream.readline() == b"HTTP/1.1 200 OK\r\n"
        self.headers = http.client.parse_headers(self._stream)
        self.zero_s = float(self.headers["X-Timestamp-Zero"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
        self._socket.close()

    def read_header(self) -> tuple[int, int]:
        """Read the header; return the frame size."""
        kind, content = self._box()
        assert (kind, content[:4]) == ("ftyp", b"iso5")
        kind, content = self._box()
        assert kind == "moov"
        at = content.index(b"avc1") + 4
        width, height = struct.unpack_from(">HH", content, at + 24)
        return width, height

    def fragment(self) -> Fragment:
        kind, moof = self._box()
        assert kind == "moof"
        number = struct.unpack_from(">I", moof, 12)[0]
        (ticks,) = struct.unpack_from(">Q", moof, moof.index(b"tfdt") + 8)
        run = moof.index(b"trun") + 4
        _, count, _, length, size, flags = struct.unpack_from(">IIIIII", moof, run)
        assert count == 1
        kind, data = self._box()
        assert (kind, len(data)) == ("mdat", size)
        is_keyframe = data[4] & 0x1F == 5
        assert flags == (0x02000000 if is_keyframe else 0x01010000)
        return Fragment(number, ticks / 90_000, length / 90_000, is_keyframe, time.time())

    def wait_for_end(self) -> None:
        try:
            while self._stream.read(1 << 16):
                pass
        except ConnectionResetError:
            return

    def _box(self) -> tuple[str, bytes]:
        header = self._stream.read(8)
        if len(header) < 8:
            raise ConnectionError("the fMP4 stream ended")
        size, kind = struct.unpack(">I4s", header)
        return kind.decode(), self._stream.read(size - 8)


def check_sequence(fragments: list[Fragment]) -> None:
    """No fragment is missing, and a player drops none: each starts within twice the duration of the previous one."""
    for before, after in pairwise(fragments):
        assert after.number == before.number + 1
        assert after.time_s > before.time_s
        assert after.is_keyframe or after.time_s - before.time_s <= 2 * before.length_s


def run(*command: str) -> tuple[str, str]:
    """Run an FFmpeg program, which must succeed; return its standard output and error."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.measurement
def test_ffprobe(portal: Portal) -> None:
    shown, complaints = run(
        *("ffprobe", "-v", "warning", "-of", "json", "-read_intervals", "%+3", "-show_streams", "-show_packets"),
        f"{portal.url}/stream.mp4",
    )
    assert complaints == ""
    report: dict[str, Any] = json.loads(shown)
    (stream,) = report["streams"]
    assert {
        "codec_name": "h264",
        "profile": "Constrained Baseline",
        "width": 640,
        "height": 360,
        "color_range": "pc",
        "color_space": "smpte170m",
        "has_b_frames": 0,
    }.items() <= stream.items()
    times = [float(packet["pts_time"]) for packet in report["packets"]]
    assert "K" in report["packets"][0]["flags"]
    assert len(times) > 40
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > 0
    assert statistics.median(gaps) == pytest.approx(FRAME_S, rel=0.2)


@pytest.mark.parametrize(
    "how", [("-fps_mode", "passthrough", "-f", "null"), ("-c", "copy", "-f", "mp4", "-y")], ids=["decode", "copy"]
)
def test_ffmpeg_without_warnings(portal: Portal, tmp_path: Path, how: tuple[str, ...]) -> None:
    target = str(tmp_path / "copy.mp4") if "mp4" in how else "-"
    _, complaints = run(
        "ffmpeg", "-nostdin", "-v", "warning", "-t", "2", "-i", f"{portal.url}/stream.mp4", *how, target
    )
    assert complaints == ""
    wait_for_status(portal, viewers=0)
    if target != "-":
        shown, complaints = run("ffprobe", "-v", "warning", "-of", "json", "-show_streams", "-count_packets", target)
        assert complaints == ""
        assert 25 <= int(json.loads(shown)["streams"][0]["nb_read_packets"]) <= 41


def test_response_headers(portal: Portal) -> None:
    answer = ask(portal, "/stream.mp4", method="HEAD")
    with Fmp4Client(portal) as viewer:
        for headers in (answer.headers, viewer.headers):
            assert headers["Content-Type"] == "video/mp4"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Accel-Buffering"] == "no"
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert headers["Access-Control-Expose-Headers"] == "X-Timestamp-Zero"
            assert headers["Content-Length"] is None
            assert headers["Transfer-Encoding"] is None


def test_clients_start_with_keyframe(portal: Portal, capsys: pytest.CaptureFixture[str]) -> None:
    with Fmp4Client(portal) as first:
        assert first.read_header() == SIZE
        mine = [first.fragment() for _ in range(25)]
        with Fmp4Client(portal) as later:
            assert later.read_header() == SIZE
            theirs = [later.fragment() for _ in range(20)]
            began_s = theirs[0].came_s - later.asked_s
            while mine[-1].number < theirs[-1].number:
                mine.append(first.fragment())
        assert theirs[0].is_keyframe
        check_sequence(mine)
        check_sequence(theirs)
        by_number = {fragment.number: fragment for fragment in mine}
        for fragment in theirs:
            assert by_number[fragment.number].time_s == fragment.time_s
        ages = [fragment.came_s - first.zero_s - fragment.time_s for fragment in mine[5:]]
    with capsys.disabled():
        age_ms = 1000 * statistics.median(ages)
        print(f"\n/stream.mp4: begun after {1000 * began_s:.0f} ms; age at arrival {age_ms:.1f} ms")
    assert began_s < KEYFRAME_S / 2
    assert 0 < statistics.median(ages) < 0.5


def test_encoder_runs_only_with_clients(portal: Portal) -> None:
    with PictureViewer(portal) as pictures:
        pictures.next()
        wait_for_status(portal, viewers=1, h264=None)
        with Fmp4Client(portal) as viewer:
            viewer.read_header()
            for _ in range(5):
                viewer.fragment()
            status = wait_for_status(portal, viewers=2)
            assert (status["h264"]["width"], status["h264"]["height"]) == SIZE
            assert status["h264"]["encoder"] == "libx264"
            assert status["h264"]["encoded"] >= 5
            assert status["h264"]["bitrate"] > 0
            assert [(lease["kind"], lease["count"]) for lease in status["held_by"]] == [("stream", 2)]
            encoded = status["pictures_encoded"]
            pictures.next()
        status = wait_for_status(portal, viewers=1, h264=None)
        assert status["pictures_encoded"] >= encoded
        pictures.next()
    status = wait_for_status(portal, viewers=0)
    with Fmp4Client(portal) as viewer:
        viewer.read_header()
        viewer.fragment()
        encoded = status_of(portal)["pictures_encoded"]
        for _ in range(10):
            viewer.fragment()
        assert status_of(portal)["pictures_encoded"] == encoded  # no JPEG is encoded without MJPEG clients


def test_slow_client_skips_to_keyframe(start_portal: Start) -> None:
    portal = start_portal("--width", "640", "--height", "360", "--fps", "20", "--bitrate", "50000000")
    with Fmp4Client(portal, receive_bytes=4096) as slow, Fmp4Client(portal) as quick:
        slow.read_header()
        seen = [slow.fragment()]
        quick.read_header()
        check_sequence([quick.fragment() for _ in range(70)])
        while True:
            seen.append(slow.fragment())
            if seen[-1].number != seen[-2].number + 1:
                break
            assert seen[-1].time_s - seen[0].time_s < 3, "the client was not slow"
        assert seen[-1].is_keyframe
        assert seen[-1].number - seen[-2].number > 20
        newest = quick.fragment()
        while newest.came_s < seen[-1].came_s:
            newest = quick.fragment()
        assert newest.time_s - seen[-1].time_s < TIMEOUT_FACTOR


def test_clients_stay_connected_during_recovery(portal: Portal, shared_faults: Path) -> None:
    with Fmp4Client(portal) as viewer:
        viewer.read_header()
        before = [viewer.fragment() for _ in range(10)]
        shared_faults.write_text("hang-once")
        portal.wait_for_log("restarting the stream")
        shared_faults.write_text("")
        portal.wait_for_log("Camera recovered")
        fragments = [*before]
        while len(fragments) < 80:
            fragments.append(viewer.fragment())
        check_sequence(fragments)
        gap = max(pairwise(fragments), key=lambda pair: pair[1].time_s - pair[0].time_s)
        assert gap[1].time_s - gap[0].time_s > 0.9
        assert gap[1].is_keyframe
        assert status_of(portal)["viewers"] == 1


def test_size_change_ends_response(portal: Portal) -> None:
    with Fmp4Client(portal) as viewer:
        assert viewer.read_header() == SIZE
        viewer.fragment()
        assert post(portal, "/v1/camera/stream", {"width": 320, "height": 180}).status == 200
        viewer.wait_for_end()
    with Fmp4Client(portal) as viewer:
        assert viewer.read_header() == (320, 180)
        check_sequence([viewer.fragment() for _ in range(10)])


def test_fmp4_clients_count_toward_max_clients(start_portal: Start) -> None:
    portal = start_portal("--max-clients", "2", *FLAGS)
    with Fmp4Client(portal) as viewer, PictureViewer(portal) as pictures:
        viewer.read_header()
        pictures.next()
        assert ask(portal, "/stream.mp4").status == 503
        assert ask(portal, "/stream.mjpg").status == 503
    wait_for_status(portal, viewers=0)
    with Fmp4Client(portal) as viewer:
        viewer.read_header()
        viewer.fragment()


def test_without_pyav_only_fmp4_is_unavailable(start_portal: Start, tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('no PyAV in this test')")
    portal = start_portal(*FLAGS, environment={"PYTHONPATH": str(tmp_path)})
    for method in ("GET", "HEAD"):
        answer = ask(portal, "/stream.mp4", method=method)
        assert answer.status == 409
    assert "python3-av" in ask(portal, "/stream.mp4").detail
    with PictureViewer(portal) as pictures:
        pictures.next()
    assert status_of(portal)["viewers"] <= 1
    assert "Traceback" not in portal.log


def test_pyav_is_loaded_only_for_fmp4(start_portal: Start) -> None:
    portal = start_portal(*FLAGS)

    def has_pyav() -> bool:
        return "libavcodec" in Path(f"/proc/{portal.pid}/maps").read_text()

    with PictureViewer(portal) as pictures:
        pictures.next()
        assert not has_pyav()
        with Fmp4Client(portal) as viewer:
            viewer.read_header()
            assert has_pyav()
