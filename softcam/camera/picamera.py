"""A camera behind libcamera, through Picamera2. The only importer of picamera2 and libcamera.

Picamera2 is imported when a camera is made or listed, never before: it is slow to import and absent on most machines.
Its event loop thread delivers the frames; the other calls come from the holder's camera thread.

What is done differently from Picamera2's examples, and why:

- Frames are taken in `pre_callback`, with no job: jobs run in strict order, and one that never finishes blocks all
  behind it. The request is kept, its buffer is encoded where it lies, and goes back with `Frame.release()`.
- `queue=False`, or Picamera2 would keep one of the buffers for a `capture_request` that never comes.
- `stop()` waits without a timeout; the holder watches from outside, and the process ends when it hangs.
"""

import gc
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.base import OnFrame, StreamMode, StreamWish
from softcam.camera.pace import Thinning
from softcam.camera.planes import pixel_format_of, planes_of
from softcam.errors import CameraBusy, CameraError, CameraMissing, ConfigurationError, NotSupported
from softcam.frames import Frame

log = logging.getLogger(__name__)

_BUFFERS: Final = 6  # Picamera2's own number for video: the slot keeps one, encoders two, three stay with the sensor
_RETURN_LIMIT_S: Final = 2.0  # frames are held for one encode, tens of milliseconds on a small Pi
_STILL_FRAME_LIMIT_S: Final = 10.0
_STILL_BUFFERS: Final = 2  # a full-resolution buffer is 18 MB, and CMA memory is scarce (picamera2 #869)
_CLOCK_SLACK_S: Final = 60.0  # a frame older than this has a timestamp of some other clock
_TUNING_VARIABLE: Final = "LIBCAMERA_RPI_TUNING_FILE"  # read by libcamera when it finds the camera
_TUNING_FOLDERS: Final = ("/usr/local/share/libcamera/ipa/rpi", "/usr/share/libcamera/ipa/rpi")
# What Picamera2 and libcamera's binding raise for a camera that fails, for a value that is none, and for a buffer that
# somebody still looks into.
_TROUBLES: Final = (RuntimeError, BufferError, TypeError, ValueError, OSError)
# One-off controls: sent again after a mode switch they would start something anew.
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_MOMENTARY: Final = frozenset({"AfTrigger", "AfPause"})


@dataclass(frozen=True, slots=True)
class CameraEntry:
    """A line of the list of cameras: its place in it, libcamera's id and the model of the sensor."""

    number: int
    id: str
    model: str


def list_cameras() -> list[CameraEntry]:
    """The cameras in Picamera2's order; opens none. Raises CameraMissing when there is no Picamera2."""
    return [
        CameraEntry(place, str(info["Id"]), str(info.get("Model", "unknown")))
        for place, info in enumerate(_picamera2().Picamera2.global_camera_info())
    ]


class PicameraCamera:
    """One camera of Picamera2's list, chosen by libcamera's id, or by its place in the list."""

    backend = "picamera2"

    def __init__(
        self,
        number: int | None,
        camera_id: str | None,
        wish: StreamWish,
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
        self._wish = wish
        self._tuning_file = None if tuning_file is None else _find_tuning_file(tuning_file)
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
        self._mode: StreamMode | None = None
        self._take: Callable[[Any], None] = _leave_alone  # what `pre_callback` does with a request now
        # Of the camera thread alone:
        self._stream_config: Mapping[str, Any] = {}
        self._take_stream: Callable[[Any], None] = _leave_alone
        self._is_stream_configured = False
        self._sent: dict[str, Any] = {}  # to be sent again after every start; by set_controls, under _out
        self._out = threading.Condition(threading.Lock())  # guards _frames_out and _sent
        self._frames_out = 0
        # Of the camera thread alone.
        self._has_sensor_hdr = False
        self._is_hdr = False  # as far as this process has switched it

    def prepare(self, wish: StreamWish) -> None:
        self._wish = wish

    def is_present(self) -> bool:
        try:
            self._find()
        except CameraMissing:
            return False
        return True

    def open(self, on_frame: OnFrame) -> StreamMode:
        picamera2 = _picamera2()
        place = self._find().number
        tuning = None if self._tuning_file is None else str(self._tuning_file)
        self._switch_sensor_hdr(place)
        try:
            picam2 = picamera2.Picamera2(place, tuning=tuning)
        except IndexError as error:
            raise CameraMissing(f"camera {self.name} is missing") from error
        except RuntimeError as error:
            # Picamera2 has no error of its own for either; a camera that is listed and cannot be opened is taken.
            self._find()
            raise CameraBusy(f"camera {self.name} is busy or cannot be opened: {_root_cause(error)}") from error
        try:
            self._picam2 = picam2
            self._sent = {}
            self._mode = self._start_stream(on_frame)
        except CameraError:
            self.close()
            raise
        except _TROUBLES as error:
            self.close()
            raise CameraError(f"camera {self.name} cannot be started: {_root_cause(error)}") from error
        return self._mode

    def restart(self) -> None:
        picam2 = self._opened()
        self._await_frames()
        try:
            picam2.stop()
            if not self._is_stream_configured:
                # A still failed on its way back. Without this, start() would take Picamera2's preview configuration.
                self._configure_stream()
            self._send_again()
            picam2.start()
        except _TROUBLES as error:
            raise CameraError(f"camera {self.name}: {_root_cause(error)}") from error

    def still(self, size: tuple[int, int] | None, controls: Mapping[str, Any] = _NONE) -> Frame:
        size = size or tuple(self._opened().sensor_resolution)

        def take(request: Any, still_config: Mapping[str, Any]) -> Frame:
            frame = _frame_of(request, still_config, 0, _nothing)
            try:
                return _copy_of(frame)
            finally:
                frame.release()

        picture: Frame = self._take_one({"main": {"size": size, "format": self._format()}, "raw": None}, take, controls)
        return picture

    def raw_still(self) -> bytes:
        picam2 = self._opened()
        if not _has_raw(picam2):
            raise NotSupported(f"camera {self.name} gives no raw pictures")

        def take(request: Any, _still_config: Mapping[str, Any]) -> bytes:
            # Picamera2 writes a DNG to a path alone.
            with tempfile.TemporaryDirectory(prefix="soft-stream-") as folder:
                path = Path(folder, "raw.dng")
                request.save_dng(str(path))
                return path.read_bytes()

        # Beside the raw stream there has to be a main one, which nobody looks at.
        mode = self._mode
        size = (640, 480) if mode is None else (mode.width, mode.height)
        picture: bytes = self._take_one({"main": {"size": size, "format": "YUV420"}, "raw": {}}, take, _NONE)
        return picture

    def _take_one(
        self, streams: Mapping[str, Any], take: Callable[[Any, Mapping[str, Any]], Any], controls: Mapping[str, Any]
    ) -> Any:
        """Switch the mode for one request, of which `take` makes the result on the camera's own thread."""
        picam2 = self._opened()
        taken: list[Any] = []
        has_taken = threading.Event()

        def take_one(request: Any) -> None:
            if not taken:
                try:
                    taken.append(take(request, still_config))
                except (CameraError, *_TROUBLES) as error:
                    taken.append(error)
                has_taken.set()

        self._take = _leave_alone
        self._await_frames()
        try:
            picam2.stop()
            wanted = picam2.create_still_configuration(
                **streams,
                **self._transform(),
                colour_space=_libcamera().ColorSpace.Sycc(),
                buffer_count=_STILL_BUFFERS,
                queue=False,
            )
            self._is_stream_configured = False
            try:
                picam2.configure(wanted)
                still_config = dict(picam2.camera_configuration()["main"])
                pixel_format_of(still_config["format"])
                self._send_again(controls)
                self._take = take_one
                picam2.start()
                is_in_time = has_taken.wait(_STILL_FRAME_LIMIT_S)
                self._take = _leave_alone
                picam2.stop()
            finally:
                # Whatever became of the still, the stream goes on.
                self._configure_stream()
                self._send_again()
                picam2.start()
        except _TROUBLES as error:
            raise CameraError(f"no still from camera {self.name}: {_root_cause(error)}") from error
        if not is_in_time:
            raise CameraError(f"no still from camera {self.name} within {_STILL_FRAME_LIMIT_S:.0f} s")
        if isinstance(taken[0], Exception):
            raise CameraError(f"no still from camera {self.name}: {_root_cause(taken[0])}") from taken[0]
        return taken[0]

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        picam2, mode = self._picam2, self._mode
        if picam2 is None or mode is None:
            return
        unknown = [name for name in controls if name not in mode.controls]
        if unknown:
            raise NotSupported(f"camera {self.name} has no control {', '.join(unknown)}")
        with self._out:
            self._sent.update({name: value for name, value in controls.items() if name not in _MOMENTARY})
        try:
            picam2.set_controls(dict(controls))
        except RuntimeError as error:
            # Picamera2 knows no control while it is being configured anew, and gets this one again right after that.
            log.debug("Controls were not taken at once: %s", error)

    def close(self) -> None:
        picam2, self._picam2 = self._picam2, None
        self._mode = None
        self._take = _leave_alone
        if picam2 is None:
            return
        # A request that is given back after close() would touch descriptors that are closed by then.
        self._await_frames()
        try:
            picam2.close()
        except _TROUBLES as error:
            raise CameraError(f"camera {self.name} cannot be closed: {_root_cause(error)}") from error
        # Picamera2 leaves two epoll sets and a dma-heap behind in reference cycles, three descriptors for each opening.
        del picam2
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
        path = _find_tuning_file(name)
        if path is None:
            log.warning("No tuning file %s for a camera without infrared filter; the usual one is used", name)
            return
        log.info("Tuning for a camera without infrared filter: %s", path)
        self._tuning_file = path
        os.environ[_TUNING_VARIABLE] = str(path)
        # Listing the cameras has read the usual tuning already; libcamera looks again in a new manager.
        _picamera2().Picamera2._cm.reset()

    def _opened(self) -> Any:
        if self._picam2 is None:
            raise CameraError(f"camera {self.name} is closed")
        return self._picam2

    def _format(self) -> str:
        # USB cameras reach their full rate only as MJPEG; the others give YUV420, which JPEG is made of directly.
        return "MJPEG" if "/usb" in self.name else "YUV420"

    def _start_stream(self, on_frame: OnFrame) -> StreamMode:
        picam2 = self._picam2
        wish = self._wish
        config = picam2.create_video_configuration(
            main={"size": (wish.width, wish.height), "format": self._format()},
            raw=None,
            **self._transform(),
            # Full range, as JPEG wants it; the video default is limited and shows grey blacks.
            colour_space=_libcamera().ColorSpace.Sycc(),
            buffer_count=_BUFFERS,
            queue=False,
            controls=_frame_rate_controls(picam2.camera_controls, wish.fps),
        )
        # What was asked, and not what the camera tells: a USB camera tells no colour space, and that is refused.
        self._stream_config = config
        self._take_stream = _leave_alone
        self._configure_stream()
        given = picam2.camera_configuration().get("transform")
        if given is not None and (bool(given.hflip), bool(given.vflip)) != (wish.hflip, wish.vflip):
            raise NotSupported(f"camera {self.name} cannot mirror or turn its picture")
        got = dict(picam2.camera_configuration()["main"])
        width, height = got["size"]
        log.info(
            "Negotiated main stream: %dx%d %s (asked %dx%d at %g fps)",
            width,
            height,
            got["format"],
            wish.width,
            wish.height,
            wish.fps,
        )
        mode = StreamMode(
            width,
            height,
            pixel_format_of(got["format"]),
            tuple(picam2.sensor_resolution),
            dict(picam2.camera_controls),
            dict(picam2.camera_properties),
            has_sensor_hdr=self._has_sensor_hdr,
            has_raw=_has_raw(picam2),
        )
        sequence = 0

        thinning = Thinning(wish.fps) if _is_too_fast(picam2.camera_controls, wish.fps) else None

        def take(request: Any) -> None:
            nonlocal sequence
            if thinning is not None and not thinning.takes(time.monotonic()):
                return
            sequence += 1
            frame = _frame_of(request, got, sequence, self._frame_came_back)
            with self._out:
                self._frames_out += 1
            on_frame(frame)

        self._take = self._take_stream = take
        picam2.pre_callback = self._pre_callback
        picam2.start()
        return mode

    def _configure_stream(self) -> None:
        """For a camera that is stopped."""
        self._opened().configure(self._stream_config)
        self._is_stream_configured = True
        self._take = self._take_stream

    def _pre_callback(self, request: Any) -> None:
        try:
            self._take(request)
        except Exception:
            # An exception that leaves this callback ends Picamera2's event loop, and with it the stream. The
            # watchdog sees the frame that is missing.
            log.exception("A frame was lost")

    def _frame_came_back(self) -> None:
        with self._out:
            self._frames_out -= 1
            self._out.notify_all()

    def _await_frames(self) -> None:
        """Wait until every frame was given back; a buffer must not change or vanish under an encoder."""
        take, self._take = self._take, _leave_alone
        try:
            with self._out:
                if not self._out.wait_for(lambda: self._frames_out <= 0, _RETURN_LIMIT_S):
                    log.warning("%d frames were not given back in time", self._frames_out)
                    self._frames_out = 0
        finally:
            self._take = take

    def _transform(self) -> Mapping[str, Any]:
        wish = self._wish
        if not (wish.hflip or wish.vflip):
            return {}
        return {"transform": _libcamera().Transform(hflip=wish.hflip, vflip=wish.vflip)}

    def _switch_sensor_hdr(self, place: int) -> None:
        """The Camera Module 3's own HDR is a switch in the kernel's driver, for while nobody has the camera."""
        wanted = self._wish.hdr != "off"
        device = _hdr_switch(place)
        self._has_sensor_hdr = device is not None
        if device is None:
            if self._wish.hdr == "sensor":
                raise NotSupported(f"camera {self.name}: its sensor has no HDR")
            return
        try:
            with device:
                if wanted != self._is_hdr:
                    device.set_sensor_hdr_mode(wanted)
        except _TROUBLES as error:
            raise NotSupported(
                f"camera {self.name}: the sensor's HDR cannot be switched: {_root_cause(error)}"
            ) from error
        self._is_hdr = wanted

    def _send_again(self, more: Mapping[str, Any] = _NONE) -> None:
        picam2 = self._opened()
        with self._out:
            wanted = {**self._sent, **more}
        known = {name: value for name, value in wanted.items() if name in picam2.camera_controls}
        if known:
            picam2.set_controls(known)


def _picamera2() -> Any:
    try:
        import picamera2
        import picamera2.platform
    except ImportError as error:
        raise CameraMissing(
            f"picamera2 is missing ({error}): install it with 'sudo apt install python3-picamera2', "
            "or use the embedded camera with --camera pattern"
        ) from error
    return picamera2


def _hdr_switch(place: int) -> Any:
    """Picamera2's way to the switch, where the camera is one that has it."""
    try:
        from picamera2.devices.imx708 import IMX708

        return IMX708(place)
    # AttributeError is what libarchive's binding raises, which Picamera2's drivers import, without its library.
    except (ImportError, AttributeError, *_TROUBLES) as error:
        log.debug("No HDR in the sensor: %s", error)
        return None


def _has_raw(picam2: Any) -> bool:
    try:
        return bool(picam2.camera.generate_configuration([_libcamera().StreamRole.Raw]))
    except (AttributeError, *_TROUBLES) as error:  # an old binding has no such role
        log.debug("No raw pictures: %s", error)
        return False


def _find_tuning_file(name: str) -> Path | None:
    """A tuning file by its path, or by its name among libcamera's own for this machine; None where there is none."""
    if "/" in name:
        return Path(name) if Path(name).is_file() else None
    picamera2 = _picamera2()
    folder = "vc4" if picamera2.Picamera2.platform == picamera2.platform.Platform.VC4 else "pisp"
    for root in _TUNING_FOLDERS:
        path = Path(root, folder, name if name.endswith(".json") else f"{name}.json")
        if path.is_file():
            return path
    return None


def _libcamera() -> Any:
    import libcamera

    return libcamera


def _frame_of(request: Any, config: Mapping[str, Any], sequence: int, came_back: Callable[[], None]) -> Frame:
    """A frame over the request's own buffer, which Picamera2 gets back when the frame is released."""
    from picamera2 import MappedArray

    metadata = request.get_metadata()
    width, height = config["size"]
    pixel_format = pixel_format_of(config["format"])
    mapped = MappedArray(request, "main", reshape=False, write=False)
    buffer = mapped.__enter__().array
    try:
        if pixel_format == "MJPEG":
            buffer = buffer[: _bytes_used(request)]
        planes = planes_of(buffer, pixel_format, width, height, config["stride"])
    except CameraError:
        del buffer
        mapped.__exit__(None, None, None)
        raise
    del buffer
    request.acquire()

    def give_back() -> None:
        try:
            mapped.__exit__(None, None, None)
            request.release()
        except RuntimeError as error:
            # The camera is being stopped at this moment, and wants no buffer back.
            log.debug("A frame came back late: %s", error)
        except _TROUBLES as error:
            # Controls travel with the buffers: libcamera refuses one that has no value of the right kind here.
            log.warning("A buffer could not be given back to the camera: %s", error)
        finally:
            came_back()

    return Frame(
        planes,
        pixel_format,
        width,
        height,
        sequence=sequence,
        began_s=_exposure_began_s(metadata),
        metadata=metadata,
        give_back=give_back,
    )


def _copy_of(frame: Frame) -> Frame:
    """The same picture in memory of its own, for as long as anybody wants it."""
    return Frame(
        tuple(plane.copy() for plane in frame.planes),
        frame.pixel_format,
        frame.width,
        frame.height,
        began_s=frame.began_s,
        metadata=frame.metadata,
    )


def _bytes_used(request: Any) -> int:
    """How much of an MJPEG camera's buffer is picture."""
    buffer = request.request.buffers[request.stream_map["main"]]
    return int(buffer.metadata.planes[0].bytes_used)


def _exposure_began_s(metadata: Mapping[str, Any]) -> float:
    """When the exposure began, on the monotonic clock.

    SensorTimestamp is the end of the first line's exposure, in nanoseconds of CLOCK_BOOTTIME (libcamera's
    control_ids_core.yaml), which runs on while the machine sleeps.
    """
    now_s = time.monotonic()
    stamp_ns = metadata.get("SensorTimestamp")
    if stamp_ns is None:
        return now_s
    age_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - stamp_ns) / 1e9
    if not 0 <= age_s < _CLOCK_SLACK_S:
        age_s = 0.0
    exposure_s = float(metadata.get("ExposureTime") or 0) / 1e6
    return now_s - float(age_s) - exposure_s


def _frame_rate_controls(ranges: Mapping[str, Any], fps: float) -> dict[str, Any]:
    """FrameDurationLimits (microseconds) for a fixed rate, within what the camera can."""
    if "FrameDurationLimits" not in ranges:
        return {}
    shortest_us, longest_us, _ = ranges["FrameDurationLimits"]
    period_us = round(1e6 / fps)
    if isinstance(shortest_us, int) and isinstance(longest_us, int) and shortest_us < longest_us:
        period_us = min(max(period_us, shortest_us), longest_us)
    return {"FrameDurationLimits": (period_us, period_us)}


def _is_too_fast(ranges: Mapping[str, Any], fps: float) -> bool:
    """Whether the camera cannot be told to be as slow: many USB cameras have a rate of their own."""
    if "FrameDurationLimits" not in ranges:
        return True
    longest_us = ranges["FrameDurationLimits"][1]
    return isinstance(longest_us, int) and longest_us < round(1e6 / fps)


def _root_cause(error: BaseException) -> str:
    """Picamera2 wraps the telling message in general ones; the innermost says what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _leave_alone(_request: Any) -> None:
    """Nobody takes frames now: Picamera2 gives the request back by itself."""


def _nothing() -> None:
    """Nobody waits for this frame's return."""
