"""A camera behind libcamera, through Picamera2.

Picamera2's event loop thread delivers the frames; the other calls come from the holder's camera thread. Beside this
module: `picamera_library` (imports Picamera2), `picamera_sensor` and `picamera_modes` (which sensor mode, how fast),
`picamera_hdr` (the sensor's own), `picamera_told` (controls), `picamera_frames` (a request as a frame),
`picamera_stills` (one request as a still), `picamera_buffers` (their memory).

What is done differently from Picamera2's examples, and why:

- Frames are taken in `pre_callback`, with no job: jobs run in strict order, and one that never finishes blocks all
  behind it. The request is kept, its buffer is encoded where it lies, and goes back with `Frame.release()`.
- `queue=False`, or Picamera2 would keep one of the buffers for a `capture_request` that never comes.
- What the camera can is asked after `configure()`: before, libcamera's module for the Raspberry Pi gives one table for
  every sensor (30 to 8.33 fps), and the real limits come with the sensor mode.
- `stop()` waits without a timeout; the holder watches from outside, and the process ends when it hangs.
"""

import gc
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

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
    TROUBLES,
    CameraEntry,
    find_tuning_file,
    has_raw,
    is_busy,
    is_pisp,
    libcamera,
    list_cameras,
    picamera2,
    root_cause,
)
from softcam.camera.picamera.request import OutstandingFrames, frame_of
from softcam.camera.picamera.sensor_modes import SensorModes, frame_rate_controls, is_too_fast
from softcam.camera.session.frame_rate import PIPELINE_FRAMES, FrameDecimator
from softcam.errors import CameraBusy, CameraError, CameraMissing, ConfigurationError, NotSupported
from softcam.imaging.frame import Frame
from softcam.imaging.planes import pixel_format_of

__all__ = ["CameraEntry", "PicameraCamera", "list_cameras"]

log = logging.getLogger(__name__)

# Picamera2's own number for video. At most five are out: the slot keeps one, each of the two encoders one, and two
# snapshots at a time one each; with one left the sensor still delivers, at a lower rate for that moment.
_BUFFERS: Final = 6
_RETURN_LIMIT_S: Final = 2.0  # frames are held for one encode, tens of milliseconds on a small Pi
_STILL_FRAME_LIMIT_S: Final = 10.0  # for the first frame of a still, beyond its exposure
_STILL_BUFFERS: Final = 2  # a full-resolution buffer is 18 MB, and CMA memory is scarce (picamera2 #869)
_TUNING_VARIABLE: Final = "LIBCAMERA_RPI_TUNING_FILE"  # read by libcamera when it finds the camera

T = TypeVar("T")


class PicameraCamera:
    """One camera of Picamera2's list, chosen by libcamera's id, or by its place in the list."""

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
    ) -> None:
        """Finds the camera and opens nothing. Raises CameraMissing when it is not there.

        `tuning_file`, a path or the name of one of libcamera's own, goes before `is_noir`, which takes libcamera's
        tuning for the sensor without infrared filter; `noir_model` names the sensor where the camera says it wrongly.
        Raises ConfigurationError when there is no such tuning file.
        """
        self._number = number
        self._id = camera_id
        self._stream_request = request
        self._tuning_file = None if tuning_file is None else find_tuning_file(tuning_file)
        if tuning_file is not None:
            if self._tuning_file is None:
                raise ConfigurationError(
                    [f"tuning_file {tuning_file}: wants a file, or the name of one of libcamera's"]
                )
            os.environ[_TUNING_VARIABLE] = str(self._tuning_file)
        entry = self._find()
        if is_noir and tuning_file is None:
            self._use_noir_tuning(noir_model or entry.model)
        self.number = entry.number
        self.name = f"{entry.model} ({entry.id})"
        # Written by the camera thread, read by any: a reference, replaced as a whole.
        self._picam2: Any = None
        self._told: ControlSender | None = None
        self._mode: StreamConfig | None = None
        self._take: Callable[[Any], None] = _leave_alone  # what `pre_callback` does with a request now
        # Of the camera thread alone:
        self._stream_config: Mapping[str, Any] = {}
        self._take_stream: Callable[[Any], None] = _leave_alone
        self._is_stream_configured = False
        self._buffers: Buffers | None = None
        self._out = OutstandingFrames()
        self._hdr = SensorHdr()
        self._modes = SensorModes()
        self._has_told_rate = False  # that the camera cannot give the wished one

    def prepare(self, request: StreamRequest) -> None:
        self._stream_request = request

    def is_present(self) -> bool:
        try:
            self._find()
        except CameraMissing:
            return False
        return True

    def open(self, on_frame: OnFrame, on_configured: OnConfigured = ignore_config) -> StreamConfig:
        package = picamera2()
        entry = self._find()
        place = entry.number
        tuning = None if self._tuning_file is None else str(self._tuning_file)
        self._hdr.switch(place, self._stream_request.hdr, self.name)
        try:
            picam2 = package.Picamera2(place, tuning=tuning)
        except IndexError as error:
            raise CameraMissing(f"camera {self.name} is missing") from error
        except RuntimeError as error:
            # Picamera2 has no error of its own for either; a camera that is listed and cannot be opened is taken.
            self._find()
            raise CameraBusy(f"camera {self.name} is busy or cannot be opened: {root_cause(error)}") from error
        try:
            self._picam2 = picam2
            self._told = ControlSender(picam2)
            self._out = OutstandingFrames()
            self._has_told_rate = False
            self._modes.read(picam2, entry.id, is_hdr=bool(self._hdr.is_on))
            self._buffers = Buffers(picam2)
            mode = self._mode = self._configure(on_frame)
            on_configured(mode)
            self._start(self._frame_rate())
        except CameraError:
            self.close()
            raise
        except TROUBLES as error:
            self.close()
            if is_busy(error):
                # It could be acquired, since that is libcamera's own lock; a program that uses V4L2 directly has it.
                self._find()
                raise CameraBusy(f"camera {self.name} is busy: {root_cause(error)}") from error
            raise CameraError(f"camera {self.name} cannot be started: {root_cause(error)}") from error
        return mode

    def restart(self) -> None:
        picam2 = self._opened()
        self._await_frames()
        try:
            picam2.stop()
            if not self._is_stream_configured:
                # A still failed on its way back. Without this, start() would take Picamera2's preview configuration.
                self._configure_stream()
            self._start(self._frame_rate())
        except TROUBLES as error:
            raise CameraError(f"camera {self.name}: {root_cause(error)}") from error

    def still(self, size: tuple[int, int] | None, controls_for: StillControls = no_controls) -> Frame:
        size = size or tuple(self._opened().sensor_resolution)
        return self._take_one(stills.picture(size, self._format()), controls_for)

    def raw_still(self) -> RawStill:
        picam2 = self._opened()
        if not has_raw(picam2):
            raise NotSupported(f"camera {self.name} gives no raw pictures")
        mode = self._mode
        main = (640, 480) if mode is None else (mode.width, mode.height)
        return self._take_one(stills.raw(tuple(picam2.sensor_resolution), main), no_controls)

    def _take_one(self, still: stills.Still[T], controls_for: StillControls) -> T:
        """Switch the mode for one request, and back."""
        picam2, buffers, told = self._opened(), self._opened_buffers(), self._opened_told()
        self._take = _leave_alone
        self._await_frames()
        try:
            picam2.stop()
            wanted = picam2.create_still_configuration(
                **still.streams,
                **self._transform(),
                colour_space=libcamera().ColorSpace.Sycc(),
                buffer_count=_STILL_BUFFERS,
                queue=False,
            )
            self._modes.choose(picam2, wanted, still.least, 0)
            self._is_stream_configured = False
            try:
                buffers.configure(wanted, is_stream=False)
                still.config = dict(picam2.camera_configuration()["main"])
                pixel_format_of(still.config["format"])
                controls = controls_for(picam2.camera_controls, tuple(still.config["size"]))
                self._take = still
                self._start({}, controls)
                limit_s = _STILL_FRAME_LIMIT_S + PIPELINE_FRAMES * told.frame_s(controls)
                is_in_time = still.wait(limit_s)
                self._take = _leave_alone
                picam2.stop()
            finally:
                # Whatever became of the still, the stream goes on.
                self._configure_stream()
                self._start(self._frame_rate())
            if not is_in_time:
                raise CameraError(f"none came within {limit_s:.0f} s")
            return still.result()
        except (CameraError, *TROUBLES) as error:
            raise CameraError(f"no still from camera {self.name}: {root_cause(error)}") from error

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        told, mode = self._told, self._mode
        if told is None or mode is None:
            return
        unknown = [name for name in controls if name not in mode.controls]
        if unknown:
            raise NotSupported(f"camera {self.name} has no control {', '.join(unknown)}")
        told.send(controls)

    def close(self) -> None:
        picam2, self._picam2 = self._picam2, None
        buffers, self._buffers = self._buffers, None
        self._mode = self._told = None
        self._take = _leave_alone
        if picam2 is None:
            return
        # A request that is given back after close() would touch descriptors that are closed by then.
        self._await_frames()
        try:
            try:
                picam2.close()
            finally:
                if buffers is not None:
                    buffers.close()
        except TROUBLES as error:
            raise CameraError(f"camera {self.name} cannot be closed: {root_cause(error)}") from error
        # Picamera2 leaves two epoll sets and a dma-heap behind in reference cycles, three descriptors for each opening.
        del picam2, buffers
        gc.collect()

    # --- inside -----------------------------------------------------------------------------------------------

    def _find(self) -> CameraEntry:
        entries = list_cameras()
        for entry in entries:
            if entry.id == self._id if self._id is not None else entry.number == self._number:
                return entry
        there = ", ".join(f"{entry.number} is {entry.model} ({entry.id})" for entry in entries) or "none at all"
        asked = f"with id {self._id}" if self._id is not None else f"number {self._number}"
        raise CameraMissing(f"camera {asked} is missing; there: {there}")

    def _use_noir_tuning(self, model: str) -> None:
        name = f"{model.removesuffix('_noir')}_noir.json"
        path = find_tuning_file(name)
        if path is None:
            log.warning("No tuning file %s for a camera without infrared filter; the usual one is used", name)
            return
        log.info("Tuning for a camera without infrared filter: %s", path)
        self._tuning_file = path
        os.environ[_TUNING_VARIABLE] = str(path)
        # Listing the cameras has read the usual tuning already; libcamera looks again in a new manager.
        picamera2().Picamera2._cm.reset()

    def _opened(self) -> Any:
        if self._picam2 is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._picam2

    def _opened_told(self) -> ControlSender:
        if self._told is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._told

    def _opened_buffers(self) -> Buffers:
        if self._buffers is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._buffers

    def _format(self) -> str:
        # USB cameras reach their full rate only as MJPEG; the others give YUV420, which JPEG is made of directly.
        return "MJPEG" if "/usb" in self.name else "YUV420"

    def _configure(self, on_frame: OnFrame) -> StreamConfig:
        """All that goes before the first start."""
        picam2 = self._picam2
        request = self._stream_request
        config = picam2.create_video_configuration(
            main={"size": (request.width, request.height), "format": self._format()},
            raw=None,
            **self._transform(),
            # Full range, as JPEG wants it; the video default is limited and shows grey blacks.
            colour_space=libcamera().ColorSpace.Sycc(),
            buffer_count=_BUFFERS,
            queue=False,
        )
        self._modes.choose(picam2, config, (request.width, request.height), request.fps)
        # What was asked, and not what the camera tells: a USB camera tells no colour space, and that is refused.
        self._stream_config = config
        self._take_stream = _leave_alone
        self._configure_stream()
        given = picam2.camera_configuration().get("transform")
        if given is not None and (bool(given.hflip), bool(given.vflip)) != (request.hflip, request.vflip):
            raise NotSupported(f"camera {self.name} cannot mirror or turn its picture")
        got = dict(picam2.camera_configuration()["main"])
        width, height = got["size"]
        log.info(
            "Negotiated main stream: %dx%d %s (asked %dx%d at %g fps)",
            width,
            height,
            got["format"],
            request.width,
            request.height,
            request.fps,
        )
        mode = StreamConfig(
            width,
            height,
            pixel_format_of(got["format"]),
            tuple(picam2.sensor_resolution),
            dict(picam2.camera_controls),
            dict(picam2.camera_properties),
            has_sensor_hdr=self._hdr.is_there,
            has_raw=has_raw(picam2),
            has_hdr_modes=is_pisp(),
        )
        sequence = 0
        out = self._out
        thinning = FrameDecimator(request.fps) if is_too_fast(picam2.camera_controls, request.fps) else None

        def take(request: Any) -> None:
            nonlocal sequence
            if thinning is not None and not thinning.should_pass(time.monotonic()):
                return
            sequence += 1
            on_frame(frame_of(request, got, sequence, out))

        self._take = self._take_stream = take
        picam2.pre_callback = self._pre_callback
        return mode

    def _start(self, *controls: Mapping[str, Any]) -> None:
        """Start what is configured; a start that fails also forgets the controls of `ControlSender.start`."""
        told = self._opened_told()
        try:
            told.start(*controls)
        except TROUBLES as error:
            if not self._opened_buffers().give_up_others():
                raise
            log.info("Not started (%s): tried once more without the other set of pictures", root_cause(error))
            told.start(*controls)

    def _configure_stream(self) -> None:
        """For a camera that is stopped."""
        self._opened_buffers().configure(self._stream_config, is_stream=True)
        self._is_stream_configured = True
        self._take = self._take_stream

    def _pre_callback(self, request: Any) -> None:
        try:
            self._take(request)
        except Exception:
            # An exception that leaves this callback ends Picamera2's event loop, and with it the stream. The
            # watchdog sees the frame that is missing.
            log.exception("A frame was lost")

    def _await_frames(self) -> None:
        """Wait until every frame was given back; a buffer must not change or vanish under an encoder."""
        take, self._take = self._take, _leave_alone
        try:
            late = self._out.wait(_RETURN_LIMIT_S)
            if late:
                log.warning("%d frames were not given back in time", late)
        finally:
            self._take = take

    def _frame_rate(self) -> Mapping[str, Any]:
        """What sets the wished rate; for a camera that is configured for the stream."""
        fps = self._stream_request.fps
        controls = frame_rate_controls(self._opened().camera_controls, fps)
        if controls:
            told_fps = 1e6 / controls["FrameDurationLimits"][0]
            if abs(told_fps - fps) > fps / 100 and not self._has_told_rate:  # less is rounding
                self._has_told_rate = True
                log.warning("The camera cannot give %g fps here; it is told %.2f", fps, told_fps)
        return controls

    def _transform(self) -> Mapping[str, Any]:
        request = self._stream_request
        if not (request.hflip or request.vflip):
            return {}
        return {"transform": libcamera().Transform(hflip=request.hflip, vflip=request.vflip)}


def _leave_alone(_request: Any) -> None:
    """Nobody takes frames now: Picamera2 gives the request back by itself."""
