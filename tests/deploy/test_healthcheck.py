"""systemd/probe.py, by which deploy.sh asks a portal how it is, against portals that behave badly."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

PROBE = Path(__file__).resolve().parents[2] / "systemd/probe.py"


class _DiesInTheMidst(BaseHTTPRequestHandler):
    """Well by its own word, and gone in the middle of the first picture."""

    def do_GET(self) -> None:
        body = b'{"version": "9"}' if self.path == "/health" else b"half"
        length = len(body) if self.path == "/health" else 1000
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _DiesInTheMidst) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_half_a_picture_is_none(port: int) -> None:
    done = subprocess.run(
        [sys.executable, PROBE, "look", "0", "20"],
        env={**os.environ, "CAMERA_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith(f"well at http://127.0.0.1:{port}, version 9; no picture: IncompleteRead")
    assert done.stderr == ""
