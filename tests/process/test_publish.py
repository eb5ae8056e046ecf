"""Publishing to real RTSP servers (GStreamer, FFmpeg) that are late, killed, hang or reject. Times are printed."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, post, status_of, wait_for_status
from tests.support.publishing_server import PublishingServer
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
Until = Callable[..., None]
SERVER = Path(__file__).resolve().parents[1] / "support/rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's, which has gi
SMALL = ("--width", "640", "--height", "360", "--fps", "20", "--bitrate", "1000000")
BACK_S = 5.0 * TIMEOUT_FACTOR  # the documented limit for publishing again after the server returns
END_S = 2 * 3.0 * TIMEOUT_FACTOR  # twice the documented limit for the exit


class Server:
    """A server process and its output lines, each with its time of arrival (monotonic clock)."""

    def __init__(self, *argv: str) -> None:
        self._grown = threading.Condition()  # guards _lines
        self._lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, name="server output", daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, *, after_s: float = 0.0) -> tuple[float, re.Match[str]]:
        """Return the first line with `pattern` after that time, and its time of arrival."""
        deadline_s = time.monotonic() + PATIENCE_S
        with self._grown:
            while True:
                for came_s, line in self._lines:
                    if came_s > after_s and (match := re.search(pattern, line)):
                        return came_s, match
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"no line with {pattern!r}: {self._lines[-20:]}"
                self._grown.wait(left_s)

    def lines(self) -> list[str]:
        with self._grown:
            return [line for _, line in self._lines]

    def frames(self) -> int:
        with self._grown:
            return sum(line.startswith("frame ") for _, line in self._lines)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self._lines.append((time.monotonic(), line.strip()))
                self._grown.notify_all()


@pytest.fixture(scope="module")
def _has_gstreamer() -> None:
    """Also makes GStreamer's list of plugins, which takes the first program of a fresh machine a while."""
    versions = "gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')"
    look = f"import gi; {versions}; from gi.repository import Gst, GstRtspServer; Gst.init(None)"
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", look], check=True, capture_output=True, timeout=RUN_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0 and python3-gi")


@pytest.fixture
def serve(_has_gstreamer: None, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`serve(port=0, user, password, method)` starts GStreamer's server and waits until it listens."""
    started: list[Server] = []

    def start(port: int = 0, *credentials: str) -> Server:
        server = Server(SYSTEM_PYTHON, str(SERVER), str(port), str(tmp_path / "published.h264"), *credentials)
        started.append(server)
        server.wait_for(r"^listening on \d+")
        return server

    yield start
    for server in started:
        server.end()


def port_of(server: Server) -> int:
    return int(server.wait_for(r"^listening on (\d+)")[1][1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def url_of(port: int, path: str = "/cam", credentials: str = "") -> str:
    return f"rtsp://{credentials}127.0.0.1:{port}{path}"


def wait_for_publishing(portal: Portal, state: str, until: Until) -> dict[str, object]:
    until(lambda: status_of(portal)["publishing"]["state"] == state, f"state {state}")
    publishing: dict[str, object] = status_of(portal)["publishing"]
    return publishing


def show(line: str) -> None:
    print(f"figure: {line}", file=sys.stderr)


@contextmanager
def watching(portal: Portal) -> Iterator[list[float]]:
    """An MJPEG client: the gaps between its frames, as they arrive."""
    gaps: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        with StreamClient(portal) as viewer:
            last_s = viewer.next().came_s
            while not is_over.is_set():
                part = viewer.next()
                assert not part.is_placeholder
                gaps.append(part.came_s - last_s)
                last_s = part.came_s

    thread = threading.Thread(target=watch, name="mjpeg client", daemon=True)
    thread.start()
    yield gaps
    is_over.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_reconnects_to_killed_server(start_portal: Start, serve: Callable[..., Server], wait_until: Until) -> None:
    server = serve()
    port = port_of(server)
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port))
    server.wait_for(r"^frame 20$")
    status = status_of(portal)
    assert status["streaming"] is True
    assert (status["publishing"]["state"], status["publishing"]["url"]) == ("publishing", url_of(port))
    assert [(one["kind"], one["count"]) for one in status["held_by"]] == [("publish", 1)]
    for number in (1, 2):
        server.end()
        publishing = wait_for_publishing(portal, "failed", wait_until)
        assert publishing["last_error"] in (
            "the server closed the connection",
            "connection refused: no server is listening",
        )
        # Long enough for the pauses between attempts to reach their maximum.
        portal.wait_for_log(r"connection refused.*; retrying", nth=number)
        gone_s = time.monotonic()
        wait_until(lambda gone_s=gone_s: time.monotonic() - gone_s > 6, "some seconds without a server")
        server = serve(port)
        began_s, _ = server.wait_for("^listening on")
        came_s, _ = server.wait_for(r"^frame 1$")
        show(f"server back after 6 s: stream after {came_s - began_s:.2f} s")
        assert came_s - began_s < BACK_S
        server.wait_for(r"^frame 20$")
        publishing = wait_for_publishing(portal, "publishing", wait_until)
        assert publishing["reconnects"] == number
    portal.wait_for_log(r"Publishing 640x360 to rtsp://127.0.0.1:\d+/cam after \d+ failures? in \d+ s", nth=2)
    assert portal.stop() == 0
    server.wait_for("^gone$")
    assert len(re.findall("WARNING", portal.log)) <= 4  # two per disconnection: closed, refused


def test_late_server(start_portal: Start, serve: Callable[..., Server], wait_until: Until, tmp_path: Path) -> None:
    port = free_port()
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port))
    publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == "connection refused: no server is listening"
    assert publishing["reconnects"] == 0
    assert "Encoding H.264" not in portal.log  # the encoder does not run without a sink
    server = serve(port)
    began_s, _ = server.wait_for("^listening on")
    came_s, _ = server.wait_for(r"^frame 1$")
    show(f"late server: stream after {came_s - began_s:.2f} s")
    assert came_s - began_s < BACK_S
    server.wait_for(r"^frame 30$")
    assert portal.stop() == 0
    server.wait_for("^gone$")
    frames = server.frames()
    probe = ["ffprobe", "-v", "error", "-count_frames", "-of", "json", "-show_entries", "stream=nb_read_frames,width"]
    shown = subprocess.check_output([*probe, str(tmp_path / "published.h264")], timeout=RUN_LIMIT_S)
    found = json.loads(shown)["streams"][0]
    assert found["width"] == 640
    # The server prints a frame before it writes it; the last one may be cut by the end.
    assert int(found["nb_read_frames"]) in (frames - 1, frames)


def test_hanging_server_is_detected_without_effect_on_clients(
    start_portal: Start, serve: Callable[..., Server], wait_until: Until
) -> None:
    server = serve()
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port_of(server)))
    server.wait_for(r"^frame 20$")
    with watching(portal) as gaps:
        wait_until(lambda: len(gaps) >= 20, "pictures")
        server.process.send_signal(signal.SIGSTOP)
        began_s = time.monotonic()
        publishing = wait_for_publishing(portal, "failed", wait_until)
        detected_s = time.monotonic() - began_s
        show(f"hanging server: detected after {detected_s:.2f} s")
        assert publishing["last_error"] == "the server no longer responds"
        assert detected_s < 10 * TIMEOUT_FACTOR
        portal.wait_for_log(r"no response to OPTIONS; retrying")
        server.process.send_signal(signal.SIGCONT)
        began_s = time.monotonic()
        came_s, _ = server.wait_for("^frame ", after_s=began_s + 0.5)  # earlier ones were buffered in the kernel
        wait_for_publishing(portal, "publishing", wait_until)
        show(f"resumed server: stream after {came_s - began_s:.2f} s")
        assert came_s - began_s < BACK_S
    show(f"longest gap of an MJPEG client: {1000 * max(gaps):.0f} ms")
    assert max(gaps) < detected_s / 2  # no other client waited for it
    assert status_of(portal)["restarts"] == 0


def test_exit_with_hanging_server(start_portal: Start, serve: Callable[..., Server], wait_until: Until) -> None:
    server = serve()
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port_of(server)))
    server.wait_for(r"^frame 20$")
    server.process.send_signal(signal.SIGSTOP)
    began_s = time.monotonic()
    assert portal.stop() == 0
    took_s = time.monotonic() - began_s
    show(f"SIGTERM with hanging server: exit after {took_s:.2f} s")
    assert took_s < END_S
    assert "Publishing stopped" in portal.log


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_passwords(start_portal: Start, serve: Callable[..., Server], wait_until: Until, method: str) -> None:
    server = serve(0, "camera", "open sesame", method)
    port = port_of(server)
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port, credentials="camera:guessed@"))
    publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == "user or password rejected (401)"
    assert publishing["url"] == url_of(port)
    assert portal.stop() == 0
    assert "guessed" not in portal.log
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port))
    publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == "the server requires a user and password (401), but the URL has none"
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port, credentials="camera:open%20sesame@"))
    server.wait_for(r"^frame 20$")
    assert "sesame" not in ask(portal, "/v1/camera/status").body.decode()
    assert portal.stop() == 0
    assert "sesame" not in portal.log


def test_unknown_path(start_portal: Start, serve: Callable[..., Server], wait_until: Until) -> None:
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port_of(serve()), "/other?token=secret"))
    publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == "no such path on the server (404)"
    assert str(publishing["url"]).endswith("/other")
    assert "secret" not in portal.log


def test_token_that_the_server_does_not_accept(
    start_portal: Start, serve: Callable[..., Server], wait_until: Until
) -> None:
    """No password was sent, so none is blamed; stop clears the error."""
    port = port_of(serve(0, "camera", "open sesame", "basic"))
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port, "/cam?token=secret"))
    publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == (
        "access denied (401): the server did not accept the query of the URL, which has no user and password"
    )
    assert "secret" not in portal.log
    post(portal, "/v1/streaming/stop", {})
    publishing = status_of(portal)["publishing"]
    assert (publishing["state"], publishing["last_error"]) == ("off", None)


def test_seed_commands(start_portal: Start, serve: Callable[..., Server], wait_until: Until) -> None:
    """Start and stop publishing with curl; the camera is open only in between."""
    server = serve()
    flags = ("--rtsp-url", url_of(port_of(server)), "--no-rtsp-autostart", "--linger", "0")
    portal = start_portal(*SMALL, *flags)
    status = status_of(portal)
    assert (status["streaming"], status["publishing"]["state"], status["state"]) == (False, "off", "closed")
    threads = len(portal.threads())
    for first, prefix in ((True, ""), (False, "/v1")):
        requested_s = time.monotonic()
        said = subprocess.check_output(["curl", "-sS", "-X", "POST", f"{portal.url}{prefix}/streaming/start"])
        assert json.loads(said) == {"status": "ok", "streaming": True}
        came_s, _ = server.wait_for(r"^frame 1$", after_s=requested_s)
        if first:
            show(f"started with the camera closed: first frame after {came_s - requested_s:.2f} s")
        server.wait_for(r"^frame 20$", after_s=requested_s)
        assert post(portal, "/streaming/start", {}).json == {"status": "ok", "streaming": True}
        status = wait_for_status(portal, streaming=True)
        assert status["publishing"]["state"] == "publishing"
        stopped_s = time.monotonic()
        said = subprocess.check_output(["curl", "-sS", "-X", "POST", f"{portal.url}{prefix}/streaming/stop"])
        assert json.loads(said) == {"status": "ok", "streaming": False}
        server.wait_for("^gone$", after_s=stopped_s)
        status = wait_for_status(portal, streaming=False, state="closed")
        assert (status["publishing"]["state"], status["held_by"]) == ("off", [])
        wait_until(lambda: len(portal.threads()) <= threads, "end of the threads")
    assert post(portal, "/v1/streaming/stop", {}).json == {"status": "ok", "streaming": False}
    assert status["publishing"]["last_error"] is None


def test_start_without_address_is_409(portal: Portal) -> None:
    answer = post(portal, "/v1/streaming/start", {})
    assert answer.status == 409
    assert "rtsp_url" in answer.detail
    assert post(portal, "/v1/streaming/stop", {}).json == {"status": "ok", "streaming": False}
    assert post(portal, "/v1/streaming/start", {"to": "me"}).status == 400
    assert status_of(portal)["publishing"] is None
    assert "libavcodec" not in Path(f"/proc/{portal.pid}/maps").read_text()  # PyAV is not loaded


def test_disabled_camera_is_an_error(start_portal: Start) -> None:
    portal = start_portal("--rtsp-url", url_of(free_port()), environment={"CAMERA_ENABLED": "0"})
    answer = post(portal, "/v1/streaming/start", {})
    assert answer.status == 503
    assert "Retry-After" not in answer.headers
    assert "disabled" in answer.detail
    assert status_of(portal)["streaming"] is False
    assert portal.stop() == 0


def test_camera_recovery_while_publishing(
    start_portal: Start, serve: Callable[..., Server], wait_until: Until, tmp_path: Path
) -> None:
    server = serve()
    faults = tmp_path / "faults"
    faults.write_text("")
    flags = ("--pattern-faults", str(faults), "--watchdog-timeout", "1", "--rtsp-url", url_of(port_of(server)))
    portal = start_portal(*SMALL, *flags)
    server.wait_for(r"^frame 20$")
    faults.write_text("hang-once")
    portal.wait_for_log("restarting the stream")  # too short to poll for
    faults.write_text("")
    portal.wait_for_log("Camera recovered")
    server.wait_for("^frame ", after_s=time.monotonic())
    publishing = wait_for_publishing(portal, "publishing", wait_until)
    assert (publishing["reconnects"], publishing["last_error"]) == (0, None)


def test_camera_that_hangs_while_publishing(
    start_portal: Start, serve: Callable[..., Server], wait_until: Until, tmp_path: Path
) -> None:
    """The state says so, and the server keeps the session."""
    server = serve()
    faults = tmp_path / "faults"
    faults.write_text("hang")
    flags = ("--pattern-faults", str(faults), "--watchdog-timeout", "0", "--rtsp-url", url_of(port_of(server)))
    portal = start_portal(*SMALL, *flags)
    for _ in range(2):
        publishing = wait_for_publishing(portal, "waiting", wait_until)
        assert publishing["last_error"] == "the camera delivers no frames"
        began_s = time.monotonic()
        faults.write_text("")
        came_s, _ = server.wait_for("^frame ", after_s=began_s)
        show(f"camera that delivers frames again: stream after {came_s - began_s:.2f} s")
        publishing = wait_for_publishing(portal, "publishing", wait_until)
        assert (publishing["reconnects"], publishing["last_error"]) == (0, None)
        faults.write_text("hang")
    assert "gone" not in server.lines()


def test_two_portals_on_one_path(start_portal: Start, wait_until: Until) -> None:
    """Each ends the other's stream, as with MediaMTX."""
    with closing(PublishingServer(is_overriding=True)) as server:
        portals = [start_portal(*SMALL, "--rtsp-url", url_of(server.port)) for _ in range(2)]

        def has_named_the_other(portal: Portal) -> bool:
            return "another publisher uses this path" in str(status_of(portal)["publishing"]["last_error"])

        for portal in portals:
            wait_until(lambda portal=portal: has_named_the_other(portal), "the reason")
        records = server.count("RECORD")
        assert 6 <= records <= 12  # then they leave each other some time
        for portal in portals:
            portal.wait_for_log("another publisher uses this path: .*; retrying")


def test_ffmpeg_server(start_portal: Start, wait_until: Until, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    port = free_port()
    portal = start_portal(*SMALL, "--rtsp-url", url_of(port))
    wait_for_publishing(portal, "failed", wait_until)
    film = tmp_path / "film.mp4"
    argv = [
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        "-rtsp_flags",
        "listen",
        "-timeout",
        str(int(PATIENCE_S)),
        "-i",
        url_of(port),
    ]
    server = Server(*argv, "-c", "copy", "-frames:v", "60", str(film))
    try:
        assert server.process.wait(PATIENCE_S) == 0
    finally:
        server.end()
    probe = ["ffprobe", "-v", "error", "-count_frames", "-of", "json", "-show_entries", "stream=nb_read_frames,width"]
    found = json.loads(subprocess.check_output([*probe, str(film)], timeout=RUN_LIMIT_S))["streams"][0]
    assert (found["width"], int(found["nb_read_frames"])) == (640, 60)
    wait_for_publishing(portal, "failed", wait_until)  # FFmpeg has its 60 frames and disconnects


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "no response to OPTIONS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server speaks HTTP, not RTSP"),
        (b"\0" * 20_000, "invalid RTSP response"),
    ],
    ids=["mute", "http", "noise"],
)
def test_invalid_server_is_reported(start_portal: Start, wait_until: Until, says: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        portal = start_portal(*SMALL, "--rtsp-url", url_of(listener.getsockname()[1]))
        listener.settimeout(PATIENCE_S)
        caller, _ = listener.accept()
        with caller:
            caller.sendall(says)
            publishing = wait_for_publishing(portal, "failed", wait_until)
    assert publishing["last_error"] == reason
    assert portal.stop() == 0
