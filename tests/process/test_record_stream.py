"""tools/record_stream.py with a running portal and with streams of other servers."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from softcam.imaging import jpeg
from tests.conftest import PROJECT, Portal
from tests.support.background import eventually
from tests.support.fakes import make_frame
from tests.support.http_client import status_of
from tests.support.motion_pictures import write_unknown
from tests.support.timeouts import PATIENCE_S

LIMIT_S = 3 * PATIENCE_S
SMALL = ("--width", "320", "--height", "180")
Start = Callable[..., Portal]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "tools/record_stream.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def probed(path: Path) -> dict[str, Any]:
    """Return ffprobe's description of a file, which it must decode without warnings."""
    show = ("-count_frames", "-show_entries", "stream=codec_name,width,height,nb_read_frames,duration")
    found = subprocess.run(
        ["ffprobe", "-v", "warning", *show, "-of", "json", str(path)], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert (found.returncode, found.stderr) == (0, "")
    (stream,) = json.loads(found.stdout)["streams"]
    assert isinstance(stream, dict)
    return stream


def frames_played(path: Path) -> int:
    """The frames that FFmpeg plays of a file that was cut off."""
    decode = ("-v", "quiet", "-i", str(path), "-f", "null", "-progress", "-", "-")
    played = subprocess.run(["ffmpeg", *decode], capture_output=True, text=True, timeout=LIMIT_S)
    return int(re.findall(r"^frame=(\d+)$", played.stdout, re.MULTILINE)[-1])


@pytest.mark.parametrize("path", ["/stream.mjpg", "/stream.mp4"])
def test_record_limit_frames(start_portal: Start, tmp_path: Path, path: str) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"
    done = run("--url", f"{portal.url}{path}", "--output", str(output), "--limit-frames", "30")
    assert done.returncode == 0, done.stderr
    stream = probed(output)
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 320, 180)
    assert int(stream["nb_read_frames"]) == 30
    assert 0.7 < float(stream["duration"]) < 6, "30 frames at about 20 fps"
    assert "30 frames" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_record_until_signal(start_portal: Start, tmp_path: Path, number: signal.Signals) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"
    tool = subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "tools/record_stream.py")),
            *("--url", f"{portal.url}/stream.mjpg", "--output", str(output)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        portal.wait_for_log("connected; 1 connected")
        eventually(lambda: output.exists() and output.stat().st_size > 0, "frames in the file")
        tool.send_signal(number)
        _, said = tool.communicate(timeout=LIMIT_S)
    finally:
        tool.kill()
        tool.wait()
    frames = re.search(r"(\d+) frames", said)
    assert (tool.returncode, frames is not None) == (0, True), said
    assert frames is not None
    assert int(probed(output)["nb_read_frames"]) == int(frames[1]) > 0


class _Stalling(BaseHTTPRequestHandler):
    """Serves an MJPEG stream that stalls after some frames and stays open."""

    PICTURES = 40  # enough for FFmpeg to detect the format

    def do_GET(self) -> None:
        picture = jpeg.encode(make_frame(size=(64, 48)), None, 80)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        self.end_headers()
        head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
        self.wfile.write((head + picture + b"\r\n") * self.PICTURES)
        self.wfile.flush()
        stalled: threading.Event = self.server.stalled  # type: ignore[attr-defined]
        over: threading.Event = self.server.over  # type: ignore[attr-defined]
        stalled.set()
        over.wait(LIMIT_S)

    def log_message(self, *_: Any) -> None: ...


class Idle:
    """Returns whether a process has been idle for half a second."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) computes it
        self._spent_s = self._changed_s = 0.0

    def __call__(self) -> bool:
        spent_s, now_s = time.clock_gettime(self._clock), time.monotonic()
        if spent_s - self._spent_s > 0.02:  # polling needs less
            self._spent_s, self._changed_s = spent_s, now_s
        return now_s - self._changed_s > 0.5


@pytest.fixture
def stalling() -> Any:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Stalling)
    server.stalled, server.over = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_record_stalled_stream_until_signal(stalling: Any, tmp_path: Path) -> None:
    output = tmp_path / "recording.mp4"
    tool = subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "tools/record_stream.py")),
            *("--url", f"http://127.0.0.1:{stalling.server_port}/", "--output", str(output)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert stalling.stalled.wait(LIMIT_S)
        eventually(lambda: output.exists() and output.stat().st_size, "start of the recording")
        eventually(Idle(tool.pid), "the tool waits for the stream")
        began_s = time.monotonic()
        while tool.poll() is None:  # the second and third signal arrive while the file is completed
            tool.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                tool.wait(0.3)
            assert time.monotonic() - began_s < LIMIT_S
        took_s = time.monotonic() - began_s
        said = tool.communicate(timeout=LIMIT_S)[1]
    finally:
        tool.kill()
        tool.wait()
    assert (tool.returncode, "Traceback" in said) == (0, False), said
    assert took_s < 10, "FFmpeg would wait for 15 s"
    assert int(probed(output)["nb_read_frames"]) > 10


def test_record_stalled_stream_for_duration(stalling: Any, tmp_path: Path) -> None:
    output = tmp_path / "recording.mp4"
    url = f"http://127.0.0.1:{stalling.server_port}/"
    began_s = time.monotonic()
    done = run("--url", url, "--output", str(output), "--duration", "1")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_s < 13, "FFmpeg would wait for 15 s"
    assert int(probed(output)["nb_read_frames"]) > 10


@pytest.mark.parametrize("path", ["/stream.mjpg", "/stream.mp4"])
def test_record_duration(start_portal: Start, tmp_path: Path, path: str) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"
    done = run("--url", f"{portal.url}{path}", "--output", str(output), "--duration", "2")
    assert done.returncode == 0, done.stderr
    stream = probed(output)
    assert int(stream["nb_read_frames"]) > 5
    said = re.search(r"frames, ([\d.]+) s", done.stderr)
    assert said is not None, done.stderr
    assert float(stream["duration"]) < float(said[1]) + 0.5, "includes the frames that PyAV read ahead"


def test_record_until_stream_ends(start_portal: Start, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"

    def end() -> None:
        wait_until(lambda: status_of(portal)["pictures_encoded"] > 20)
        portal.stop()

    ending = threading.Thread(target=end)
    ending.start()
    done = run("--url", f"{portal.url}/stream.mjpg", "--output", str(output))
    ending.join()
    assert done.returncode in (0, 3), done.stderr
    assert int(probed(output)["nb_read_frames"]) > 5


# The reader reaches the end of a short file before the writer starts.
_READ_TO_THE_END = """
import importlib.util, sys, threading, av
spec = importlib.util.spec_from_file_location("record_stream", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
reader = tool.Reader(sys.argv[2], threading.Event())
video, *packets = [item for item in reader.items() if item is not None]
with av.open(sys.argv[3], "w", format="mp4") as target:
    copy = tool.Copy(target, video)
    for packet in packets:
        copy.write(*packet)
"""


def test_record_stream_that_ended_early(tmp_path: Path) -> None:
    source, output = tmp_path / "short.mp4", tmp_path / "recording.mp4"
    made = ("-f", "lavfi", "-i", "testsrc=size=320x180:rate=20", "-frames:v", "20", "-c:v", "libx264", str(source))
    subprocess.run(["ffmpeg", "-v", "error", *made], check=True, timeout=LIMIT_S)
    arguments = (str(PROJECT / "tools/record_stream.py"), str(source), str(output))
    subprocess.run([sys.executable, "-c", _READ_TO_THE_END, *arguments], check=True, timeout=LIMIT_S)
    stream = probed(output)
    assert (stream["width"], int(stream["nb_read_frames"])) == (320, 20)


@pytest.mark.parametrize(("path", "most_bytes"), [("/stream.mjpg", 40_000), ("/stream.mp4", 100_000)])
def test_record_to_full_disk(start_portal: Start, tmp_path: Path, path: str, most_bytes: int) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"
    url = ("--url", f"{portal.url}{path}", "--output", str(output), "--duration", str(LIMIT_S))
    done = subprocess.run(
        ["prlimit", f"--fsize={most_bytes}", sys.executable, str(PROJECT / "tools/record_stream.py"), *url],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 4, done.stderr
    assert "ended early: File too large" in done.stderr
    assert frames_played(output) > 10


def test_killed_recording_is_playable(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL)
    output = tmp_path / "recording.mp4"
    command = [sys.executable, str(PROJECT / "tools/record_stream.py"), "--url", f"{portal.url}/stream.mjpg"]
    tool = subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: output.exists() and output.stat().st_size > 10_000, "some seconds in the file")
    finally:
        tool.kill()
        tool.wait()
    assert frames_played(output) > 10


class _NoStream(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def no_stream() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoStream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_recording_without_stream_exits(no_stream: str, tmp_path: Path) -> None:
    output = tmp_path / "recording.mp4"
    away = run("--url", "http://user:secret@127.0.0.1:1/", "--output", str(output))
    assert away.returncode == 3
    assert away.stderr.startswith("record_stream.py: no stream from http://user:***@127.0.0.1:1/: ")
    other = run("--url", f"http://{no_stream}/", "--output", str(output))
    assert (other.returncode, "no stream from" in other.stderr) == (3, True), other.stderr
    assert "secret" not in away.stderr
    assert "Traceback" not in away.stderr + other.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("me:sec@ret/x@127.0.0.1:1/cam", "me:***@127.0.0.1:1/cam"),
        ("127.0.0.1:1/user=me&password=secret", "127.0.0.1:1/user=me&password=***"),
        ("127.0.0.1:1/cam?token=secret", "127.0.0.1:1/cam?token=***"),
    ],
)
def test_password_is_hidden_in_errors(tmp_path: Path, place: str, shown: str) -> None:
    done = run("--url", f"rtsp://{place}", "--output", str(tmp_path / "recording.mp4"))
    assert done.returncode == 3
    assert done.stderr.startswith(f"record_stream.py: no stream from rtsp://{shown}: ")


def test_unknown_codec_is_reported(tmp_path: Path) -> None:
    path = write_unknown(tmp_path / "unknown.mp4")
    output = tmp_path / "recording.mp4"
    done = run("--url", str(path), "--output", str(output))
    assert (done.returncode, done.stderr) == (
        3,
        f"record_stream.py: no stream from {path}: unknown video codec\n",
    )
    assert not output.exists()


def test_missing_pyav_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('No module named av')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run("--url", "http://127.0.0.1:1/", "--output", str(tmp_path / "recording.mp4"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("record_stream.py: needs PyAV (apt install python3-av, ")
    assert done.stderr.endswith(": No module named av\n")


def test_unusable_output_is_reported(start_portal: Start) -> None:
    portal = start_portal(*SMALL)
    done = run("--url", f"{portal.url}/stream.mjpg", "--output", "/nowhere/at/all.mp4")
    assert (done.returncode, "/nowhere/at/all.mp4 cannot be written" in done.stderr) == (4, True), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "http://x/"),
        ("--output", "x.mp4"),
        ("--url", "x", "--output", "y", "--limit-frames", "0"),
        ("--url", "x", "--output", "y", "--duration", "nan"),
        ("--url", "x", "--output", "y", "--duration", "-1"),
    ],
)
def test_invalid_usage_is_reported(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2
