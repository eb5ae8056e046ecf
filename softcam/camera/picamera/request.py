"""A request of Picamera2's made into a Frame: its buffer where it lies, its clocks, and its way back.

`frame_of` runs on Picamera2's event loop; a frame comes back on whatever thread releases it last.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.picamera.library import picamera2
from softcam.errors import CameraError
from softcam.imaging.frame import Frame
from softcam.imaging.planes import pixel_format_of, planes_of

log = logging.getLogger(__name__)

_CLOCK_SLACK_S: Final = 60.0  # a frame older than this has a timestamp of some other clock


@dataclass(frozen=True, slots=True)
class RequestHandle:
    """Where a frame comes from, for an encoder in hardware: Picamera2's request, valid while the frame is held.

    Such an encoder keeps the memory of pictures that it has had. It calls `keep` when it begins, and what that returns
    when it has let go of everything: until then the camera waits before it stops.
    """

    request: Any
    keep: Callable[[], Callable[[], None]]


class OutstandingFrames:
    """Which frames of one opening are with their users.

    A fresh one for each opening, and a token for each frame: a frame that comes back after it was given up takes
    nothing away from the count of the others.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards _out and _has_told
        self._out: set[object] = set()
        self._has_told = False

    def leave(self) -> Callable[[], None]:
        """One more is out; to be called once when it is back."""
        token = object()
        with self._changed:
            self._out.add(token)

        def came_back() -> None:
            with self._changed:
                self._out.discard(token)
                self._changed.notify_all()

        return came_back

    def wait(self, limit_s: float) -> int:
        """Until all are back; those that are not in time are waited for no more, and their number is returned."""
        with self._changed:
            self._changed.wait_for(lambda: not self._out, limit_s)
            late = len(self._out)
            self._out.clear()
        return late

    def tell(self, error: Exception) -> None:
        """A buffer could not be given back: with its traceback once, since each frame may go the same way."""
        with self._changed:
            is_first, self._has_told = not self._has_told, True
        level = logging.WARNING if is_first else logging.DEBUG
        log.log(
            level, "A buffer could not be given back to the camera: %s", error, exc_info=error if is_first else None
        )


def frame_of(request: Any, config: Mapping[str, Any], sequence: int, out: OutstandingFrames) -> Frame:
    """A frame over the request's own buffer, which Picamera2 gets back when the frame is released.

    `config` is the negotiated main stream. Raises CameraError for a buffer that does not fit it.
    """
    metadata = request.get_metadata()
    width, height = config["size"]
    pixel_format = pixel_format_of(config["format"])
    mapped = picamera2().MappedArray(request, "main", reshape=False, write=False)
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
    came_back = out.leave()

    def give_back() -> None:
        # On an encoder's thread, which must survive whatever Picamera2 raises here, its own assertions too: a camera
        # that is being stopped wants no buffer back, a closed one has no descriptor left, and controls travel with the
        # buffers, so that libcamera refuses one here that has no value of the right kind.
        try:
            with contextlib.ExitStack() as both:
                both.callback(request.release)
                both.callback(mapped.__exit__, None, None, None)  # first: nobody may look into what goes back
        except Exception as error:  # noqa: BLE001 - the edge to foreign code
            out.tell(error)
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
        origin=RequestHandle(request, out.leave),
    )


def _bytes_used(request: Any) -> int:
    """How much of an MJPEG camera's buffer is picture."""
    buffer = request.request.buffers[request.stream_map["main"]]
    return int(buffer.metadata.planes[0].bytes_used)


def _exposure_began_s(metadata: Mapping[str, Any]) -> float:
    """When the exposure began, on the monotonic clock.

    libcamera's control_ids_core.yaml calls SensorTimestamp the time when the first row is exposed, in nanoseconds of
    CLOCK_BOOTTIME, and leaves open whether the exposure begins or ends then. On a Raspberry Pi it is the stamp that the
    kernel's receiver puts on the buffer when the frame starts to arrive: the first row is read out, so its exposure
    has just ended. (That stamp is of CLOCK_MONOTONIC, which differs only on a machine that slept, as no Pi does.)
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
