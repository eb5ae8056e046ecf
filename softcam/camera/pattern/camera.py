"""The pattern camera: a moving test image, with the controls and the metadata of a Camera Module 3.

It is used without a real camera, and by tests: it opens, runs out of buffers, hangs and disappears as a camera on
libcamera does. This module implements the protocol. `stream` has the thread, `sensor` and `lens` the reaction to
controls, `renderer` the image, `faults` what can be made to fail. No thread is started here.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from softcam.camera.base import (
    OnConfigured,
    OnFrame,
    RawStill,
    StillControls,
    StreamConfig,
    StreamRequest,
    ignore_config,
    no_controls,
)
from softcam.camera.pattern.faults import Faults
from softcam.camera.pattern.sensor import HDR_MODES, MODES, SENSOR_SIZE, control_ranges, normalise_controls
from softcam.camera.pattern.stream import PatternStream
from softcam.errors import CameraBusy, CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame

_SMALLEST_SIDE_PX: Final = 32
_SLOW_OPEN_S: Final = 0.3  # as libcamera on a Raspberry Pi

# As Picamera2's `camera_properties` for a Camera Module 3.
_PROPERTIES: Final = {"Model": "imx708", "ColorFilterArrangement": 0, "PixelArraySize": SENSOR_SIZE}


class PatternCamera:
    """Implements `softcam.camera.base.Camera`."""

    backend = "pattern"
    name = "Pattern camera (behaves like an imx708)"
    model = "imx708"

    def __init__(
        self,
        request: StreamRequest,
        *,
        faults_file: Path | None = None,
        stop_timeout_s: float = 5.0,
        still_timeout_s: float = 10.0,
    ) -> None:
        """`faults_file` injects faults while the camera runs, see `faults`; the timeouts are `PatternStream`'s."""
        self._request = request
        self._faults = Faults(faults_file)
        self._stop_timeout_s = stop_timeout_s
        self._still_timeout_s = still_timeout_s
        # Written by the camera thread, read by any: replaced as a whole.
        self._stream: PatternStream | None = None

    def prepare(self, request: StreamRequest) -> None:
        self._request = request

    def is_present(self) -> bool:
        return "missing" not in self._faults.words()

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        """See `Camera.open`; the size is rounded down to even numbers and limited to that of the sensor's mode."""
        if self._stream is not None:
            raise CameraError("the pattern camera is already open")
        self._faults.wait_while("hang-open")
        if "slow-open" in self._faults.words():
            time.sleep(_SLOW_OPEN_S)
        self._raise_if_unavailable()
        request = self._request
        modes = MODES if request.hdr == "off" else HDR_MODES
        most = max(mode.size for mode in modes.modes)
        width, height = size = _possible_size((request.width, request.height), most)
        if "refuse" in self._faults.words() and (request.hflip or request.vflip):
            raise CameraError("the pattern camera does not start mirrored")
        request = replace(request, width=width, height=height)
        mode = modes.choose_mode(size, request.fps, request.fov)
        config = StreamConfig(
            width,
            height,
            "YUV420",
            SENSOR_SIZE,
            control_ranges(size, mode),
            _PROPERTIES,
            has_sensor_hdr=True,
            has_hdr_modes=True,
            sensor_modes=modes,
            sensor_mode=mode,
        )
        self._stream = PatternStream(request, mode, on_frame, self._faults, self._stop_timeout_s, self._still_timeout_s)
        on_configured(config)
        self._stream.start()
        return config

    def restart(self) -> None:
        """See `Camera.restart`; the controls keep their values."""
        stream = self._open_stream()
        stream.stop()
        self._faults.wait_while("hang-stop")
        self._raise_if_unavailable()
        if "fail-restart" in self._faults.words():
            raise CameraError("the pattern camera's stream does not restart")
        stream.start()

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        """See `Camera.still`; the size is rounded down to even numbers and limited to the sensor's."""
        stream = self._open_stream()
        self._faults.wait_while("hang-still")
        size = SENSOR_SIZE if size is None else _possible_size(size, SENSOR_SIZE)
        ranges = control_ranges(size, MODES.choose_mode(size, 0, self._request.fov))
        return stream.still(size, normalise_controls(controls_for(ranges, size)))

    def raw_still(self) -> RawStill:
        raise NotSupported("the pattern camera has no raw images")

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """See `Camera.set_controls`; a value out of a control's range is clamped to it."""
        stream = self._stream
        if stream is not None:
            stream.send_controls(normalise_controls(controls))

    def close(self) -> None:
        """See `Camera.close`; raises CameraStuck when `on_frame` does not return."""
        stream = self._stream
        if stream is None:
            return
        stream.stop()
        self._faults.wait_while("hang-stop")
        self._faults.wait_while("hang-close")
        self._stream = None

    def _open_stream(self) -> PatternStream:
        if self._stream is None:
            raise CameraError("the pattern camera is closed")
        return self._stream

    def _raise_if_unavailable(self) -> None:
        words = self._faults.words()
        if "missing" in words:
            raise CameraMissing("the pattern camera is missing")
        if "busy" in words:
            raise CameraBusy("the pattern camera is in use by another program")


def _possible_size(size: tuple[int, int], most: tuple[int, int]) -> tuple[int, int]:
    """The nearest even size that the sensor supports."""
    width, height = (min(max(side, _SMALLEST_SIDE_PX), limit) // 2 * 2 for side, limit in zip(size, most, strict=True))
    return width, height
