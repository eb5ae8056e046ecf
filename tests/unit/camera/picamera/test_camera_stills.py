"""The Picamera2 backend's stills: a switch of the sensor mode and back, whatever fails."""

import threading
import time

import pytest

from softcam.camera.picamera import camera as camera_module
from softcam.errors import CameraError
from tests.support.fake_picamera2 import SENSOR, USB, FakePicamera2, FakeRequest, OpenedCamera, camera_info

pytestmark = pytest.mark.usefixtures("fake")


def test_stream_configuration_after_still(fake: type[FakePicamera2]) -> None:
    fake.gives = {"size": (608, 360), "stride": 640}
    opened = OpenedCamera()

    def deliver() -> None:
        if opened.picam2.config["kind"] == "still":
            opened.picam2.deliver(bytearray(640 * 360 * 3 // 2))

    opened.picam2.on_start = deliver
    opened.camera.still((800, 600))
    assert opened.picam2.requested_sizes == [(640, 360), (800, 600), (640, 360)]


@pytest.mark.parametrize(("size", "expected"), [(None, SENSOR), ((1600, 900), (1600, 900))])
def test_still(size: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    opened = OpenedCamera()
    opened.picam2.on_start = opened.deliver_still
    still = opened.camera.still(size)
    assert (still.size, still.pixel_format) == (expected, "YUV420")
    assert still.planes[0][0, 0] == 7
    assert opened.picam2.out == set()
    assert opened.frames == []  # the stream's consumer does not get it
    assert opened.picam2.steps[-6:] == [
        *("stop", "configure still", "start"),
        *("stop", "configure video", "start"),
    ]
    frame = opened.deliver()
    assert frame.size == (640, 360)
    frame.release()
    still.release()


def test_still_without_colour_space(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(USB)]
    fake.gives = {"format": "YUYV", "size": (640, 480), "stride": 1280}
    fake.reports_colour_space = False
    opened = OpenedCamera()

    def deliver() -> None:
        if opened.picam2.config["kind"] == "still":
            opened.picam2.deliver(bytearray(1280 * 480))

    opened.picam2.on_start = deliver
    still = opened.camera.still(None)
    assert still.size == (640, 480)
    assert opened.picam2.is_started
    assert opened.picam2.steps[-2:] == ["configure video", "start"]


def test_still_timeout() -> None:
    opened = OpenedCamera(still_timeout_s=0.01)
    with pytest.raises(CameraError, match="no still from camera imx708"):
        opened.camera.still(None)
    frame = opened.deliver()
    assert frame.size == (640, 360)
    frame.release()


def test_still_with_long_exposure() -> None:
    opened = OpenedCamera(still_timeout_s=0.001)
    opened.camera.set_controls({"ExposureTime": 3_000_000})

    def start() -> None:
        if opened.picam2.config["kind"] == "still":
            threading.Timer(0.05, opened.deliver_still).start()

    opened.picam2.on_start = start
    opened.camera.still(None).release()


def test_raw_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "has_raw", lambda _: True)
    opened = OpenedCamera()
    opened.picam2.on_start = opened.deliver_still
    before_s = time.time()
    picture = opened.camera.raw_still()
    assert picture.dng == b"a raw picture"
    assert before_s - 1 <= picture.timestamp_s <= time.time()
    opened.deliver().release()


def test_failed_raw_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "has_raw", lambda _: True)
    opened = OpenedCamera()
    opened.picam2.on_start = opened.deliver_still

    def fail(_request: FakeRequest, _path: str) -> None:
        raise KeyError("SensorBlackLevels")

    monkeypatch.setattr(FakeRequest, "save_dng", fail)
    with pytest.raises(CameraError, match=r"no still from camera imx708.*SensorBlackLevels"):
        opened.camera.raw_still()
    opened.deliver().release()


def test_still_that_cannot_be_configured() -> None:
    opened = OpenedCamera()
    opened.picam2.configure_errors = [RuntimeError("no memory")]
    with pytest.raises(CameraError, match="no memory"):
        opened.camera.still(None)
    opened.deliver().release()


def test_restart_after_failed_return_from_still() -> None:
    opened = OpenedCamera()
    opened.picam2.on_start = opened.deliver_still
    opened.picam2.configure_errors = [None, RuntimeError("no memory")]
    with pytest.raises(CameraError, match="no memory"):
        opened.camera.still(None)
    opened.camera.restart()
    assert "configure preview" not in opened.picam2.steps
    frame = opened.deliver()
    assert (frame.size, frame.pixel_format) == ((640, 360), "YUV420")
    frame.release()
