"""Tests of a portal with an external source: another portal, an RTSP server, a file."""

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, decode, port_of, post, size_of, status_of, wait_for_status
from tests.support.mjpeg_server import WITH_THUMBNAIL, Stub, paced
from tests.support.motion_pictures import grey_rgb, number_of, smooth_rgb, write_movie
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
SOURCE = ("--width", "320", "--height", "180", "--fps", "20")
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, which has gi
RTSP_SOURCE = Path(__file__).resolve().parents[1] / "support/rtsp_source.py"
BACK_S = 8.0 * TIMEOUT_FACTOR  # limit for showing a source again after it has restarted


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def source_url(source: Portal, path: str = "/stream.mjpg", credentials: str = "") -> str:
    return f"http://{credentials}127.0.0.1:{port_of(source)}{path}"


def test_jpegs_are_passed_through(start_portal: Start) -> None:
    source = start_portal(*SOURCE)
    portal = start_portal(camera=source_url(source))
    with StreamClient(source) as there, StreamClient(portal) as here:
        jpegs = {there.next().jpeg for _ in range(40)}
        shown = [here.next().jpeg for _ in range(40)]
        jpegs |= {there.next().jpeg for _ in range(60)}
    assert sum(jpeg in jpegs for jpeg in shown) > 10
    status = wait_for_status(portal, viewers=0)
    assert (status["backend"], status["width"], status["height"], status["pixel_format"]) == ("url", 320, 180, "MJPEG")
    assert status["camera"] == source_url(source)


def test_thumbnails_do_not_look_like_images(start_portal: Start) -> None:
    with contextlib.closing(Stub(paced(1000, 0.05, WITH_THUMBNAIL))) as source:
        portal = start_portal(camera=source.url)
        with StreamClient(portal) as viewer:
            shown = [viewer.next().jpeg for _ in range(10)]
        assert portal.stop() == 0
    assert len(shown[-1]) == len(WITH_THUMBNAIL), "passed through"
    assert np.array_equal(decode(shown[-1]), decode(WITH_THUMBNAIL))
    assert all((jpeg.rfind(b"\xff\xd8"), jpeg.find(b"\xff\xd9")) == (0, len(jpeg) - 2) for jpeg in shown)


def test_snapshots_sizes_and_unsupported_requests(start_portal: Start) -> None:
    source = start_portal(*SOURCE)
    portal = start_portal("--width", "160", "--height", "160", camera=source_url(source))
    assert size_of(ask(portal, "/snapshot.jpg").body) == (160, 90)
    assert size_of(ask(portal, "/snapshot.jpg?full=1").body) == (320, 180)
    assert size_of(ask(portal, "/snapshot.jpg?width=240").body)[0] == 240
    assert size_of(ask(portal, "/snapshot.jpg?width=2000").body)[0] == 320
    assert ask(portal, "/snapshot.jpg?format=dng").status == 409
    flip = post(portal, "/v1/camera/transform", {"hflip": True})
    assert (flip.status, flip.detail) == (409, "hflip: this camera cannot mirror or rotate the image")
    for name, values in {
        "manual_exposure": {"exposure_us": 10000},
        "exposure_value": {"ev": 1.0},
        "noise_reduction": {"mode": "fast"},
        "ae_constraint_mode": {"mode": "shadows"},
        "ae_exposure_mode": {"mode": "long"},
        "awb_mode": {"mode": "auto"},
        "autofocus_trigger": {},
    }.items():
        assert post(portal, f"/v1/camera/{name}", values).status == 409, name
    rate = post(portal, "/v1/camera/framerate", {"framerate": 10}).json
    assert (rate["applied_framerate"], rate["max_framerate_for_resolution"], rate["clamped"]) == (10.0, None, False)
    size = post(portal, "/v1/camera/resolution", {"width": 80, "height": 80}).json
    assert (size["status"], size["width"], size["height"]) == ("ok", 80, 44)
    assert ask(portal, "/v1/camera/controls").status == 200
    assert ask(portal, "/metrics").status == 200


def test_h264_of_another_portal(start_portal: Start) -> None:
    source = start_portal(*SOURCE)
    portal = start_portal(camera=source_url(source, "/stream.mp4"))
    with StreamClient(portal) as viewer:
        parts = [viewer.next() for _ in range(20)]
    assert {size_of(part.jpeg) for part in parts} == {(320, 180)}
    assert len({part.jpeg for part in parts}) > 10, "it moves"
    assert status_of(portal)["pixel_format"] == "YUV420"
    # Passing through another portal keeps the colours; the pattern moves, but its mean hardly changes.
    here, there = (decode(ask(each, "/snapshot.jpg").body).mean((0, 1)) for each in (portal, source))
    assert abs(here - there).max() < 6


def test_single_jpeg_is_polled(start_portal: Start) -> None:
    source = start_portal(*SOURCE)
    portal = start_portal(camera=source_url(source, "/snapshot.jpg?width=240"))
    with StreamClient(portal) as viewer:
        parts = [viewer.next() for _ in range(40)]
    assert {size_of(part.jpeg)[0] for part in parts} == {240}, "no placeholder"
    assert len({part.jpeg for part in parts}) > 20, "it moves"
    assert wait_for_status(portal, viewers=0)["restarts"] == 0
    assert "disconnected:" not in portal.log


def test_clients_stay_connected_while_source_restarts(start_portal: Start) -> None:
    port = str(free_port())
    source = start_portal("--port", port, *SOURCE)
    portal = start_portal(camera=source_url(source))
    with StreamClient(portal) as viewer:
        assert not viewer.next().is_placeholder
        source.stop()
        viewer.next_where(is_placeholder=True)
        status = status_of(portal)
        assert (status["state"], status["available"], status["restarts"]) == ("recovering", False, 1)
        assert "127.0.0.1" in status["last_error"]
        snapshot = ask(portal, "/snapshot.jpg")
        assert snapshot.status == 503
        assert re.search(r"Connection refused|ended|error", snapshot.detail)
        assert ask(portal, "/health").status == 503
        back = start_portal("--port", port, "--width", "640", "--height", "360", "--fps", "20")
        back.wait_for_log("Listening")
        back_s = time.monotonic()
        part = viewer.next_where(is_placeholder=False)
        assert part.came_s - back_s < BACK_S
        assert size_of(part.jpeg) == (640, 360)
        status = wait_for_status(portal, state="open")
        assert (status["width"], status["height"], status["opens"]) == (640, 360, 1)
        assert status["available"]
    assert portal.stop() == 0


def test_source_that_starts_late(start_portal: Start) -> None:
    port = str(free_port())
    portal = start_portal(camera=f"http://user:s3cr3t@127.0.0.1:{port}/stream.mjpg")
    snapshot = ask(portal, "/snapshot.jpg")
    assert snapshot.status == 503
    assert snapshot.headers["Retry-After"]
    assert f"http://127.0.0.1:{port}/stream.mjpg: Connection refused" in snapshot.detail
    with StreamClient(portal) as viewer:
        assert viewer.next().is_placeholder
        start_portal("--port", port, *SOURCE)
        assert size_of(viewer.next_where(is_placeholder=False).jpeg) == (320, 180)
    assert "s3cr3t" not in portal.log + str(status_of(portal)) + ask(portal, "/metrics").body.decode()


def test_wrong_path_and_wrong_key(start_portal: Start) -> None:
    source = start_portal("--api-key", "s3cr3t", *SOURCE)
    wrong_path = start_portal(camera=source_url(source, "/nothing", "x:s3cr3t@"))
    assert "Server returned 404 Not Found" in ask(wrong_path, "/snapshot.jpg").detail
    wrong_key = start_portal(camera=source_url(source, credentials="x:guess@"))
    assert "Server returned 401 Unauthorized" in ask(wrong_key, "/snapshot.jpg").detail
    right = start_portal(camera=source_url(source, credentials="x:s3cr3t@"))
    assert size_of(ask(right, "/snapshot.jpg").body) == (320, 180)
    assert "s3cr3t" not in right.log + wrong_path.log


def test_exit_with_hanging_source(start_portal: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        portal = start_portal(camera=f"http://127.0.0.1:{listener.getsockname()[1]}/")
        asked = threading.Thread(target=ask, args=[portal, "/snapshot.jpg"])
        asked.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            began_s = time.monotonic()
            assert portal.stop() == 0
            assert time.monotonic() - began_s < 6 * TIMEOUT_FACTOR
            asked.join(PATIENCE_S)


@pytest.mark.parametrize("hangs", [True, False])
def test_exit_with_thread_blocked_in_ffmpeg(start_portal: Start, tmp_path: Path, hangs: bool) -> None:
    """If the blocked thread returned during the shutdown of the interpreter, the process could crash with SIGSEGV."""
    telling = "import atexit\natexit.register(print, 'taken apart', flush=True)\ndef see(*_): pass\n"
    (tmp_path / "telling.py").write_text(telling)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/"
        portal = start_portal("--hook", "telling:see", camera=address, environment={"PYTHONPATH": str(tmp_path)})
        portal.wait_for_log("Listening")
        if not hangs:
            assert portal.stop() == 0
            assert "taken apart" in portal.log
            return
        asked = threading.Thread(target=ask, args=[portal, "/snapshot.jpg"])
        asked.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            assert portal.stop() == 0
        asked.join(PATIENCE_S)
    assert "taken apart" not in portal.log


# --- files --------------------------------------------------------------------------------------------------------


def test_file_loops(start_portal: Start, tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "clip.mp4", [grey_rgb(n, (128, 96)) for n in range(10)], 20)
    portal = start_portal(camera=str(movie))
    with StreamClient(portal) as viewer:
        parts = [viewer.next() for _ in range(60)]
    numbers = [number_of(decode(part.jpeg)[..., 0]) for part in parts]
    assert set(numbers) == set(range(10))
    assert numbers.count(0) >= 3
    took_s = parts[-1].came_s - parts[0].came_s
    assert took_s >= 59 * 0.05 * 0.9
    assert portal.stop() == 0


def test_file_as_camera_id(start_portal: Start, tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "clip.mp4", [smooth_rgb((128, 96))] * 5, 20)
    portal = start_portal(camera="3", environment={"cam3_id": str(movie)})
    assert size_of(ask(portal, "/snapshot.jpg").body) == (128, 96)


@pytest.mark.parametrize("name", ["none.mp4", "/dev/video-none"])
def test_missing_file_or_device_exits(start_portal: Start, tmp_path: Path, name: str) -> None:
    portal = start_portal(camera=name if name.startswith("/") else str(tmp_path / name))
    assert portal.wait() == 66
    assert f"{name} is missing" in portal.log


def test_invalid_url_exits(start_portal: Start) -> None:
    portal = start_portal(camera="rtsp://user:s3cr3t@/cam")
    assert portal.wait() == 2
    assert "a URL has a host" in portal.log
    assert "s3cr3t" not in portal.log


def test_check_hides_password(start_portal: Start) -> None:
    portal = start_portal("--check", camera="rtsp://user:s3cr3t@127.0.0.1/cam")
    assert portal.wait() == 0
    assert "camera = rtsp://***@127.0.0.1/cam" in portal.log
    assert "s3cr3t" not in portal.log


# --- RTSP ---------------------------------------------------------------------------------------------------------


class RtspSource:
    """GStreamer's RTSP server on `port`."""

    def __init__(self, movie: Path, port: int, *credentials: str) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(RTSP_SOURCE), str(port), str(movie), *credentials],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = re.fullmatch(r"listening on (\d+)\n", line)
        assert match is not None, line
        self.port = int(match[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture(scope="module")
def _has_gstreamer() -> None:
    look = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", look], check=True, capture_output=True, timeout=RUN_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0 and python3-gi")


@pytest.fixture
def serve(_has_gstreamer: None, tmp_path: Path) -> Iterator[Callable[..., RtspSource]]:
    # Brighter than a placeholder, and large enough to show one.
    movie = write_movie(
        tmp_path / "long.mp4", [grey_rgb(3 + n // 20 % 12, (320, 180)) for n in range(1200)], 20, keyframes=20
    )
    started: list[RtspSource] = []

    def start(port: int = 0, *credentials: str) -> RtspSource:
        started.append(RtspSource(movie, port, *credentials))
        return started[-1]

    yield start
    for source in started:
        source.kill()


def test_rtsp_server_restarts(start_portal: Start, serve: Callable[..., RtspSource]) -> None:
    source = serve(0, "user", "s3cr3t")
    portal = start_portal("--fps", "30", camera=f"rtsp://user:s3cr3t@127.0.0.1:{source.port}/cam")
    with StreamClient(portal) as viewer:
        parts = [viewer.next() for _ in range(30)]
        assert not any(part.is_placeholder for part in parts)
        assert {size_of(part.jpeg) for part in parts} == {(320, 180)}
        source.kill()
        viewer.next_where(is_placeholder=True)
        serve(source.port, "user", "s3cr3t")
        back_s = time.monotonic()
        assert viewer.next_where(is_placeholder=False).came_s - back_s < BACK_S
    status = status_of(portal)
    assert status["camera"] == f"rtsp://127.0.0.1:{source.port}/cam"
    assert portal.stop() == 0
    assert "s3cr3t" not in portal.log


def test_rtsp_with_wrong_path(start_portal: Start, serve: Callable[..., RtspSource]) -> None:
    portal = start_portal(camera=f"rtsp://127.0.0.1:{serve().port}/nothing")
    assert "Server returned 404 Not Found" in ask(portal, "/snapshot.jpg").detail
