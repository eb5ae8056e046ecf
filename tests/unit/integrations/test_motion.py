"""`integrations.hooks.motion`: what counts as motion, and failed requests."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from integrations.hooks import motion
from tests.support.timeouts import PATIENCE_S


class _Proxy(BaseHTTPRequestHandler):
    """A proxy whose portal is down: its error is an HTML page."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(502)

    def log_message(self, *_: Any) -> None: ...


Light = float | npt.NDArray[np.float64]


class Watch:
    """A detector, and a camera that looks at a wall with a pattern; its frames have some noise."""

    def __init__(self, step_s: float = 0.05) -> None:
        self.detected_s: list[float] = []
        self.now_s = 1e6
        self.step_s = step_s
        self._detector = motion.MotionDetector(0.01, lambda: self.detected_s.append(self.now_s), 0.0)
        self._noise = np.random.default_rng(1)
        self._wall = self._noise.integers(20, 100, (6, 8)).repeat(16, 0).repeat(16, 1).astype(np.float64)

    def show(self, light: Light = 1.0, *, for_s: float = 0.0, block: int | None = None) -> None:
        """Frames for some time, at least one. `light` is a factor, also one for each row or pixel.

        `block` is the column of something bright.
        """
        end_s = self.now_s + max(for_s, self.step_s)
        while self.now_s < end_s - 1e-6:
            self.now_s += self.step_s
            grey: npt.NDArray[np.float64] = self._wall * light
            if block is not None:
                grey[32:64, block : block + 32] = 220
            grey += self._noise.normal(0, 4, grey.shape)
            self._detector.process_frame(grey.clip(0, 255).astype(np.uint8)[:, :, None].repeat(3, 2), self.now_s)

    def assert_sensitive(self) -> None:
        """Nothing was detected so far, but motion is now."""
        self.show(for_s=10.0)
        assert self.detected_s == []
        began_s = self.now_s
        self.show(for_s=1.0 + 2 * self.step_s, block=40)
        assert self.detected_s
        assert self.detected_s[0] - began_s <= 0.3 + 2 * self.step_s


@pytest.mark.parametrize("step_s", [0.05, 0.2, 1.0, 10.0])
def test_change_while_the_camera_was_closed_is_not_motion(step_s: float) -> None:
    watch = Watch(step_s)
    watch.show(for_s=60 * step_s)
    watch.now_s += 3600
    watch.show(2.0, for_s=60 * step_s)
    watch.now_s += 3600
    watch.show(block=70, for_s=60 * step_s)
    watch.now_s += 3600
    watch.assert_sensitive()


RIGHT_TO_LEFT = np.linspace(1.25, 3.0, 128)[None, :]  # a lamp at the right
LAMPS: dict[str, list[Light]] = {
    "at once": [2.0],
    "off": [0.2],
    "one side": [RIGHT_TO_LEFT],
    "while read out": [np.where(np.arange(96) < 80, 1.0, 2.5)[:, None], 2.5],  # only the lowest rows at first
    "slowly": [1 + (RIGHT_TO_LEFT - 1) * part for part in np.linspace(0.1, 1, 10)],
    "and the exposure follows": [2.5, 2.5, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2, 1.1, 1.05],
    "flickering": [2.0, 1.0, 2.0, 1.0, 1.0, 2.0],
}


@pytest.mark.parametrize("step_s", [0.05, 0.2])
@pytest.mark.parametrize("lamp", LAMPS)
def test_light_is_not_motion(lamp: str, step_s: float) -> None:
    watch = Watch(step_s)
    watch.show(for_s=5.0)
    for light in LAMPS[lamp]:
        watch.show(light)
    watch.show(LAMPS[lamp][-1], for_s=5.0)
    for light in reversed(LAMPS[lamp]):
        watch.show(light)
    watch.assert_sensitive()


def test_motion_goes_on_after_light() -> None:
    """Someone enters and switches the light on."""
    watch = Watch()
    watch.show(for_s=5.0)
    watch.show(2.0)
    lit_s = watch.now_s
    for column in range(0, 96, 2):
        watch.show(2.0, block=column)
    assert watch.detected_s
    assert 2.0 <= watch.detected_s[0] - lit_s <= 2.5


def test_flash_is_not_motion() -> None:
    """An insect, or a damaged frame."""
    watch = Watch()
    watch.show(for_s=5.0)
    for _ in range(5):
        watch.show(block=40, for_s=0.1)
        watch.show(for_s=2.0)
    watch.assert_sensitive()


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


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"CAMERA_API_KEY": "shared", "cam0_api_key": "own"}, "shared"),
        ({"cam0_api_key": "own", "CAM1_API_KEY": "own", "cam1_view_key": "read"}, "own"),
        ({"cam0_api_key": "own", "cam1_api_key": "another"}, None),
        ({"cam0_api_key": "own", "cam1_api_key": ""}, "own"),
        ({"cam0_api_key": "own", "MOTION_PORTAL": "http://elsewhere"}, None),
        ({"CAMERA_API_KEY": "shared", "MOTION_PORTAL": "http://elsewhere"}, "shared"),
    ],
)
def test_key_that_is_sent(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None) -> None:
    for name in ("CAMERA_API_KEY", "MOTION_PORTAL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sent: list[str | None] = []

    class Portal(_Proxy):
        def do_POST(self) -> None:
            sent.append(self.headers["X-API-Key"])
            super().do_POST()

    with HTTPServer(("127.0.0.1", 0), Portal) as server:
        responder = threading.Thread(target=server.handle_request)
        responder.start()
        motion.start_recording(f"http://127.0.0.1:{server.server_port}")
        responder.join(PATIENCE_S)
    assert sent == [expected]
