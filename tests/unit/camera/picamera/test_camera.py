"""The Picamera2 backend where the rig's virtual cameras cannot go: USB cameras, padded rows, tuning files, failures.

`FakePicamera2` stands in for Picamera2. It has no frames of its own and no thread, but is as strict as the real one in
what the backend may stumble over, each of which says so below. What happens on the real one is shown in tests/rig.
"""

import gc
import logging
import os
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.picamera import camera, library
from softcam.camera.picamera.camera import PicameraCamera, list_cameras
from softcam.errors import CameraBusy, CameraError, CameraMissing, ConfigurationError, NotSupported
from softcam.imaging.frame import Frame

CSI = "/base/soc/i2c0mux/i2c@1/imx708@1a"
USB = "/base/scb/pcie@7d500000/pci@0,0/usb@0,0-1.2:1.0-046d:0825"
SENSOR = (4608, 2592)
WISH = StreamRequest(640, 360, 20)
PATIENCE_S = 10.0
_VARIABLE = "LIBCAMERA_RPI_TUNING_FILE"
_SYCC = object()
# What the camera tells before it is configured, the same for every sensor; and what it tells then.
_EARLY_CONTROLS = {"FrameDurationLimits": (33_333, 120_000, None), "ExposureTime": (0, 66_666, None)}
_CONTROLS = {
    "FrameDurationLimits": (8333, 1_000_000, None),
    "ExposureTime": (1, 100_000, None),
    "AnalogueGain": (1.0, 16.0, None),
    "AfMode": (0, 2, 0),
    "AfTrigger": (0, 1, 0),
}


class FakeRequest:
    """A completed request: buffers that are counted, and a mapping that must be gone before they go back."""

    def __init__(self, camera: "FakePicamera2", memory: Any, metadata: Mapping[str, Any], bytes_used: int) -> None:
        self.camera = camera
        self.memory = memory
        self.mapped = 0
        self._metadata = metadata
        self._holds = 1
        self.stream_map = {"main": "a stream"}
        plane = types.SimpleNamespace(bytes_used=bytes_used)
        buffer = types.SimpleNamespace(metadata=types.SimpleNamespace(planes=[plane]))
        self.request = types.SimpleNamespace(buffers={"a stream": buffer})

    def get_metadata(self) -> dict[str, Any]:
        return dict(self._metadata)

    def acquire(self) -> None:
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        assert self._holds >= 0
        if self._holds == 0:
            assert self.mapped == 0, "given back while it is still looked into"
            self.camera.out.discard(self)
            if self.camera.release_trouble is not None:
                raise self.camera.release_trouble
            with self.camera.request_lock:
                self.camera.pending = {}  # what was asked has left with this buffer

    def save_dng(self, path: str) -> None:
        Path(path).write_bytes(b"a raw picture")


class FakeMappedArray:
    def __init__(self, request: FakeRequest, stream: str, *, reshape: bool, write: bool) -> None:
        assert (stream, reshape, write) == ("main", False, False)
        self._request = request
        self.array: Any = None

    def __enter__(self) -> Self:
        self._request.mapped += 1
        self.array = np.frombuffer(self._request.memory, np.uint8)
        return self

    def __exit__(self, *_: object) -> None:
        self._request.mapped -= 1
        self.array = None


class FakePicamera2:
    """One open camera. What every one of them does next is told by the class's own fields, by the test."""

    platform = 0
    cameras: ClassVar[list[dict[str, Any]]] = []
    made: ClassVar[list["weakref.ref[FakePicamera2]"]] = []
    tuning_read: ClassVar[list[str | None]] = []  # what a new camera manager found in the environment
    has_manager: ClassVar[bool] = False
    open_now: ClassVar[int] = 0
    open_trouble: ClassVar[Exception | None] = None
    # What the camera makes of what it is asked for: format, size, stride; and whether it tells its colour space.
    gives: ClassVar[Mapping[str, Any]] = {}
    tells_colour_space: ClassVar[bool] = True
    properties: ClassVar[Mapping[str, Any]] = {}
    modes: ClassVar[list[dict[str, Any]]] = []
    modes_trouble: ClassVar[Exception | None] = None
    modes_read: ClassVar[int] = 0

    class _cm:  # noqa: N801 - Picamera2's own name
        @staticmethod
        def reset() -> None:
            FakePicamera2.has_manager = False
            FakePicamera2._make_manager()

    @classmethod
    def _make_manager(cls) -> None:
        if not cls.has_manager:
            # libcamera finds the cameras when its manager starts, and reads their tuning then and never again.
            cls.has_manager = True
            cls.tuning_read.append(os.environ.get(_VARIABLE))

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        cls._make_manager()
        return cls.cameras

    def __init__(self, camera_num: int, *, tuning: str | None) -> None:
        if tuning is None:
            os.environ.pop(_VARIABLE, None)  # as Picamera2 does, so that the usual tuning is used
        else:
            os.environ[_VARIABLE] = tuning
        if self.open_trouble is not None:
            raise self.open_trouble
        self.camera_num = camera_num
        self.myself = self  # Picamera2 is full of such circles
        self.made.append(weakref.ref(self))
        FakePicamera2.open_now += 1
        self.sensor_resolution = SENSOR
        self.camera_properties: dict[str, Any] = {"Model": "imx708", **self.properties}
        self.camera_controls: dict[str, Any] = dict(_EARLY_CONTROLS)
        self.asked_sizes: list[tuple[int, int]] = []
        self.asked_sensors: list[Any] = []
        self.pre_callback: Callable[[FakeRequest], None] | None = None
        self.config: dict[str, Any] = {}
        self.pending: dict[str, Any] = {}  # controls that travel with the next start or request
        self.steps: list[str] = []
        self.started_with: list[dict[str, Any]] = []
        self.out: set[FakeRequest] = set()
        self.out_at: list[tuple[str, int]] = []
        self.is_started = False
        self.configure_troubles: list[Exception | None] = []
        self.on_configure: Callable[[], None] = lambda: None
        self.on_starting: Callable[[], None] = lambda: None  # after the controls for the start were read
        self.on_start: Callable[[], None] = lambda: None
        self.on_controls: Callable[[], None] = lambda: None
        self.request_lock = threading.Lock()
        self.release_trouble: Exception | None = None

    def create_video_configuration(self, **asked: Any) -> dict[str, Any]:
        return {"kind": "video", "controls": {"FrameDurationLimits": (33_333, 33_333)}, **asked}

    def create_still_configuration(self, **asked: Any) -> dict[str, Any]:
        return {"kind": "still", "controls": {}, **asked}

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        FakePicamera2.modes_read += 1
        if self.modes_trouble is not None:
            raise self.modes_trouble
        return self.modes

    def camera_configuration(self) -> dict[str, Any]:
        return self.config

    def configure(self, asked: Mapping[str, Any]) -> None:
        assert not self.is_started, "Camera must be stopped before configuring"
        config = dict(asked)
        self.config = {}
        self.steps.append(f"configure {config['kind']}")
        if (trouble := self.configure_troubles.pop(0) if self.configure_troubles else None) is not None:
            raise trouble
        if config["colour_space"] is not _SYCC:
            raise RuntimeError("Colour space has incorrect type")
        size = config["main"]["size"]
        self.asked_sizes.append(size)
        self.asked_sensors.append(config.get("sensor"))
        # The stream's own dictionary is changed in place.
        config["main"] |= {"stride": size[0], **self.gives}
        if not self.tells_colour_space:
            config["colour_space"] = None
        self.camera_controls = {}
        self.on_configure()  # at this moment no control is known
        self.camera_controls = dict(_CONTROLS)
        self.config = config
        self.pending = dict(config["controls"])

    def start(self) -> None:
        if not self.config:
            self.steps.append("configure preview")  # Picamera2 helps itself
        self.started_with.append(self.pending)
        self.on_starting()
        self.pending = {}
        self.is_started = True
        self.steps.append("start")
        self.on_start()

    def stop(self) -> None:
        self.out_at.append(("stop", len(self.out)))
        self.steps.append("stop")
        self.is_started = False

    def close(self) -> None:
        self.stop()
        self.steps.append("close")
        FakePicamera2.open_now -= 1

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        assert self.request_lock.locked(), "a buffer that goes back takes another list of controls meanwhile"
        self.on_controls()
        for name, value in controls.items():
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
            self.pending[name] = value

    def deliver(self, memory: Any, metadata: Mapping[str, Any] | None = None, *, bytes_used: int = 0) -> FakeRequest:
        """One frame from the event loop, which an exception out of the callback would end."""
        assert self.is_started
        request = FakeRequest(self, memory, metadata or {}, bytes_used)
        self.out.add(request)
        assert self.pre_callback is not None
        self.pre_callback(request)
        request.release()
        return request


def _info(camera_id: str, model: str = "imx708") -> dict[str, Any]:
    return {"Id": camera_id, "Model": model, "Num": 0}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakePicamera2]]:
    """The stand-in in the place of the modules; one CSI camera."""

    class Platform(Enum):
        VC4 = 0
        PISP = 1

    package, platform, libcamera = (types.ModuleType(n) for n in ("picamera2", "picamera2.platform", "libcamera"))
    package.Picamera2, package.MappedArray, package.platform = FakePicamera2, FakeMappedArray, platform  # type: ignore[attr-defined]
    platform.Platform = Platform  # type: ignore[attr-defined]
    libcamera.ColorSpace = types.SimpleNamespace(Sycc=lambda: _SYCC)  # type: ignore[attr-defined]
    for module in (package, platform, libcamera):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv(_VARIABLE, "")
    monkeypatch.delenv(_VARIABLE)
    for name, value in {
        "platform": Platform.VC4,
        "cameras": [_info(CSI)],
        "made": [],
        "tuning_read": [],
        "has_manager": False,
        "open_now": 0,
        "open_trouble": None,
        "gives": {},
        "tells_colour_space": True,
        "properties": {},
        "modes": [],
        "modes_trouble": None,
        "modes_read": 0,
    }.items():
        monkeypatch.setattr(FakePicamera2, name, value)
    yield FakePicamera2
    gc.collect()


class _Opened:
    """A camera that was opened, and what stands behind it; the frames that came are the test's to release."""

    def __init__(self, wish: StreamRequest = WISH, **options: Any) -> None:
        self.camera = PicameraCamera(0, None, wish, **options)
        self.frames: list[Frame] = []
        self.mode = self.camera.open(self.frames.append)
        inside = FakePicamera2.made[-1]()
        assert inside is not None
        self.inside = inside

    def deliver(self, size: int = 640 * 360 * 3 // 2, **options: Any) -> Frame:
        self.inside.deliver(bytearray(size), **options)
        return self.frames[-1]


# --- Pixels


def test_a_usb_camera_is_asked_for_mjpeg_and_only_what_was_used_is_the_picture(fake: type[FakePicamera2]) -> None:
    fake.cameras = [_info(USB, "C270 HD WEBCAM")]
    opened = _Opened()
    assert opened.inside.config["main"]["format"] == "MJPEG"
    assert opened.mode.pixel_format == "MJPEG"
    memory = bytearray(b"\xff\xd8 a picture \xff\xd9" + b"of the last frame")
    opened.inside.deliver(memory, bytes_used=15)
    (frame,) = opened.frames
    assert frame.planes[0].tobytes() == b"\xff\xd8 a picture \xff\xd9"
    frame.release()
    assert opened.inside.out == set()


def test_a_usb_camera_without_mjpeg_gives_yuyv(fake: type[FakePicamera2]) -> None:
    fake.cameras = [_info(USB)]
    fake.gives = {"format": "YUYV", "size": (640, 480), "stride": 1280}
    opened = _Opened()
    assert (opened.mode.pixel_format, opened.mode.width, opened.mode.height) == ("YUYV", 640, 480)
    frame = opened.deliver(1280 * 480)
    assert [plane.shape for plane in frame.planes] == [(480, 1280)]
    frame.release()


def test_padded_rows_are_left_out_and_nothing_is_copied(fake: type[FakePicamera2]) -> None:
    fake.gives = {"size": (100, 4), "stride": 128}
    opened = _Opened()
    memory = bytearray(128 * 4 + 2 * 64 * 2)
    pixels = np.frombuffer(memory, np.uint8)
    luma, blue, red = pixels[:512].reshape(4, 128), pixels[512:640].reshape(2, 64), pixels[640:].reshape(2, 64)
    luma[:, 100:], blue[:, 50:], red[:, 50:] = 255, 255, 255  # the padding
    luma[:, :100], blue[:, :50], red[:, :50] = 1, 2, 3
    opened.inside.deliver(memory)
    (frame,) = opened.frames
    assert [plane.shape for plane in frame.planes] == [(4, 100), (2, 50), (2, 50)]
    assert [set(plane.ravel().tolist()) for plane in frame.planes] == [{1}, {2}, {3}]
    assert all(np.shares_memory(plane, pixels) for plane in frame.planes)
    del luma, blue, red, pixels
    frame.release()


def test_a_format_that_cannot_be_encoded_is_refused_and_the_camera_is_closed(fake: type[FakePicamera2]) -> None:
    fake.gives = {"format": "XBGR8888"}
    camera = PicameraCamera(0, None, WISH)
    with pytest.raises(CameraError, match="the camera gives XBGR8888"):
        camera.open(lambda frame: None)
    assert fake.open_now == 0


def test_full_range_colours_are_asked_for_and_no_buffer_is_kept_for_jobs() -> None:
    config = _Opened().inside.config
    assert config["colour_space"] is _SYCC
    assert (config["queue"], config["raw"]) == (False, None)


# --- Time


@pytest.mark.parametrize(
    ("stamp_age_s", "exposure_us", "age_s"),
    [
        pytest.param(0.05, 20_000, 0.07, id="the stamp is the end of the first line's exposure"),
        pytest.param(0.05, None, 0.05, id="no exposure told"),
        pytest.param(3.0, 6_000_000, 9.0, id="long exposure"),
        pytest.param(None, 20_000, 0.0, id="no stamp"),
        pytest.param(-5.0, 20_000, 0.02, id="of the future"),
        pytest.param(3600.0, 20_000, 0.02, id="of another clock"),
    ],
)
def test_when_the_exposure_began(stamp_age_s: float | None, exposure_us: int | None, age_s: float) -> None:
    opened = _Opened()
    metadata: dict[str, Any] = {} if exposure_us is None else {"ExposureTime": exposure_us}
    if stamp_age_s is not None:
        metadata["SensorTimestamp"] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - round(stamp_age_s * 1e9)
    before_s, before_unix_s = time.monotonic(), time.time()
    frame = opened.deliver(metadata=metadata)
    assert before_s - 0.001 <= frame.began_s + age_s <= time.monotonic() + 0.001
    assert before_unix_s - 0.01 <= frame.timestamp_s + age_s <= time.time() + 0.01
    assert frame.metadata == metadata
    frame.release()


@pytest.mark.parametrize(
    ("limits", "fps", "asked_us"),
    [
        pytest.param((8333, 1_000_000, None), 20, 50_000, id="within"),
        pytest.param((8333, 1_000_000, 33_333), 240, 8333, id="faster than it can"),
        pytest.param((8333, 1_000_000, None), 0.1, 1_000_000, id="slower than it can"),
        pytest.param((33_333, 33_333, None), 20, 50_000, id="limits that say nothing"),
        pytest.param((None, None, None), 20, 50_000, id="no limits"),
    ],
)
def test_the_frame_rate_is_fixed_within_what_the_camera_can(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[Any, Any, Any], fps: float, asked_us: int
) -> None:
    monkeypatch.setitem(_CONTROLS, "FrameDurationLimits", limits)
    opened = _Opened(StreamRequest(640, 360, fps))
    assert opened.inside.started_with == [{"FrameDurationLimits": (asked_us, asked_us)}]


def test_the_frame_rate_is_limited_by_what_the_camera_tells_once_it_is_configured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = _Opened(StreamRequest(640, 360, 100))
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still(None)
    opened.camera.restart()
    first, still, again, restarted = opened.inside.started_with
    assert first == again == restarted == {"FrameDurationLimits": (10_000, 10_000)}
    assert still == {}
    assert "cannot give" not in caplog.text
    _Opened(StreamRequest(640, 360, 240))
    assert "cannot give 240 fps here; it is told 120.00" in caplog.text


def test_a_still_that_lacks_memory_to_start_gives_kept_pictures_up(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _Opened(StreamRequest(640, 360, 30))
    opened.camera.set_controls({"FrameDurationLimits": (50_000, 50_000)})
    others = ["the stream's"]
    monkeypatch.setattr(camera.Buffers, "give_up_others", lambda _: bool(others and others.pop()))

    def start() -> None:
        if others:
            opened.inside.is_started = False
            raise RuntimeError("Cannot allocate memory")
        opened.inside.on_start = lambda: None
        _show_still(opened)

    opened.inside.on_start = start
    opened.camera.still(None).release()
    _, refused, still, _ = opened.inside.started_with
    assert still == refused == {"FrameDurationLimits": (50_000, 50_000)}, "a start that fails forgets its controls"


def test_a_rate_that_it_cannot_give_is_told_once_for_each_opening(caplog: pytest.LogCaptureFixture) -> None:
    opened = _Opened(StreamRequest(640, 360, 240))
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still(None)
    opened.camera.restart()
    assert caplog.text.count("cannot give 240 fps") == 1
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert caplog.text.count("cannot give 240 fps") == 2


def test_a_camera_that_is_slow_enough_once_it_is_configured_is_not_thinned_out() -> None:
    opened = _Opened(StreamRequest(640, 360, 2))
    for _ in range(3):
        opened.deliver().release()
    assert len(opened.frames) == 3


def test_a_camera_without_a_frame_rate_control_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_CONTROLS, "FrameDurationLimits")
    asked = {"FrameDurationLimits": (33_333, 33_333)}  # Picamera2's own
    assert _Opened().inside.started_with == [asked]


# --- Tuning


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two places for tuning files, as libcamera has; the files are in the second."""
    monkeypatch.setattr(library, "TUNING_FOLDERS", (str(tmp_path / "local"), str(tmp_path / "usual")))
    for platform in ("vc4", "pisp"):
        (tmp_path / "usual" / platform).mkdir(parents=True)
        for model in ("imx708", "imx708_noir"):
            (tmp_path / "usual" / platform / f"{model}.json").touch()
    return tmp_path / "usual"


@pytest.mark.parametrize("name", ["imx708_noir", "imx708_noir.json"])
@pytest.mark.parametrize(("platform", "folder"), [("VC4", "vc4"), ("PISP", "pisp")])
def test_a_tuning_file_by_its_name_is_read_before_the_cameras_are_found(
    fake: type[FakePicamera2], folders: Path, name: str, platform: str, folder: str
) -> None:
    fake.platform = sys.modules["picamera2.platform"].Platform[platform]
    opened = _Opened(tuning_file=name)
    wanted = str(folders / folder / "imx708_noir.json")
    assert fake.tuning_read == [wanted]
    assert os.environ[_VARIABLE] == wanted
    # libcamera forgets everything with its manager, which ends when the camera is closed.
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert os.environ[_VARIABLE] == wanted


def test_a_tuning_file_by_its_path(fake: type[FakePicamera2], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.touch()
    _Opened(tuning_file=str(path))
    assert fake.tuning_read == [str(path)]


@pytest.mark.parametrize("name", ["/nowhere/imx708.json", "imx999", "./imx708.json"])
def test_a_tuning_file_that_is_missing(folders: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"tuning_file {name}: wants a file") as raised:
        PicameraCamera(0, None, WISH, tuning_file=name)
    assert raised.value.exit_code == 78


@pytest.mark.parametrize(
    ("model", "told"),
    [
        pytest.param("imx708", None, id="the sensor's own name"),
        pytest.param("imx708_noir", None, id="a sensor that says so itself"),
        pytest.param("unknown", "imx708", id="a sensor that is told"),
    ],
)
def test_without_infrared_filter(fake: type[FakePicamera2], folders: Path, model: str, told: str | None) -> None:
    fake.cameras = [_info(CSI, model)]
    opened = _Opened(is_noir=True, noir_model=told)
    wanted = str(folders / "vc4" / "imx708_noir.json")
    # Which sensor it is was found with the usual tuning; a new manager reads the right one.
    assert fake.tuning_read == [None, wanted]
    assert os.environ[_VARIABLE] == wanted
    assert opened.mode.pixel_format == "YUV420"


def test_without_infrared_filter_and_without_a_file_for_it(
    fake: type[FakePicamera2], folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.cameras = [_info(CSI, "ov5647")]
    _Opened(is_noir=True)
    assert fake.tuning_read == [None]
    assert "No tuning file ov5647_noir.json" in caplog.text


def test_a_tuning_file_goes_before_the_one_without_infrared_filter(fake: type[FakePicamera2], folders: Path) -> None:
    _Opened(tuning_file="imx708", is_noir=True)
    assert fake.tuning_read == [str(folders / "vc4" / "imx708.json")]


# --- Controls


def test_an_unknown_control_is_refused_and_nothing_is_sent_in_part() -> None:
    opened = _Opened()
    with pytest.raises(NotSupported, match="has no control Rubbish"):
        opened.camera.set_controls({"ExposureTime": 1000, "Rubbish": 1})
    assert opened.inside.pending == {}
    opened.camera.restart()
    assert opened.inside.started_with[-1] == {"FrameDurationLimits": (50_000, 50_000)}


def test_controls_do_nothing_while_it_is_closed() -> None:
    opened = _Opened()
    opened.camera.close()
    opened.camera.set_controls({"ExposureTime": 1000, "Rubbish": 1})
    assert opened.inside.pending == {}


def test_controls_outlive_a_restart_and_a_still_but_for_those_of_a_moment() -> None:
    opened = _Opened()
    opened.camera.set_controls({"AfMode": 1, "AfTrigger": 0, "ExposureTime": 1000})
    assert opened.inside.pending == {"AfMode": 1, "AfTrigger": 0, "ExposureTime": 1000}
    opened.deliver().release()
    assert opened.inside.pending == {}
    opened.camera.set_controls({"ExposureTime": 2000})
    kept = {"AfMode": 1, "ExposureTime": 2000}
    rate = {"FrameDurationLimits": (50_000, 50_000)}
    opened.camera.restart()
    assert opened.inside.started_with[-1] == {**rate, **kept}
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still(None)
    still, stream = opened.inside.started_with[-2:]
    assert still == kept
    assert stream == {**rate, **kept}
    # A fresh opening begins with nothing: whoever owns the settings sends them.
    opened.camera.close()
    again = opened.camera.open(opened.frames.append)
    inside = FakePicamera2.made[-1]()
    assert inside is not None
    opened.camera.restart()
    assert inside.started_with == [rate, rate]
    assert again.has_autofocus


def test_a_control_that_comes_while_a_still_is_configured_is_not_lost() -> None:
    opened = _Opened()
    opened.inside.on_configure = lambda: opened.camera.set_controls({"ExposureTime": 3000})
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still(None)
    assert [each.get("ExposureTime") for each in opened.inside.started_with[-2:]] == [3000, 3000]


def test_what_is_told_once_it_is_configured_counts_from_the_first_frame() -> None:
    camera = PicameraCamera(0, None, WISH)
    modes = []

    def configured(mode: StreamConfig) -> None:
        modes.append(mode)
        camera.set_controls({"ExposureTime": 3000})

    opened_mode = camera.open(lambda frame: frame.release(), configured)
    inside = FakePicamera2.made[-1]()
    assert inside is not None
    assert inside.started_with == [{"FrameDurationLimits": (50_000, 50_000), "ExposureTime": 3000}]
    assert modes == [opened_mode]


def test_a_control_that_comes_while_the_camera_starts_is_not_lost() -> None:
    opened = _Opened()
    opened.camera.set_controls({"ExposureTime": 1000})
    opened.inside.on_starting = lambda: opened.camera.set_controls({"AnalogueGain": 2.0})
    opened.camera.restart()
    assert opened.inside.started_with[-1]["ExposureTime"] == 1000
    assert opened.inside.pending == {"AnalogueGain": 2.0}


def test_an_older_value_is_not_sent_behind_a_newer_one() -> None:
    opened = _Opened()
    opened.camera.set_controls({"ExposureTime": 1000})
    newer = threading.Thread(target=opened.camera.set_controls, args=({"ExposureTime": 2000},))

    def meanwhile() -> None:
        opened.inside.on_controls = lambda: None
        newer.start()
        newer.join(0.1)  # where it may, it comes before

    opened.inside.on_controls = meanwhile
    opened.camera.restart()
    newer.join(PATIENCE_S)
    assert (opened.inside.started_with[-1] | opened.inside.pending)["ExposureTime"] == 2000


def test_the_controls_of_a_still_follow_from_its_own_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _Opened()
    asked: list[tuple[Any, tuple[int, int]]] = []

    def configured() -> None:
        if len(opened.inside.asked_sizes) == 2:
            monkeypatch.setitem(_CONTROLS, "ScalerCrop", ((0, 0, 64, 64), (0, 0, *SENSOR), None))

    def controls_for(ranges: Mapping[str, Any], size: tuple[int, int]) -> Mapping[str, Any]:
        asked.append((ranges["ScalerCrop"], size))
        return {"ScalerCrop": (0, 0, 800, 600)}

    opened.inside.on_configure = configured
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still((800, 600), controls_for).release()
    assert asked == [(((0, 0, 64, 64), (0, 0, *SENSOR), None), (800, 600))]
    _, still, stream = opened.inside.started_with
    assert still == {"ScalerCrop": (0, 0, 800, 600)}
    assert "ScalerCrop" not in stream


@pytest.mark.parametrize(("platform", "has_them"), [("VC4", False), ("PISP", True)])
def test_only_a_newer_processor_has_libcameras_hdr(fake: type[FakePicamera2], platform: str, has_them: bool) -> None:
    fake.platform = sys.modules["picamera2.platform"].Platform[platform]
    assert _Opened().mode.has_hdr_modes is has_them


# --- Sensor modes

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
def test_the_stream_and_each_still_have_a_sensor_mode_that_is_chosen_for_them(
    fake: type[FakePicamera2], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    opened = _Opened(StreamRequest(1536, 864, 20))
    opened.inside.on_start = lambda: _show_still(opened)
    opened.camera.still(None)
    half, whole = ({"output_size": size, "bit_depth": 10} for size in ((2304, 1296), SENSOR))
    assert opened.inside.asked_sensors == [half, whole, half]
    assert "2304x1296, 10 bit, up to 56.03 fps, crop (0, 0, 4608, 2592) of 4608x2592" in caplog.text
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert fake.modes_read == 1


@pytest.mark.usefixtures("pi_camera")
def test_modes_that_cannot_be_read_leave_the_choice_to_picamera2(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fake, "modes_trouble", OSError(12, "Cannot allocate memory"))
    assert _Opened().inside.asked_sensors == [None]
    assert "modes cannot be read" in caplog.text


def test_a_camera_without_raw_pictures_is_not_asked_for_modes(fake: type[FakePicamera2]) -> None:
    assert _Opened().inside.asked_sensors == [None]
    assert fake.modes_read == 0


# --- Stills


def test_what_was_asked_is_asked_again_and_not_what_was_negotiated(fake: type[FakePicamera2]) -> None:
    fake.gives = {"size": (608, 360), "stride": 640}
    opened = _Opened()

    def show() -> None:
        if opened.inside.config["kind"] == "still":
            opened.inside.deliver(bytearray(640 * 360 * 3 // 2))

    opened.inside.on_start = show
    opened.camera.still((800, 600))
    assert opened.inside.asked_sizes == [(640, 360), (800, 600), (640, 360)]


def _show_still(opened: _Opened) -> None:
    """What the camera gives as soon as it was started for a still."""
    if opened.inside.config["kind"] == "still":
        width, height = opened.inside.config["main"]["size"]
        opened.inside.deliver(bytearray(b"\x07" * (width * height * 3 // 2)))


@pytest.mark.parametrize(("size", "taken"), [(None, SENSOR), ((1600, 900), (1600, 900))])
def test_a_still_is_a_copy_in_a_mode_of_its_own(size: tuple[int, int] | None, taken: tuple[int, int]) -> None:
    opened = _Opened()
    opened.inside.on_start = lambda: _show_still(opened)
    still = opened.camera.still(size)
    assert (still.size, still.pixel_format) == (taken, "YUV420")
    assert still.planes[0][0, 0] == 7
    assert opened.inside.out == set()
    assert opened.frames == []  # nobody else sees it
    assert opened.inside.steps[-6:] == [
        *("stop", "configure still", "start"),
        *("stop", "configure video", "start"),
    ]
    frame = opened.deliver()
    assert frame.size == (640, 360)
    frame.release()
    still.release()


def test_a_still_of_a_camera_that_tells_no_colour_space(fake: type[FakePicamera2]) -> None:
    fake.cameras = [_info(USB)]
    fake.gives = {"format": "YUYV", "size": (640, 480), "stride": 1280}
    fake.tells_colour_space = False
    opened = _Opened()

    def show() -> None:
        if opened.inside.config["kind"] == "still":
            opened.inside.deliver(bytearray(1280 * 480))

    opened.inside.on_start = show
    still = opened.camera.still(None)
    assert still.size == (640, 480)
    assert opened.inside.is_started
    assert opened.inside.steps[-2:] == ["configure video", "start"]


def test_a_still_that_does_not_come_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_STILL_FRAME_LIMIT_S", 0.01)
    opened = _Opened()
    with pytest.raises(CameraError, match="no still from camera imx708"):
        opened.camera.still(None)
    frame = opened.deliver()
    assert frame.size == (640, 360)
    frame.release()


def test_a_still_with_a_long_exposure_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_STILL_FRAME_LIMIT_S", 0.001)
    opened = _Opened()
    opened.camera.set_controls({"ExposureTime": 3_000_000})

    def start() -> None:
        if opened.inside.config["kind"] == "still":
            threading.Timer(0.05, _show_still, [opened]).start()

    opened.inside.on_start = start
    opened.camera.still(None).release()


def test_a_raw_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "has_raw", lambda _: True)
    opened = _Opened()
    opened.inside.on_start = lambda: _show_still(opened)
    before_s = time.time()
    picture = opened.camera.raw_still()
    assert picture.dng == b"a raw picture"
    assert before_s - 1 <= picture.timestamp_s <= time.time()
    opened.deliver().release()


def test_a_raw_still_that_cannot_be_written_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "has_raw", lambda _: True)
    opened = _Opened()
    opened.inside.on_start = lambda: _show_still(opened)

    def stumble(_request: FakeRequest, _path: str) -> None:
        raise KeyError("SensorBlackLevels")

    monkeypatch.setattr(FakeRequest, "save_dng", stumble)
    with pytest.raises(CameraError, match=r"no still from camera imx708.*SensorBlackLevels"):
        opened.camera.raw_still()
    opened.deliver().release()


def test_a_still_that_cannot_be_configured_leaves_the_stream_as_it_was() -> None:
    opened = _Opened()
    opened.inside.configure_troubles = [RuntimeError("no memory")]
    with pytest.raises(CameraError, match="no memory"):
        opened.camera.still(None)
    opened.deliver().release()


def test_a_stream_that_does_not_come_back_after_a_still_comes_with_the_restart() -> None:
    opened = _Opened()
    opened.inside.on_start = lambda: _show_still(opened)
    opened.inside.configure_troubles = [None, RuntimeError("no memory")]
    with pytest.raises(CameraError, match="no memory"):
        opened.camera.still(None)
    opened.camera.restart()
    assert "configure preview" not in opened.inside.steps
    frame = opened.deliver()
    assert (frame.size, frame.pixel_format) == ((640, 360), "YUV420")
    frame.release()


# --- Frames and buffers


def test_no_exception_leaves_the_callback(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Frame] = []

    def stumble(frame: Frame) -> None:
        frame.release()
        seen.append(frame)
        raise ValueError("a hook stumbled")

    camera = PicameraCamera(0, None, WISH)
    camera.open(stumble)
    inside = FakePicamera2.made[-1]()
    assert inside is not None
    inside.deliver(bytearray(640 * 360 * 3 // 2))
    inside.deliver(bytearray(10))  # too short for what was negotiated
    inside.deliver(bytearray(640 * 360 * 3 // 2))
    assert len(seen) == 2
    assert inside.out == set()
    assert caplog.text.count("A frame was lost") == 3
    assert "a hook stumbled" in caplog.text


def test_a_value_that_libcamera_refuses_does_not_reach_who_gives_a_frame_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = _Opened()
    opened.inside.deliver(bytearray(640 * 360 * 3 // 2))
    opened.inside.release_trouble = TypeError("a rectangle wants four numbers")
    opened.frames[0].release()
    assert "a rectangle wants four numbers" in caplog.text
    opened.camera.close()  # and it counts as given back
    assert "not given back" not in caplog.text


def test_what_picamera2_asserts_does_not_end_an_encoder_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    opened = _Opened()
    for _ in range(2):
        opened.inside.deliver(bytearray(640 * 360 * 3 // 2))
    opened.inside.release_trouble = AssertionError("no request")
    for frame in opened.frames:
        frame.release()
    told = [record for record in caplog.records if "could not be given back" in record.message]
    assert [record.levelname for record in told if record.levelno >= logging.WARNING] == ["WARNING"]
    assert told[0].exc_info
    opened.camera.close()
    assert "not given back in time" not in caplog.text


@pytest.mark.parametrize("call", [PicameraCamera.close, PicameraCamera.restart, lambda camera: camera.still(None)])
def test_frames_that_are_held_are_awaited(call: Callable[[PicameraCamera], object]) -> None:
    opened = _Opened()
    opened.inside.on_start = lambda: _show_still(opened)
    frame = opened.deliver()
    thread = threading.Thread(target=call, args=(opened.camera,))
    thread.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while not opened.camera._out._changed._waiters:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline_s, "nobody waits for the frame"
    assert opened.inside.out_at == []
    frame.release()
    thread.join(PATIENCE_S)
    assert opened.inside.out_at[0] == ("stop", 0)


def test_a_frame_that_is_never_given_back_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(camera, "_RETURN_LIMIT_S", 0.01)
    opened = _Opened()
    frame = opened.deliver()
    opened.camera.close()
    assert opened.inside.steps[-1] == "close"
    assert "1 frames were not given back in time" in caplog.text
    frame.release()


def test_a_late_frame_takes_nothing_from_the_count_of_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(camera, "_RETURN_LIMIT_S", 0.01)
    opened = _Opened()
    late = opened.deliver()
    opened.camera.restart()  # gives it up
    held = opened.deliver()
    late.release()
    caplog.clear()
    opened.camera.restart()
    assert "1 frames were not given back in time" in caplog.text
    held.release()


def test_no_frame_comes_after_close() -> None:
    opened = _Opened()
    opened.camera.close()
    opened.inside.is_started = True  # a request that was on its way
    opened.inside.deliver(bytearray(640 * 360 * 3 // 2))
    assert opened.frames == []
    opened.camera.close()  # harmless
    assert opened.inside.steps.count("close") == 1


def test_nothing_of_picamera2_is_left_after_close(fake: type[FakePicamera2]) -> None:
    camera = PicameraCamera(0, None, WISH)
    camera.open(lambda frame: frame.release())
    inside = fake.made[-1]
    gc.disable()  # by itself it would come some day; its descriptors must not wait for that
    try:
        camera.close()
        assert inside() is None
    finally:
        gc.enable()


# --- Errors


def test_missing_names_what_is_there(fake: type[FakePicamera2]) -> None:
    fake.cameras = [_info(CSI), _info(USB, "C270")]
    assert [(entry.number, entry.id, entry.model) for entry in list_cameras()] == [(0, CSI, "imx708"), (1, USB, "C270")]
    with pytest.raises(CameraMissing) as raised:
        PicameraCamera(2, None, WISH)
    assert str(raised.value) == f"camera number 2 is missing; there: 0 is imx708 ({CSI}), 1 is C270 ({USB})"
    with pytest.raises(CameraMissing, match="camera with id /base/other is missing"):
        PicameraCamera(None, "/base/other", WISH)


def test_no_picamera2_is_a_missing_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraMissing, match=r"picamera2 is missing .*sudo apt install python3-picamera2"):
        PicameraCamera(0, None, WISH)


def test_a_camera_is_followed_by_its_id_to_another_place(fake: type[FakePicamera2]) -> None:
    fake.cameras = [_info(CSI), _info(USB)]
    camera = PicameraCamera(None, USB, WISH)
    fake.cameras = [_info(USB), _info(CSI)]
    camera.open(lambda frame: frame.release())
    inside = fake.made[-1]()
    assert inside is not None
    assert inside.camera_num == 0
    fake.cameras = [_info(CSI)]
    assert not camera.is_present()


def _busy() -> RuntimeError:
    error = RuntimeError("Camera __init__ sequence did not complete.")
    error.__cause__ = RuntimeError("Failed to acquire camera: Device or resource busy")
    return error


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        pytest.param(_busy(), CameraBusy, "Failed to acquire camera: Device or resource busy", id="busy"),
        pytest.param(IndexError("list index out of range"), CameraMissing, "is missing", id="missing"),
    ],
)
def test_opening_fails(fake: type[FakePicamera2], trouble: Exception, kind: type[CameraError], message: str) -> None:
    camera = PicameraCamera(0, None, WISH)
    fake.open_trouble = trouble
    with pytest.raises(kind, match=message):
        camera.open(lambda frame: None)


def test_a_camera_that_vanished_while_it_was_opened_is_missing_and_not_busy(fake: type[FakePicamera2]) -> None:
    camera = PicameraCamera(0, None, WISH)

    class _Gone(RuntimeError):
        def __init__(self) -> None:
            super().__init__("Camera(s) not found")

    def vanish(*_: object, **__: object) -> None:
        fake.cameras = []
        raise _Gone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "__init__", vanish)
        with pytest.raises(CameraMissing):
            camera.open(lambda frame: None)


@pytest.mark.parametrize(
    "trouble",
    [
        RuntimeError("no memory"),
        RuntimeError("Failed to configure camera: Invalid argument"),
        pytest.param(RuntimeError("Configuration failed: {'use_case': 'video'}"), id="Picamera2 gives no reason"),
        TypeError("a rectangle wants four numbers"),
        OSError(5),
    ],
)
def test_starting_fails_and_nothing_stays_open(fake: type[FakePicamera2], trouble: Exception) -> None:
    camera = PicameraCamera(0, None, WISH)

    def stumble(_inside: FakePicamera2) -> None:
        raise trouble

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "start", stumble)
        with pytest.raises(CameraError, match="cannot be started") as raised:
            camera.open(lambda frame: None)
    assert type(raised.value) is CameraError
    assert fake.open_now == 0
    with pytest.raises(CameraError, match="is closed"):
        camera.restart()


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(RuntimeError("Failed to start camera: Device or resource busy"), id="starting"),
        pytest.param(RuntimeError("Failed to configure camera: Device or resource busy"), id="configuring"),
    ],
)
def test_a_camera_that_another_program_streams_from_is_busy(fake: type[FakePicamera2], trouble: Exception) -> None:
    camera = PicameraCamera(0, None, WISH)

    def stumble(_inside: FakePicamera2) -> None:
        raise trouble

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "start", stumble)
        with pytest.raises(CameraBusy, match="busy") as raised:
            camera.open(lambda frame: None)
    assert raised.value.exit_code == 69
    assert fake.open_now == 0


@pytest.mark.parametrize("call", [PicameraCamera.restart, PicameraCamera.close, lambda camera: camera.still(None)])
def test_a_failure_on_the_way_is_a_camera_error(call: Callable[[PicameraCamera], object]) -> None:
    opened = _Opened()

    def stumble() -> None:
        raise RuntimeError("Device or resource busy")

    opened.inside.stop = stumble  # type: ignore[method-assign]
    with pytest.raises(CameraError, match="Device or resource busy"):
        call(opened.camera)
