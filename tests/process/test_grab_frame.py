"""tools/grab_frame.py with a running portal."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import simplejpeg

from tests.conftest import PROJECT, Portal
from tests.support.http_client import port_of
from tests.support.timeouts import PATIENCE_S

LIMIT_S = 3 * PATIENCE_S
SMALL = ("--width", "320", "--height", "180")
Start = Callable[..., Portal]


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "tools/grab_frame.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, **(environment or {})},
    )


def test_grab_status_and_snapshot(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL)
    where = ("--host", "127.0.0.1", "--port", str(port_of(portal)))
    status = run(*where, "--status")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["backend"] == "pattern"
    photo = tmp_path / "photo.jpg"
    saved = run(*where, "--save", str(photo), "--quality", "60")
    assert saved.returncode == 0, saved.stderr
    assert simplejpeg.decode_jpeg(photo.read_bytes(), "RGB").shape == (180, 320, 3)
    assert run(*where, "--save", "/nowhere/at/all.jpg").returncode == 2


def test_grab_with_api_key(start_portal: Start) -> None:
    portal = start_portal(*SMALL, environment={"CAMERA_API_KEY": "a-key-for-the-test"})
    where = ("--host", "127.0.0.1", "--port", str(port_of(portal)), "--status")
    assert run(*where, environment={"CAMERA_API_KEY": "a-key-for-the-test"}).returncode == 0
    refused = run(*where, environment={"CAMERA_API_KEY": "another"})
    assert (refused.returncode, "401" in refused.stderr) == (4, True), refused.stderr
    assert "another" not in refused.stderr


def test_grab_without_portal() -> None:
    done = run("--host", "127.0.0.1", "--port", "1", "--status")
    assert (done.returncode, "no response from 127.0.0.1:1" in done.stderr) == (3, True), done.stderr


class _CutShort(BaseHTTPRequestHandler):
    """A portal that disconnects in the middle of a response."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 500)

    def log_message(self, *_: Any) -> None: ...


def test_grab_discards_truncated_snapshot(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    with ThreadingHTTPServer(("127.0.0.1", 0), _CutShort) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = run("--host", "127.0.0.1", "--port", str(server.server_port), "--save", str(photo))
        server.shutdown()
        thread.join()
    assert (done.returncode, "500 more expected" in done.stderr) == (3, True), done.stderr
    assert not photo.exists()


# A replacement for OpenCV's windows, which records the shapes of the images and presses q after the third.
_WINDOW = """
import pathlib, simplejpeg
IMREAD_COLOR = 1
class error(Exception):
    pass
shown = []
def imdecode(data, how):
    return simplejpeg.decode_jpeg(data.tobytes(), "BGR")
def imshow(title, image):
    shown.append(image.shape)
    pathlib.Path(__file__).with_name("shown").write_text(str(shown))
def waitKey(ms):
    return ord("q") if len(shown) == 3 else -1
def destroyAllWindows():
    shown.clear()
"""


def test_grab_stream_until_q(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL)
    (tmp_path / "cv2.py").write_text(_WINDOW)
    done = run(
        "--host", "127.0.0.1", "--port", str(port_of(portal)), "--stream", "--fps", "10",
        environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown").read_text() == str([(180, 320, 3)] * 3)


def test_grab_without_display(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL)
    no_screen = 'def imshow(title, image):\n    raise error("cannot open display")\n'
    (tmp_path / "cv2.py").write_text(_WINDOW + no_screen)
    where = ("--host", "127.0.0.1", "--port", str(port_of(portal)))
    done = run(*where, "--stream", environment={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (2, "grab_frame.py: OpenCV cannot open a window: cannot open display\n")


def test_grab_stream_needs_opencv(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('No module named cv2')")
    where = ("--host", "127.0.0.1", "--port", "1")
    done = run(*where, "--stream", environment={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, "python3-opencv" in done.stderr) == (2, True), done.stderr
