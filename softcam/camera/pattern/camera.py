"""The pattern camera: shown where there is no camera, and in tests the double of a Camera Module 3.

It opens, starves, hangs and vanishes as a camera on libcamera does. This module is the outside; the stream with its
thread is `pattern_stream`, how it reacts to controls `pattern_sensor` and `pattern_lens`, how it looks
`pattern_scene` and `pattern_picture`, and what can be made to fail `pattern_faults`. No thread is started here.
"""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from softcam.camera.base import (
    ControlRange,
    OnConfigured,
    OnFrame,
    RawPicture,
    StillControls,
    StreamConfig,
    StreamRequest,
    no_controls,
    nothing_to_tell,
)
from softcam.camera.pattern.faults import Faults
from softcam.camera.pattern.sensor import SENSOR_SIZE, advertise, normalise
from softcam.camera.pattern.stream import PatternStream
from softcam.errors import CameraBusy, CameraError, CameraMissing
from softcam.imaging import dng
from softcam.imaging.frame import Frame

_SMALLEST_SIDE_PX: Final = 32
_HDR_SIZE: Final = (SENSOR_SIZE[0] // 2, SENSOR_SIZE[1] // 2)  # the sensor's HDR takes four pixels for one

# As Picamera2's `camera_properties` for a Camera Module 3.
_PROPERTIES: Final[Mapping[str, Any]] = {
    "Model": "imx708",
    "Location": 2,
    "Rotation": 180,
    "UnitCellSize": (1400, 1400),
    "ColorFilterArrangement": 0,
    "PixelArraySize": SENSOR_SIZE,
    "PixelArrayActiveAreas": [(16, 24, *SENSOR_SIZE)],
    "ScalerCropMaximum": (0, 0, *SENSOR_SIZE),
    "SensorSensitivity": 1.0,
}


class PatternCamera:
    """Implements `softcam.camera.base.Camera`.

    `faults_file` names the text file from which faults are ordered while the camera runs; see `pattern_faults`.
    """

    def __init__(self, wish: StreamRequest, *, faults_file: Path | None = None) -> None:
        self._wish = wish
        self._faults = Faults(faults_file)
        self._lock = threading.Lock()  # guards _stream, which `set_controls` reads from any thread
        self._stream: PatternStream | None = None

    @property
    def backend(self) -> str:
        return "pattern"

    @property
    def name(self) -> str:
        return "Pattern camera (behaves like an imx708)"

    def prepare(self, wish: StreamRequest) -> None:
        self._wish = wish

    def is_present(self) -> bool:
        return "missing" not in self._faults.words()

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = nothing_to_tell) -> StreamConfig:
        """See `Camera.open`; the size is made even, kept within the sensor's, and halved by the sensor's HDR."""
        if self._stream is not None:
            raise CameraError("the pattern camera is open already")
        self._faults.wait_while("hang-open")
        self._raise_if_away()
        most = _HDR_SIZE if self._wish.hdr != "off" else SENSOR_SIZE
        width, height = _possible_size(min(self._wish.width, most[0]), min(self._wish.height, most[1]))
        if "refuse" in self._faults.words() and (self._wish.hflip or self._wish.vflip):
            raise CameraError("the pattern camera does not start mirrored")
        stream = PatternStream(self._wish_within(width, height), on_frame, self._faults)
        mode = StreamConfig(
            width,
            height,
            "YUV420",
            SENSOR_SIZE,
            advertise(width, height),
            dict(_PROPERTIES),
            has_sensor_hdr=True,
            has_raw=True,
            has_hdr_modes=True,
        )
        with self._lock:
            self._stream = stream
        on_configured(mode)
        stream.start()
        return mode

    def restart(self) -> None:
        """See `Camera.restart`; the controls keep their values."""
        stream = self._opened()
        stream.stop()
        self._faults.wait_while("hang-stop")
        self._raise_if_away()
        if "fail-restart" in self._faults.words():
            raise CameraError("the pattern camera's stream does not start again")
        stream.start()

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        """See `Camera.still`; the size is made even, and kept within the sensor's."""
        stream = self._opened()
        self._faults.wait_while("hang-still")
        given = SENSOR_SIZE if size is None else _possible_size(*size)
        controls = controls_for(advertise(*given), given)
        return stream.still(given, {name: normalise(name, value) for name, value in controls.items()})

    def raw_still(self) -> RawPicture:
        """See `Camera.raw_still`: the whole picture as the sensor's mosaic would have it."""
        frame = self.still(None, _whole)
        try:
            return RawPicture(dng.mosaic_of(frame, _PROPERTIES["Model"]), frame.timestamp_s)
        finally:
            frame.release()

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """See `Camera.set_controls`; a value beyond a control's range is clamped to it."""
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.send({name: normalise(name, value) for name, value in controls.items()})

    def close(self) -> None:
        """See `Camera.close`; raises CameraStuck when an `on_frame` does not return."""
        stream = self._stream
        if stream is None:
            return
        stream.stop()
        self._faults.wait_while("hang-stop")
        self._faults.wait_while("hang-close")
        with self._lock:
            self._stream = None

    def _wish_within(self, width: int, height: int) -> StreamRequest:
        return replace(self._wish, width=width, height=height)

    def _opened(self) -> PatternStream:
        if self._stream is None:
            raise CameraError("the pattern camera is closed")
        return self._stream

    def _raise_if_away(self) -> None:
        words = self._faults.words()
        if "missing" in words:
            raise CameraMissing("the pattern camera is missing")
        if "busy" in words:
            raise CameraBusy("the pattern camera is in use by another program")


def _whole(_ranges: Mapping[str, ControlRange], _size: tuple[int, int]) -> Mapping[str, Any]:
    """A raw picture knows no zoom."""
    return {"ScalerCrop": (0, 0, *SENSOR_SIZE)}


def _possible_size(width: int, height: int) -> tuple[int, int]:
    """The nearest even size that the sensor can give."""
    longest, highest = SENSOR_SIZE
    return (
        min(max(width, _SMALLEST_SIDE_PX), longest) // 2 * 2,
        min(max(height, _SMALLEST_SIDE_PX), highest) // 2 * 2,
    )
