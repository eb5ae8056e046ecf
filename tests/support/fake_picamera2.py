"""A fake of Picamera2 for what the rig's virtual cameras cannot do: USB cameras, padded rows, tuning files, failures.

`FakePicamera2` has neither frames nor a thread, but is as strict as the real one where the backend may fail; its
comments say how. The tests in tests/rig use the real one.
"""

import gc
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.picamera.camera import PicameraCamera
from softcam.imaging.frame import Frame
from tests.support.timeouts import PATIENCE_S as PATIENCE_S

CSI = "/base/soc/i2c0mux/i2c@1/imx708@1a"
USB = "/base/scb/pcie@7d500000/pci@0,0/usb@0,0-1.2:1.0-046d:0825"
SENSOR = (4608, 2592)
REQUEST = StreamRequest(640, 360, 20)
TUNING_VARIABLE = "LIBCAMERA_RPI_TUNING_FILE"
SYCC = object()
# The controls before the camera is configured, the same for every sensor, and after.
EARLY_CONTROLS = {"FrameDurationLimits": (33_333, 120_000, None), "ExposureTime": (0, 66_666, None)}
CONTROLS = {
    "FrameDurationLimits": (8333, 1_000_000, None),
    "ExposureTime": (1, 100_000, None),
    "AnalogueGain": (1.0, 16.0, None),
    "AfMode": (0, 2, 0),
    "AfTrigger": (0, 1, 0),
}


class FakeRequest:
    """A completed request, which counts its holds; the mapping of its buffer must end before the last release."""

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
            assert self.mapped == 0, "released while it is mapped"
            self.camera.out.discard(self)
            if self.camera.release_error is not None:
                raise self.camera.release_error
            with self.camera.request_lock:
                self.camera.pending = {}  # the controls were sent with this buffer

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
    """One open camera; the test sets the class's attributes for the behaviour of all of them."""

    platform = 0
    cameras: ClassVar[list[dict[str, Any]]] = []
    made: ClassVar[list["weakref.ref[FakePicamera2]"]] = []
    tuning_read: ClassVar[list[str | None]] = []  # what a new camera manager found in the environment
    has_manager: ClassVar[bool] = False
    open_now: ClassVar[int] = 0
    open_error: ClassVar[Exception | None] = None
    # What the camera negotiates: format, size, stride; and whether it reports its colour space.
    gives: ClassVar[Mapping[str, Any]] = {}
    reports_colour_space: ClassVar[bool] = True
    properties: ClassVar[Mapping[str, Any]] = {}
    modes: ClassVar[list[dict[str, Any]]] = []
    modes_error: ClassVar[Exception | None] = None
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
            cls.tuning_read.append(os.environ.get(TUNING_VARIABLE))

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        cls._make_manager()
        return cls.cameras

    def __init__(self, camera_num: int, *, tuning: str | None) -> None:
        if tuning is None:
            os.environ.pop(TUNING_VARIABLE, None)  # as Picamera2 does, so that the usual tuning is used
        else:
            os.environ[TUNING_VARIABLE] = tuning
        if self.open_error is not None:
            raise self.open_error
        self.camera_num = camera_num
        self.myself = self  # Picamera2 is full of such circles
        self.made.append(weakref.ref(self))
        FakePicamera2.open_now += 1
        self.sensor_resolution = SENSOR
        self.camera_properties: dict[str, Any] = {"Model": "imx708", **self.properties}
        self.camera_controls: dict[str, Any] = dict(EARLY_CONTROLS)
        self.requested_sizes: list[tuple[int, int]] = []
        self.requested_sensors: list[Any] = []
        self.pre_callback: Callable[[FakeRequest], None] | None = None
        self.config: dict[str, Any] = {}
        self.pending: dict[str, Any] = {}  # controls that travel with the next start or request
        self.steps: list[str] = []
        self.started_with: list[dict[str, Any]] = []
        self.out: set[FakeRequest] = set()
        self.out_at: list[tuple[str, int]] = []
        self.is_started = False
        self.configure_errors: list[Exception | None] = []
        self.on_configure: Callable[[], None] = lambda: None
        self.on_starting: Callable[[], None] = lambda: None  # after the controls for the start were read
        self.on_start: Callable[[], None] = lambda: None
        self.on_controls: Callable[[], None] = lambda: None
        self.request_lock = threading.Lock()
        self.release_error: Exception | None = None

    def create_video_configuration(self, **requested: Any) -> dict[str, Any]:
        return {"kind": "video", "controls": {"FrameDurationLimits": (33_333, 33_333)}, **requested}

    def create_still_configuration(self, **requested: Any) -> dict[str, Any]:
        return {"kind": "still", "controls": {}, **requested}

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        FakePicamera2.modes_read += 1
        if self.modes_error is not None:
            raise self.modes_error
        return self.modes

    def camera_configuration(self) -> dict[str, Any]:
        return self.config

    def configure(self, requested: Mapping[str, Any]) -> None:
        assert not self.is_started, "Camera must be stopped before configuring"
        config = dict(requested)
        self.config = {}
        self.steps.append(f"configure {config['kind']}")
        if (error := self.configure_errors.pop(0) if self.configure_errors else None) is not None:
            raise error
        if config["colour_space"] is not SYCC:
            raise RuntimeError("Colour space has incorrect type")
        size = config["main"]["size"]
        self.requested_sizes.append(size)
        self.requested_sensors.append(config.get("sensor"))
        # The stream's own dictionary is changed in place.
        config["main"] |= {"stride": size[0], **self.gives}
        if not self.reports_colour_space:
            config["colour_space"] = None
        self.camera_controls = {}
        self.on_configure()  # at this moment no control is known
        self.camera_controls = dict(CONTROLS)
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


def camera_info(camera_id: str, model: str = "imx708") -> dict[str, Any]:
    return {"Id": camera_id, "Model": model, "Num": 0}


@contextmanager
def fake_picamera2(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakePicamera2]]:
    """Replace the modules by the fake, with one CSI camera."""

    class Platform(Enum):
        VC4 = 0
        PISP = 1

    package, platform, libcamera = (types.ModuleType(n) for n in ("picamera2", "picamera2.platform", "libcamera"))
    package.Picamera2, package.MappedArray, package.platform = FakePicamera2, FakeMappedArray, platform  # type: ignore[attr-defined]
    platform.Platform = Platform  # type: ignore[attr-defined]
    libcamera.ColorSpace = types.SimpleNamespace(Sycc=lambda: SYCC)  # type: ignore[attr-defined]
    for module in (package, platform, libcamera):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv(TUNING_VARIABLE, "")
    monkeypatch.delenv(TUNING_VARIABLE)
    for name, value in {
        "platform": Platform.VC4,
        "cameras": [camera_info(CSI)],
        "made": [],
        "tuning_read": [],
        "has_manager": False,
        "open_now": 0,
        "open_error": None,
        "gives": {},
        "reports_colour_space": True,
        "properties": {},
        "modes": [],
        "modes_error": None,
        "modes_read": 0,
    }.items():
        monkeypatch.setattr(FakePicamera2, name, value)
    yield FakePicamera2
    gc.collect()


class OpenedCamera:
    """A camera that is open, and the fake behind it; the test releases the frames."""

    def __init__(self, request: StreamRequest = REQUEST, **options: Any) -> None:
        self.camera = PicameraCamera(0, None, request, **options)
        self.frames: list[Frame] = []
        self.config = self.camera.open(self.frames.append)
        picam2 = FakePicamera2.made[-1]()
        assert picam2 is not None
        self.picam2 = picam2

    def deliver(self, size: int = 640 * 360 * 3 // 2, **options: Any) -> Frame:
        self.picam2.deliver(bytearray(size), **options)
        return self.frames[-1]

    def deliver_still(self) -> None:
        """Deliver a frame if the camera was configured for a still; to be called when it starts."""
        if self.picam2.config["kind"] == "still":
            width, height = self.picam2.config["main"]["size"]
            self.picam2.deliver(bytearray(b"\x07" * (width * height * 3 // 2)))
