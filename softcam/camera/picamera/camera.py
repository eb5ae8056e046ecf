"""A camera of libcamera, through Picamera2.

Picamera2's event loop thread delivers the frames; the session's camera thread makes all other calls. Beside this
module: `library` (the only importer of Picamera2), `sensor_modes` (which mode, which frame rate), `hdr` (the sensor's
own), `control_sender`, `request` (a completed request as a frame), `still` (a request as a still), `buffers` (their
memory).

What differs from Picamera2's examples, and why:

- Frames are captured in `pre_callback`, without jobs: jobs run in strict order, and one that never finishes blocks all
  others. The request is held, its buffer is encoded in place, and `Frame.release()` returns it.
- `queue=False`, or Picamera2 would keep one of the buffers for a `capture_request` that never happens.
- Capabilities are read after `configure()`: before, libcamera's pipeline for the Raspberry Pi reports one table for
  every sensor (30 to 8.33 fps), and the real limits depend on the sensor mode.
- `stop()` has no timeout; the session monitors it from outside, and the process exits when it hangs.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
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
from softcam.camera.picamera import still as stills
from softcam.camera.picamera.buffers import Buffers
from softcam.camera.picamera.control_sender import ControlSender
from softcam.camera.picamera.hdr import SensorHdr
from softcam.camera.picamera.library import (
    LIBRARY_ERRORS,
    CameraEntry,
    has_raw,
    is_busy,
    is_pisp,
    libcamera,
    list_cameras,
    picamera2,
    root_cause,
)
from softcam.camera.picamera.request import OutstandingFrames, frame_of
from softcam.camera.picamera.sensor_modes import ModeReader, frame_rate_controls, is_too_fast
from softcam.camera.picamera.tuning import use_noir_tuning, use_tuning_file
from softcam.camera.session.frame_rate import PIPELINE_FRAMES, FrameDecimator
from softcam.errors import CameraBusy, CameraError, CameraMissing, NotSupported
from softcam.imaging.frame import Frame
from softcam.imaging.planes import pixel_format_of

log = logging.getLogger(__name__)

# Picamera2's own number for video. At most five are held: one by the newest-frame slot, one by each of two encoders,
# one by each of two concurrent snapshots. With one left the sensor still delivers, at a lower rate meanwhile.
_BUFFERS: Final = 6
_RETURN_TIMEOUT_S: Final = 2.0  # a frame is held while it is encoded, tens of milliseconds on a small Pi
_STILL_TIMEOUT_S: Final = 10.0  # for the first frame of a still, beyond its exposure
_STILL_BUFFERS: Final = 2  # a full-resolution buffer has 18 MB, and CMA memory is scarce (picamera2 #869)


@dataclass(frozen=True, slots=True)
class _Device:
    """An open Picamera2 and what belongs to this opening."""

    picam2: Any
    controls: ControlSender
    buffers: Buffers
    frames: OutstandingFrames = field(default_factory=OutstandingFrames)


class PicameraCamera:
    """Implements `softcam.camera.base.Camera` for a camera of Picamera2, chosen by libcamera's id or its number."""

    backend = "picamera2"

    def __init__(
        self,
        number: int | None,
        camera_id: str | None,
        request: StreamRequest,
        *,
        tuning_file: str | None = None,
        is_noir: bool = False,
        noir_model: str | None = None,
        return_timeout_s: float = _RETURN_TIMEOUT_S,
        still_timeout_s: float = _STILL_TIMEOUT_S,
    ) -> None:
        """Find the camera without opening it. Raises CameraMissing if it is not connected.

        `tuning_file`, a path or the name of one of libcamera's files, overrides `is_noir`, which selects libcamera's
        tuning for the sensor without infrared filter; `noir_model` names the sensor if the camera reports a wrong one.
        Raises ConfigurationError if there is no such tuning file. `return_timeout_s` limits the wait for held frames
        before the camera stops, `still_timeout_s` that for a still beyond its exposure.
        """
        self._number = number
        self._id = camera_id
        self._stream_request = request
        self._return_timeout_s = return_timeout_s
        self._still_timeout_s = still_timeout_s
        self._tuning_file = None if tuning_file is None else use_tuning_file(tuning_file)
        entry = self._find()
        if is_noir and tuning_file is None:
            self._tuning_file = use_noir_tuning(noir_model or entry.model)
        self.number = entry.number
        self.name = f"{entry.model} ({entry.id})"
        self.model = entry.model
        # USB cameras reach their full frame rate only in MJPEG; all others deliver YUV420, as a JPEG encoder expects.
        self._pixel_format = "MJPEG" if "/usb" in entry.id else "YUV420"
        # Written by the camera thread, read by any: references, replaced as a whole.
        self._device: _Device | None = None
        self._config: StreamConfig | None = None
        self._on_request: Callable[[Any], None] = _ignore_request  # what `pre_callback` does with a request now
        # The camera thread's own:
        self._stream_configuration: Mapping[str, Any] = {}
        self._on_stream_request: Callable[[Any], None] = _ignore_request
        self._is_stream_configured = False
        self._hdr = SensorHdr()
        self._modes = ModeReader()
        self._has_warned_of_rate = False  # once per opening

    def prepare(self, request: StreamRequest) -> None:
        self._stream_request = request

    def is_present(self) -> bool:
        try:
            self._find()
        except CameraMissing:
            return False
        return True

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        entry = self._find()
        tuning = None if self._tuning_file is None else str(self._tuning_file)
        self._hdr.switch_mode(entry.number, self._stream_request.hdr, self.name)
        try:
            picam2 = picamera2().Picamera2(entry.number, tuning=tuning)
        except IndexError as error:
            raise CameraMissing(f"camera {self.name} is missing") from error
        except RuntimeError as error:
            # Picamera2 has no error type for either case; a camera that is listed and cannot be opened is in use.
            self._find()
            raise CameraBusy(f"camera {self.name} is busy or cannot be opened: {root_cause(error)}") from error
        try:
            buffers = Buffers(picam2)
        except LIBRARY_ERRORS as error:
            picam2.close()
            raise CameraError(f"camera {self.name} cannot be opened: {root_cause(error)}") from error
        try:
            self._has_warned_of_rate = False
            self._device = _Device(picam2, ControlSender(picam2), buffers)
            self._modes.read_modes(picam2, entry.id, is_hdr=bool(self._hdr.is_on))
            config = self._config = self._configure(self._device, on_frame)
            on_configured(config)
            self._start(self._frame_rate())
        except CameraError:
            self.close()
            raise
        except LIBRARY_ERRORS as error:
            self.close()
            if is_busy(error):
                # The camera could be acquired, which is libcamera's own lock: a program that uses V4L2 directly has it.
                self._find()
                raise CameraBusy(f"camera {self.name} is busy: {root_cause(error)}") from error
            raise CameraError(f"camera {self.name} cannot be started: {root_cause(error)}") from error
        return config

    def restart(self) -> None:
        device = self._open_device()
        self._wait_for_frames(device)
        try:
            device.picam2.stop()
            if not self._is_stream_configured:
                # Returning from a still has failed. Without this, start() would use Picamera2's preview configuration.
                self._configure_stream(device)
            self._start(self._frame_rate())
        except LIBRARY_ERRORS as error:
            raise CameraError(f"camera {self.name}: {root_cause(error)}") from error

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        size = size or tuple(self._open_device().picam2.sensor_resolution)
        return self._capture(stills.frame_still(size, self._pixel_format), controls_for)

    def raw_still(self) -> RawStill:
        picam2 = self._open_device().picam2
        if not has_raw(picam2):
            raise NotSupported(f"camera {self.name} has no raw images")
        main_size = (self._stream_request.width, self._stream_request.height)
        return self._capture(stills.raw_still(tuple(picam2.sensor_resolution), main_size), no_controls)

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        device, config = self._device, self._config
        if device is None or config is None:
            return
        unknown = [name for name in controls if name not in config.controls]
        if unknown:
            raise NotSupported(f"camera {self.name} has no control {', '.join(unknown)}")
        device.controls.send_controls(controls)

    def close(self) -> None:
        device, self._device = self._device, None
        self._config = None
        self._on_request = _ignore_request
        if device is None:
            return
        # A request that is released after close() would use descriptors that are closed by then.
        self._wait_for_frames(device)
        try:
            try:
                device.picam2.close()
            finally:
                device.buffers.close()
        except LIBRARY_ERRORS as error:
            raise CameraError(f"camera {self.name} cannot be closed: {root_cause(error)}") from error
        # Picamera2 leaves two epoll sets and a dma-heap in reference cycles, three descriptors per opening.
        del device
        gc.collect()

    # --- finding the camera -----------------------------------------------------------------------------------

    def _find(self) -> CameraEntry:
        entries = list_cameras()
        for entry in entries:
            if entry.id == self._id if self._id is not None else entry.number == self._number:
                return entry
        there = ", ".join(f"{entry.number} is {entry.model} ({entry.id})" for entry in entries) or "none at all"
        requested = f"with id {self._id}" if self._id is not None else f"number {self._number}"
        raise CameraMissing(f"camera {requested} is missing; there: {there}")

    def _open_device(self) -> _Device:
        if self._device is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._device

    # --- the stream -------------------------------------------------------------------------------------------

    def _configure(self, device: _Device, on_frame: OnFrame) -> StreamConfig:
        """Configure the stream for the first time in this opening."""
        picam2 = device.picam2
        request = self._stream_request
        configuration = picam2.create_video_configuration(
            main={"size": (request.width, request.height), "format": self._pixel_format},
            raw=None,
            **self._transform(),
            # Full range, as in a JPEG; the default for video is limited range, with grey blacks.
            colour_space=libcamera().ColorSpace.Sycc(),
            buffer_count=_BUFFERS,
            queue=False,
        )
        sensor_mode = self._modes.set_mode(configuration, (request.width, request.height), request.fps, request.fov)
        # The requested values, not the negotiated ones: a USB camera returns no colour space, which is not accepted.
        self._stream_configuration = configuration
        self._on_stream_request = _ignore_request
        self._configure_stream(device)
        transform = picam2.camera_configuration().get("transform")
        if transform is not None and (bool(transform.hflip), bool(transform.vflip)) != (request.hflip, request.vflip):
            raise NotSupported(f"camera {self.name} cannot mirror or rotate its image")
        main = dict(picam2.camera_configuration()["main"])
        size, name, requested = main["size"], main["format"], (request.width, request.height, request.fps)
        log.info("Negotiated main stream: %dx%d %s (requested %dx%d at %g fps)", *size, name, *requested)
        config = StreamConfig(
            size[0],
            size[1],
            pixel_format_of(name),
            tuple(picam2.sensor_resolution),
            dict(picam2.camera_controls),
            dict(picam2.camera_properties),
            has_sensor_hdr=self._hdr.is_available,
            has_raw=has_raw(picam2),
            has_hdr_modes=is_pisp(),
            sensor_modes=self._modes.current,
            sensor_mode=sensor_mode,
        )
        sequence, frames = 0, device.frames  # no reference to the device: it would outlive close()
        decimator = FrameDecimator(request.fps) if is_too_fast(picam2.camera_controls, request.fps) else None

        def deliver(completed: Any) -> None:
            nonlocal sequence
            if decimator is not None and not decimator.should_pass(time.monotonic()):
                return
            sequence += 1
            on_frame(frame_of(completed, main, sequence, frames))

        self._on_request = self._on_stream_request = deliver
        picam2.pre_callback = self._pre_callback
        return config

    def _configure_stream(self, device: _Device) -> None:
        """Configure the stream again; the camera is stopped."""
        device.buffers.configure(self._stream_configuration, is_stream=True)
        self._is_stream_configured = True
        self._on_request = self._on_stream_request

    def _start(self, *controls: Mapping[str, Any]) -> None:
        """Start the configured camera with the controls of `ControlSender.start`, which a failed start drops."""
        device = self._open_device()
        try:
            device.controls.start(*controls)
        except LIBRARY_ERRORS as error:
            if not device.buffers.free_unused():
                raise
            log.info("Start failed (%s); freed still buffers, retrying", root_cause(error))
            device.controls.start(*controls)

    def _frame_rate(self) -> Mapping[str, Any]:
        """The controls for the requested frame rate; the camera is configured for the stream."""
        fps = self._stream_request.fps
        controls = frame_rate_controls(self._open_device().picam2.camera_controls, fps)
        if controls:
            possible_fps = 1e6 / controls["FrameDurationLimits"][0]
            if abs(possible_fps - fps) > fps / 100 and not self._has_warned_of_rate:  # less is rounding
                self._has_warned_of_rate = True
                log.warning("Requested %g fps is out of range, using %.2f fps", fps, possible_fps)
        return controls

    def _transform(self) -> Mapping[str, Any]:
        request = self._stream_request
        if not (request.hflip or request.vflip):
            return {}
        return {"transform": libcamera().Transform(hflip=request.hflip, vflip=request.vflip)}

    def _pre_callback(self, completed: Any) -> None:
        """Handle a completed request on Picamera2's event loop."""
        try:
            self._on_request(completed)
        except Exception:
            # An exception that leaves this callback ends the event loop and with it the stream. The session's watchdog
            # notices the missing frame.
            log.exception("Failed to process frame")

    def _wait_for_frames(self, device: _Device) -> None:
        """Wait until every frame is released: a buffer must not change or disappear while it is encoded."""
        on_request, self._on_request = self._on_request, _ignore_request
        try:
            late = device.frames.wait(self._return_timeout_s)
            if late:
                log.warning("Frames not released in time: %d", late)
        finally:
            self._on_request = on_request

    # --- stills -----------------------------------------------------------------------------------------------

    def _capture(self, still: stills.Still[stills.T], controls_for: StillControls) -> stills.T:
        """Switch the sensor mode for one request, and back."""
        device = self._open_device()
        picam2 = device.picam2
        self._on_request = _ignore_request
        self._wait_for_frames(device)
        try:
            picam2.stop()
            configuration = picam2.create_still_configuration(
                **still.streams,
                **self._transform(),
                colour_space=libcamera().ColorSpace.Sycc(),
                buffer_count=_STILL_BUFFERS,
                queue=False,
            )
            self._modes.set_mode(configuration, still.least_size, 0, self._stream_request.fov)
            self._is_stream_configured = False
            try:
                device.buffers.configure(configuration, is_stream=False)
                main = dict(picam2.camera_configuration()["main"])
                pixel_format_of(main["format"])
                controls = controls_for(picam2.camera_controls, tuple(main["size"]))
                self._on_request = partial(still.process_request, main)
                self._start({}, controls)
                timeout_s = self._still_timeout_s + PIPELINE_FRAMES * device.controls.frame_s(controls)
                is_in_time = bool(wait([still.future], timeout_s).done)
                self._on_request = _ignore_request
                picam2.stop()
            finally:
                # The stream is resumed even if the still has failed.
                self._configure_stream(device)
                self._start(self._frame_rate())
            if not is_in_time:
                raise CameraError(f"no frame within {timeout_s:.0f} s")
            return still.future.result()
        except (CameraError, *LIBRARY_ERRORS) as error:
            raise CameraError(f"no still from camera {self.name}: {root_cause(error)}") from error


def _ignore_request(_completed: Any) -> None:
    """Leave a request to Picamera2, which returns it to the camera."""
