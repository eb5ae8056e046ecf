"""A completed request of Picamera2 as a Frame over the request's own buffer, without a copy.

`frame_of` runs on Picamera2's event loop; the thread that releases a frame last returns its request to the camera.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.picamera.library import picamera2
from softcam.errors import CameraError
from softcam.imaging.frame import Frame
from softcam.imaging.planes import pixel_format_of, planes_of
from softcam.runtime.log_limit import RateLimitedLogger

log = logging.getLogger(__name__)

_CLOCK_SLACK_S: Final = 60.0  # an older frame has the timestamp of another clock


@dataclass(frozen=True, slots=True)
class RequestHandle:
    """The request of a frame for the hardware encoder, valid while the frame is held.

    That encoder keeps the memory of frames that it has encoded. It calls `acquire` when it starts, and the function
    returned by that once it has released everything; until then the camera waits before it stops.
    """

    request: Any
    acquire: Callable[[], Callable[[], None]]


class OutstandingFrames:
    """The frames of one opening that are not released yet. Any thread may call this.

    Each opening has a new object and each frame a token: a late release of a frame that is no longer waited for does
    not change the number of the others.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards _held
        self._held: set[object] = set()
        self.errors = RateLimitedLogger(log, math.inf)  # once per opening: each frame may fail the same way

    def acquire(self) -> Callable[[], None]:
        """Count one more frame, and return the function to call once it is released."""
        token = object()
        with self._changed:
            self._held.add(token)

        def release() -> None:
            with self._changed:
                self._held.discard(token)
                self._changed.notify_all()

        return release

    def wait(self, timeout_s: float) -> int:
        """Wait until all frames are released; returns the number of late ones, which are not waited for again."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, timeout_s)
            late = len(self._held)
            self._held.clear()
        return late


def frame_of(request: Any, config: Mapping[str, Any], sequence: int, outstanding: OutstandingFrames) -> Frame:
    """A frame over the request's buffer; releasing the frame returns the request to Picamera2.

    `config` is the negotiated main stream. Raises CameraError for a buffer that does not match it.
    """
    metadata = request.get_metadata()
    width, height = config["size"]
    pixel_format = pixel_format_of(config["format"])
    mapped = picamera2().MappedArray(request, "main", reshape=False, write=False)
    buffer = mapped.__enter__().array
    try:
        if pixel_format == "MJPEG":
            metadata_of_buffer = request.request.buffers[request.stream_map["main"]].metadata
            buffer = buffer[: metadata_of_buffer.planes[0].bytes_used]
        planes = planes_of(buffer, pixel_format, width, height, config["stride"])
    except CameraError:
        del buffer
        mapped.__exit__(None, None, None)
        raise
    del buffer
    request.acquire()
    release = outstanding.acquire()

    def give_back() -> None:
        # On an encoder's thread, which must survive everything that Picamera2 raises here, assertions included: a
        # camera that is being stopped accepts no buffer, a closed one has no descriptors, and controls are sent with
        # the buffers, so that libcamera rejects a value of a wrong type here.
        try:
            with contextlib.ExitStack() as both:
                both.callback(request.release)
                both.callback(mapped.__exit__, None, None, None)  # called first: the mapping ends before the release
        except Exception as error:  # noqa: BLE001 - the edge to foreign code
            outstanding.errors.warning("Failed to release request: %s", error, exc_info=error)
        finally:
            release()

    return Frame(
        planes,
        pixel_format,
        width,
        height,
        sequence=sequence,
        began_s=_exposure_began_s(metadata),
        metadata=metadata,
        on_release=give_back,
        origin=RequestHandle(request, outstanding.acquire),
    )


def _exposure_began_s(metadata: Mapping[str, Any]) -> float:
    """When the exposure began, on the monotonic clock.

    libcamera's control_ids_core.yaml defines SensorTimestamp as the time when the first row is exposed, in nanoseconds
    of CLOCK_BOOTTIME, without saying whether the exposure begins or ends then. On a Raspberry Pi it is the timestamp
    that the kernel's receiver sets when the frame starts to arrive: the first row is read out, so its exposure has just
    ended. (That timestamp is CLOCK_MONOTONIC, which differs only on a machine that slept, as no Pi does.)
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
