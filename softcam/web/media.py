"""Pictures over HTTP: the MJPEG stream and the snapshot. Runs on the threads of requests; opens no socket."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from socket import socket
from typing import Any, Final

from softcam.camera.base import StreamMode
from softcam.camera.holder import CameraHolder
from softcam.errors import CameraError
from softcam.exif import exif_segment, with_exif
from softcam.fanout import CONTENT_TYPE, FanOut, Viewer
from softcam.frames import Frame
from softcam.pictures import PictureKey, Pictures, Size
from softcam.web import parameters
from softcam.web.messages import ANYONE_MAY_READ, NEVER_KEEP, Answer, HandOver, HttpError, Request, Response

# Home Assistant gives a snapshot 10 s; longer, nobody listens any more.
_SNAPSHOT_LIMIT_S: Final = 10.0
# Opening has its own, shorter limits inside; this one is above them all.
_STREAM_LIMIT_S: Final = 30.0
# What autofocus may add to a snapshot nobody asked it for: Moonraker waits a second in all.
_FOCUS_BUDGET_S: Final = 0.6
_RETRY_AFTER_S: Final = 5
_HEADERS: Final = {**NEVER_KEEP, **ANYONE_MAY_READ, "X-Accel-Buffering": "no"}

SMALLEST_PX: Final = 16
LARGEST_PX: Final = 8192


@dataclass(frozen=True, slots=True)
class MediaDefaults:
    """What is given to who asks for nothing particular."""

    quality: int
    snapshot_size: Size | None  # None is the stream's
    snapshot_quality: int
    autofocus_timeout_s: float
    max_clients: int


class Media:
    """Answers for `/stream.mjpg` and `/snapshot.jpg`."""

    def __init__(
        self, holder: CameraHolder | None, pictures: Pictures, fanout: FanOut, defaults: MediaDefaults
    ) -> None:
        """`holder` is None where the camera is switched off by configuration."""
        self._holder = holder
        self._pictures = pictures
        self._fanout = fanout
        self._defaults = defaults
        self._places = threading.BoundedSemaphore(defaults.max_clients)

    def stream(self, request: Request) -> Answer:
        """MJPEG: `quality` 1 to 100, `fps` at most, `width` in pixels (never larger than the camera's stream)."""
        query = request.query
        quality = parameters.whole(query, "quality", 1, 100)
        fps = parameters.decimal(query, "fps", 0.01, 1000)
        width = parameters.whole(query, "width", SMALLEST_PX, LARGEST_PX) or 0
        holder = self._camera()
        if not request.wants_body:
            return Response(b"", CONTENT_TYPE, headers=_HEADERS)
        leave = self._enter(holder)
        try:
            mode = holder.wait_ready(time.monotonic() + _STREAM_LIMIT_S)
        except BaseException:
            leave()
            raise
        # What gives the same picture gives the same key, so that it is encoded once: widths are made even anyway, and
        # only a camera's own JPEGs tell a quality that was asked for from the usual one.
        width = width // 2 * 2
        is_quality_asked = quality is not None and mode.pixel_format == "MJPEG"
        key = PictureKey(width if width < mode.width else 0, quality or self._defaults.quality, is_quality_asked)
        interval_s = 1 / fps if fps else 0.0

        def take(connection: socket) -> None:
            self._fanout.add(Viewer(connection, request.client, key, interval_s, leave))

        return HandOver(take, leave, CONTENT_TYPE, _HEADERS)

    def snapshot(self, request: Request) -> Answer:
        """One JPEG: `quality`, `width`, `height`, `max_age` (seconds), `autofocus`, `full` (the whole sensor)."""
        asked_s = time.monotonic()
        deadline_s = asked_s + _SNAPSHOT_LIMIT_S
        query = request.query
        quality = parameters.whole(query, "quality", 1, 100)
        width = parameters.whole(query, "width", SMALLEST_PX, LARGEST_PX)
        height = parameters.whole(query, "height", SMALLEST_PX, LARGEST_PX)
        max_age_s = parameters.decimal(query, "max_age", 0, 3600) or 0.0
        wants_focus = parameters.boolean(query, "autofocus")
        wants_full = parameters.boolean(query, "full") or False
        holder = self._camera()
        if not request.wants_body:
            return Response(b"", "image/jpeg", headers=_HEADERS)
        with holder.lease("snapshot"):
            mode = holder.wait_ready(deadline_s)
            size = self._size((mode.width, mode.height), width, height)
            if wants_focus is None and max_age_s:
                wants_focus = False  # who takes an older picture does not wait for the lens
            has_focused = self._focus(holder, wants_focus, deadline_s)
            if wants_full or size[0] > mode.width or size[1] > mode.height:
                frame = holder.still(None if wants_full else _within(size, mode.sensor_size), deadline_s)
                if wants_full and width is None and height is None:
                    size = frame.size
            else:
                frame = holder.wait_frame(time.monotonic() if has_focused else asked_s - max_age_s, deadline_s)
            try:
                picture = self._pictures.snapshot(
                    frame,
                    _within(size, frame.size),
                    quality or self._defaults.snapshot_quality,
                    is_quality_asked=quality is not None,
                )
                return Response(_with_exif(picture, frame, mode), "image/jpeg", headers=_picture_headers(frame))
            finally:
                frame.release()

    def _camera(self) -> CameraHolder:
        if self._holder is None:
            raise CameraError("the camera is switched off (CAMERA_ENABLED=0)")
        return self._holder

    def _enter(self, holder: CameraHolder) -> Callable[[], None]:
        """A viewer's place and lease; gives what takes both back, to be called once. Raises HttpError when full."""
        if not self._places.acquire(blocking=False):
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._defaults.max_clients} places are taken",
                {"Retry-After": str(_RETRY_AFTER_S)},
            )
        try:
            lease = holder.lease("stream")
        except BaseException:
            self._places.release()
            raise

        def leave() -> None:
            lease.release()
            self._places.release()

        return leave

    def _size(self, stream: Size, width: int | None, height: int | None) -> Size:
        """The size to answer with; of width and height alone the other follows from the aspect ratio. Even numbers."""
        default = self._defaults.snapshot_size or stream
        if width is None and height is None:
            return default
        ratio = default[0] / default[1]
        wanted = (width or (height or 0) * ratio, height or (width or 0) / ratio)
        return _even(wanted[0]), _even(wanted[1])

    def _focus(self, holder: CameraHolder, wants_focus: bool | None, deadline_s: float) -> bool:
        """One acquisition before the picture; whether there was one.

        A running stream is in continuous focus, and is left in peace where nobody asks for more.
        """
        if wants_focus is None:
            if holder.status().leases["stream"]:
                return False
            budget_s = min(_FOCUS_BUDGET_S, self._defaults.autofocus_timeout_s)
        elif wants_focus:
            budget_s = self._defaults.autofocus_timeout_s
        else:
            return False
        return holder.focus.acquire(min(deadline_s, time.monotonic() + budget_s)) is not None


def _within(size: Size, most: Size) -> Size:
    """`size`, or the largest of its aspect ratio that fits into `most`: no picture is larger than what was seen."""
    factor = min(1.0, most[0] / size[0], most[1] / size[1])
    return size if factor == 1.0 else (_even(size[0] * factor), _even(size[1] * factor))


def _even(length: float) -> int:
    """Not above `length`, even, and something to see: 2 or more."""
    return max(2, 2 * math.floor(length / 2))


def _with_exif(picture: bytes, frame: Frame, mode: StreamMode) -> bytes:
    if frame.pixel_format == "MJPEG":
        return picture  # the camera's own, which may have such a block already
    metadata = frame.metadata
    segment = exif_segment(
        taken_at_s=frame.timestamp_s,
        exposure_us=_known(metadata.get("ExposureTime")),
        gain=_known(metadata.get("AnalogueGain")),
        lens_dioptres=_known(metadata.get("LensPosition")),
        model=mode.properties.get("Model"),
    )
    return with_exif(picture, segment)


def _known(value: Any) -> float | None:
    """A number to write down; libcamera gives NaN and infinity for what it does not know."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _picture_headers(frame: Frame) -> Mapping[str, str]:
    return {
        **_HEADERS,
        "Last-Modified": formatdate(frame.timestamp_s, usegmt=True),
        "X-Timestamp": f"{frame.timestamp_s:.6f}",
    }
