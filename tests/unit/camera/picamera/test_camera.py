"""The Picamera2 backend on a fake: opening, pixel formats, times and errors; tests/rig has the real one."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.picamera.buffers import Buffers
from softcam.camera.picamera.camera import PicameraCamera
from softcam.camera.picamera.library import list_cameras
from softcam.errors import CameraBusy, CameraError, CameraMissing
from tests.support.fake_picamera2 import (
    CONTROLS,
    CSI,
    REQUEST,
    SENSOR,
    SYCC,
    USB,
    FakePicamera2,
    OpenedCamera,
    camera_info,
)

pytestmark = pytest.mark.usefixtures("fake")


def test_mjpeg_of_usb_camera(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(USB, "C270 HD WEBCAM")]
    opened = OpenedCamera()
    assert opened.picam2.config["main"]["format"] == "MJPEG"
    assert opened.config.pixel_format == "MJPEG"
    memory = bytearray(b"\xff\xd8 a picture \xff\xd9" + b"of the last frame")
    opened.picam2.deliver(memory, bytes_used=15)
    (frame,) = opened.frames
    assert frame.planes[0].tobytes() == b"\xff\xd8 a picture \xff\xd9"
    frame.release()
    assert opened.picam2.out == set()


def test_model_is_not_taken_for_the_connection(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(CSI, "sensor/usb-bridge")]
    assert OpenedCamera().picam2.config["main"]["format"] == "YUV420"


def test_yuyv_of_usb_camera(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(USB)]
    fake.gives = {"format": "YUYV", "size": (640, 480), "stride": 1280}
    opened = OpenedCamera()
    assert (opened.config.pixel_format, opened.config.width, opened.config.height) == ("YUYV", 640, 480)
    frame = opened.deliver(1280 * 480)
    assert [plane.shape for plane in frame.planes] == [(480, 1280)]
    frame.release()


def test_padded_rows_without_copy(fake: type[FakePicamera2]) -> None:
    fake.gives = {"size": (100, 4), "stride": 128}
    opened = OpenedCamera()
    memory = bytearray(128 * 4 + 2 * 64 * 2)
    pixels = np.frombuffer(memory, np.uint8)
    luma, blue, red = pixels[:512].reshape(4, 128), pixels[512:640].reshape(2, 64), pixels[640:].reshape(2, 64)
    luma[:, 100:], blue[:, 50:], red[:, 50:] = 255, 255, 255  # the padding
    luma[:, :100], blue[:, :50], red[:, :50] = 1, 2, 3
    opened.picam2.deliver(memory)
    (frame,) = opened.frames
    assert [plane.shape for plane in frame.planes] == [(4, 100), (2, 50), (2, 50)]
    assert [set(plane.ravel().tolist()) for plane in frame.planes] == [{1}, {2}, {3}]
    assert all(np.shares_memory(plane, pixels) for plane in frame.planes)
    del luma, blue, red, pixels
    frame.release()


def test_unsupported_format_is_rejected(fake: type[FakePicamera2]) -> None:
    fake.gives = {"format": "XBGR8888"}
    camera = PicameraCamera(0, None, REQUEST)
    with pytest.raises(CameraError, match="pixel format XBGR8888 of the camera"):
        camera.open(lambda frame: None)
    assert fake.open_now == 0


def test_full_range_and_no_queue() -> None:
    config = OpenedCamera().picam2.config
    assert config["colour_space"] is SYCC
    assert (config["queue"], config["raw"]) == (False, None)


@pytest.mark.parametrize(
    ("timestamp_age_s", "exposure_us", "age_s"),
    [
        pytest.param(0.05, 20_000, 0.07, id="the timestamp is the end of the first line's exposure"),
        pytest.param(0.05, None, 0.05, id="no exposure"),
        pytest.param(3.0, 6_000_000, 9.0, id="long exposure"),
        pytest.param(None, 20_000, 0.0, id="no timestamp"),
        pytest.param(-5.0, 20_000, 0.02, id="in the future"),
        pytest.param(3600.0, 20_000, 0.02, id="of another clock"),
    ],
)
def test_exposure_time(timestamp_age_s: float | None, exposure_us: int | None, age_s: float) -> None:
    opened = OpenedCamera()
    metadata: dict[str, Any] = {} if exposure_us is None else {"ExposureTime": exposure_us}
    if timestamp_age_s is not None:
        metadata["SensorTimestamp"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - round(timestamp_age_s * 1e9)
    before_s, before_unix_s = time.monotonic(), time.time()
    frame = opened.deliver(metadata=metadata)
    assert before_s - 0.001 <= frame.began_s + age_s <= time.monotonic() + 0.001
    assert before_unix_s - 0.01 <= frame.timestamp_s + age_s <= time.time() + 0.01
    assert frame.metadata == metadata
    frame.release()


@pytest.mark.parametrize(
    ("limits", "fps", "expected_us"),
    [
        pytest.param((8333, 1_000_000, None), 20, 50_000, id="within"),
        pytest.param((8333, 1_000_000, 33_333), 240, 8333, id="faster than it can"),
        pytest.param((8333, 1_000_000, None), 0.1, 1_000_000, id="slower than it can"),
        pytest.param((33_333, 33_333, None), 20, 50_000, id="limits without information"),
        pytest.param((None, None, None), 20, 50_000, id="no limits"),
    ],
)
def test_frame_rate_within_limits(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[Any, Any, Any], fps: float, expected_us: int
) -> None:
    monkeypatch.setitem(CONTROLS, "FrameDurationLimits", limits)
    opened = OpenedCamera(StreamRequest(640, 360, fps))
    assert opened.picam2.started_with == [{"FrameDurationLimits": (expected_us, expected_us)}]


def test_frame_rate_limits_of_configured_camera(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera(StreamRequest(640, 360, 100))
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still(None)
    opened.camera.restart()
    first, still, again, restarted = opened.picam2.started_with
    assert first == again == restarted == {"FrameDurationLimits": (10_000, 10_000)}
    assert still == {}
    assert "out of range" not in caplog.text
    OpenedCamera(StreamRequest(640, 360, 240))
    assert "Requested 240 fps is out of range, using 120.00 fps" in caplog.text


def test_still_frees_unused_buffers_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenedCamera(StreamRequest(640, 360, 30))
    opened.camera.set_controls({"FrameDurationLimits": (50_000, 50_000)})
    others = ["the stream's"]
    monkeypatch.setattr(Buffers, "free_unused", lambda _: bool(others and others.pop()))

    def start() -> None:
        if others:
            opened.picam2.is_started = False
            raise RuntimeError("Cannot allocate memory")
        opened.picam2.on_start = lambda: None
        opened.deliver_still()

    opened.picam2.on_start = start
    opened.camera.still(None).release()
    _, failed, still, _ = opened.picam2.started_with
    assert still == failed == {"FrameDurationLimits": (50_000, 50_000)}, "a failed start drops its controls"


def test_unsupported_frame_rate_is_logged_once_per_opening(caplog: pytest.LogCaptureFixture) -> None:
    opened = OpenedCamera(StreamRequest(640, 360, 240))
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still(None)
    opened.camera.restart()
    assert caplog.text.count("Requested 240 fps is out of range") == 1
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert caplog.text.count("Requested 240 fps is out of range") == 2


def test_no_decimation_at_low_frame_rate() -> None:
    opened = OpenedCamera(StreamRequest(640, 360, 2))
    for _ in range(3):
        opened.deliver().release()
    assert len(opened.frames) == 3


def test_camera_without_frame_rate_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CONTROLS, "FrameDurationLimits")
    default = {"FrameDurationLimits": (33_333, 33_333)}  # Picamera2's own
    assert OpenedCamera().picam2.started_with == [default]


_IMX708 = [
    {"size": (1536, 864), "bit_depth": 10, "fps": 120.13, "crop_limits": (768, 432, 3072, 1728)},
    {"size": (2304, 1296), "bit_depth": 10, "fps": 56.03, "crop_limits": (0, 0, 4608, 2592)},
    {"size": (4608, 2592), "bit_depth": 10, "fps": 14.35, "crop_limits": (0, 0, 4608, 2592)},
]


@pytest.fixture
def pi_camera(fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "properties", {"ColorFilterArrangement": 0, "PixelArraySize": SENSOR})
    monkeypatch.setattr(fake, "modes", _IMX708)


@pytest.mark.usefixtures("pi_camera")
def test_sensor_modes_of_stream_and_still(fake: type[FakePicamera2], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    opened = OpenedCamera(StreamRequest(1536, 864, 20))
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still(None)
    half, whole = ({"output_size": size, "bit_depth": 10} for size in ((2304, 1296), SENSOR))
    assert opened.picam2.requested_sensors == [half, whole, half]
    assert opened.config.sensor_modes is not None
    assert [mode.size for mode in opened.config.sensor_modes.modes] == [(1536, 864), (2304, 1296), SENSOR]
    assert opened.config.sensor_mode == opened.config.sensor_modes.modes[1]
    assert "2304x1296, 10 bit, up to 56.03 fps, crop (0, 0, 4608, 2592) of 4608x2592" in caplog.text
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert fake.modes_read == 1


@pytest.mark.usefixtures("pi_camera")
@pytest.mark.parametrize(("model", "size"), [("imx708", (1536, 864)), ("imx708_wide_noir", (2304, 1296))])
def test_wide_camera_keeps_its_field_of_view(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch, model: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(fake, "properties", {**fake.properties, "Model": model})
    opened = OpenedCamera(StreamRequest(1280, 720, 100))
    assert opened.config.sensor_mode is not None
    assert opened.config.sensor_mode.size == size


@pytest.mark.usefixtures("pi_camera")
def test_sensor_mode_of_the_middle() -> None:
    opened = OpenedCamera(StreamRequest(1536, 864, 20, fov="crop"))
    assert opened.picam2.requested_sensors == [{"output_size": SENSOR, "bit_depth": 10}]


@pytest.mark.usefixtures("pi_camera")
def test_unreadable_sensor_modes(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fake, "modes_error", OSError(12, "Cannot allocate memory"))
    assert OpenedCamera().picam2.requested_sensors == [None]
    assert "Failed to read sensor modes" in caplog.text


def test_camera_without_sensor_modes(fake: type[FakePicamera2]) -> None:
    opened = OpenedCamera()
    assert opened.picam2.requested_sensors == [None]
    assert (opened.config.sensor_modes, opened.config.sensor_mode) == (None, None)
    assert fake.modes_read == 0


def test_missing_camera_is_an_error(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(CSI), camera_info(USB, "C270")]
    assert [(entry.number, entry.id, entry.model) for entry in list_cameras()] == [(0, CSI, "imx708"), (1, USB, "C270")]
    with pytest.raises(CameraMissing) as raised:
        PicameraCamera(2, None, REQUEST)
    assert str(raised.value) == f"camera number 2 is missing; there: 0 is imx708 ({CSI}), 1 is C270 ({USB})"
    with pytest.raises(CameraMissing, match="camera with id /base/other is missing"):
        PicameraCamera(None, "/base/other", REQUEST)


def test_missing_picamera2_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraMissing, match=r"picamera2 is missing .*sudo apt install python3-picamera2"):
        PicameraCamera(0, None, REQUEST)


def test_picamera2_of_the_first_bookworm_is_too_old(fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.3.12 has no module `platform`."""
    monkeypatch.setitem(sys.modules, "picamera2.platform", None)
    with pytest.raises(CameraMissing, match=r"picamera2 is too old .*0\.3\.16 or newer .*full-upgrade"):
        PicameraCamera(0, None, REQUEST)


def test_camera_by_id(fake: type[FakePicamera2]) -> None:
    fake.cameras = [camera_info(CSI), camera_info(USB)]
    camera = PicameraCamera(None, USB, REQUEST)
    fake.cameras = [camera_info(USB), camera_info(CSI)]
    camera.open(lambda frame: frame.release())
    picam2 = fake.made[-1]()
    assert picam2 is not None
    assert picam2.camera_num == 0
    fake.cameras = [camera_info(CSI)]
    assert not camera.is_present()


def _busy() -> RuntimeError:
    error = RuntimeError("Camera __init__ sequence did not complete.")
    error.__cause__ = RuntimeError("Failed to acquire camera: Device or resource busy")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        pytest.param(_busy(), CameraBusy, "Failed to acquire camera: Device or resource busy", id="busy"),
        pytest.param(IndexError("list index out of range"), CameraMissing, "is missing", id="missing"),
    ],
)
def test_open_errors_are_translated(
    fake: type[FakePicamera2], error: Exception, kind: type[CameraError], message: str
) -> None:
    camera = PicameraCamera(0, None, REQUEST)
    fake.open_error = error
    with pytest.raises(kind, match=message):
        camera.open(lambda frame: None)


def test_camera_disappears_while_opening(fake: type[FakePicamera2]) -> None:
    camera = PicameraCamera(0, None, REQUEST)

    class CameraNotFound(RuntimeError):
        def __init__(self) -> None:
            super().__init__("Camera(s) not found")

    def disappear(*_: object, **__: object) -> None:
        fake.cameras = []
        raise CameraNotFound

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "__init__", disappear)
        with pytest.raises(CameraMissing):
            camera.open(lambda frame: None)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no memory"),
        RuntimeError("Failed to configure camera: Invalid argument"),
        pytest.param(RuntimeError("Configuration failed: {'use_case': 'video'}"), id="Picamera2 gives no reason"),
        TypeError("a rectangle has four numbers"),
        OSError(5),
    ],
)
def test_start_errors_are_translated(fake: type[FakePicamera2], error: Exception) -> None:
    camera = PicameraCamera(0, None, REQUEST)

    def fail(_picam2: FakePicamera2) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "start", fail)
        with pytest.raises(CameraError, match="cannot be started") as raised:
            camera.open(lambda frame: None)
    assert type(raised.value) is CameraError
    assert fake.open_now == 0
    with pytest.raises(CameraError, match="is closed"):
        camera.restart()


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RuntimeError("Failed to start camera: Device or resource busy"), id="starting"),
        pytest.param(RuntimeError("Failed to configure camera: Device or resource busy"), id="configuring"),
    ],
)
def test_busy_while_starting(fake: type[FakePicamera2], error: Exception) -> None:
    camera = PicameraCamera(0, None, REQUEST)

    def fail(_picam2: FakePicamera2) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "start", fail)
        with pytest.raises(CameraBusy, match="busy") as raised:
            camera.open(lambda frame: None)
    assert raised.value.exit_code == 69
    assert fake.open_now == 0


@pytest.mark.parametrize("call", [PicameraCamera.restart, PicameraCamera.close, lambda camera: camera.still(None)])
def test_stop_errors_are_translated(call: Callable[[PicameraCamera], object]) -> None:
    opened = OpenedCamera()

    def fail() -> None:
        raise RuntimeError("Device or resource busy")

    opened.picam2.stop = fail  # type: ignore[method-assign]
    with pytest.raises(CameraError, match="Device or resource busy"):
        call(opened.camera)
