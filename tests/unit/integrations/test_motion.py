"""`integrations.hooks.motion`: what counts as motion, and failed requests."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from integrations.hooks import motion
from tests.support.timeouts import PATIENCE_S


class _Proxy(BaseHTTPRequestHandler):
    """A proxy whose portal is down: its error is an HTML page."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(502)

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize("step_s", [0.05, 10.0])
def test_change_while_the_camera_was_closed_is_not_motion(step_s: float) -> None:
    detected_s: list[float] = []
    now_s = 1e6
    detector = motion.MotionDetector(0.01, lambda: detected_s.append(now_s), 0.0)

    def show(level: int) -> None:
        nonlocal now_s
        now_s += step_s
        detector.process_frame(np.full((64, 64, 3), level, np.uint8), now_s)

    for _ in range(60):
        show(50)
    now_s += 3600
    for _ in range(60):
        show(150)
    assert detected_s == []
    show(50)
    assert detected_s == [now_s]


def test_failed_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Proxy)
    responder = threading.Thread(target=server.handle_request)
    responder.start()
    motion.start_recording(f"http://127.0.0.1:{server.server_port}/")
    responder.join(PATIENCE_S)
    server.server_close()
    motion.start_recording("nowhere")
    assert [record.getMessage() for record in caplog.records] == [
        "Motion detected, but recording failed: HTTP Error 502: Bad Gateway",
        "Motion detected, but recording failed: ValueError: unknown url type: 'nowhere/v1/recordings/start'",
    ]
