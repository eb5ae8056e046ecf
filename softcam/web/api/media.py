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

from softcam.camera.base import RawPicture, StreamConfig, no_controls
from softcam.camera.session.manager import CameraManager
from softcam.controls.controller import ControlManager
from softcam.errors import CameraError, NoPicture, NotSupported
from softcam.imaging.dng import turned
from softcam.imaging.exif import exif_segment, make_of, with_exif, with_orientation
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg import size_of
from softcam.streaming.clients import StreamClient
from softcam.streaming.fanout import CONTENT_TYPE, FanOut
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant, Size
from softcam.web.http import query
from softcam.web.http.messages import (
    ANYONE_MAY_READ,
    NEVER_KEEP,
    Answer,
    HttpError,
    Request,
    Response,
    StreamingResponse,
    switched_off,
)
from softcam.web.http.router import Doc, Parameter

# Home Assistant gives a snapshot 10 s; longer, nobody listens any more.
_SNAPSHOT_LIMIT_S: Final = 10.0
# Opening has its own, shorter limits inside; this one is above them all.
STREAM_LIMIT_S: Final = 30.0
# What autofocus may add to a snapshot nobody asked it for: Moonraker waits a second in all.
_FOCUS_BUDGET_S: Final = 0.6
_RETRY_AFTER_S: Final = 5
_TURNS: Final = 2  # snapshots that hold a frame of the camera at once: with slot and encoders five of its six buffers
_MOST_DAMAGED: Final = 4  # JPEGs of the camera's own, one after the other: then it is no accident
_RAW_LIMIT_S: Final = 20.0  # a DNG of twelve million pixels is 24 MB, and is written on a card first
HEADERS: Final = {**NEVER_KEEP, **ANYONE_MAY_READ, "X-Accel-Buffering": "no"}

SMALLEST_PX: Final = 16
LARGEST_PX: Final = 8192
DNG_TYPE: Final = "image/x-adobe-dng"


_QUALITY: Final = Parameter("quality", "JPEG quality", {"type": "integer", "minimum": 1, "maximum": 100})
_SIDE_SCHEMA: Final = {"type": "integer", "minimum": SMALLEST_PX, "maximum": LARGEST_PX}
_YES_OR_NO: Final = {"type": "string", "enum": ["1", "0", "true", "false", "yes", "no", "on", "off"]}
STREAM_DOC: Final = Doc(
    "The live picture, MJPEG",
    "pictures",
    {200: {CONTENT_TYPE: None}},
    description="Every part has Content-Length and X-Timestamp, the moment of the exposure in Unix seconds.",
    parameters=(
        _QUALITY,
        Parameter("fps", "at most so many pictures in a second", {"type": "number", "minimum": 0.01, "maximum": 1000}),
        Parameter(
            "width", "in pixels, rounded down to an even number; never larger than the camera's stream", _SIDE_SCHEMA
        ),
    ),
    errors=(400, 503),
)
SNAPSHOT_DOC: Final = Doc(
    "One picture",
    "pictures",
    {200: {"image/jpeg": None, DNG_TYPE: None}},
    description="Exposed after the request, unless max_age allows an older one.",
    parameters=(
        _QUALITY,
        Parameter("width", "in pixels, rounded down to an even number; alone, it keeps the aspect ratio", _SIDE_SCHEMA),
        Parameter(
            "height", "in pixels, rounded down to an even number; alone, it keeps the aspect ratio", _SIDE_SCHEMA
        ),
        Parameter("max_age", "seconds that it may be old", {"type": "number", "minimum": 0, "maximum": 3600}),
        Parameter("autofocus", "focus first, or not", _YES_OR_NO),
        Parameter("full", "the whole sensor", _YES_OR_NO),
        Parameter("format", "dng is the sensor's own picture, raw", {"type": "string", "enum": ["jpeg", "dng"]}),
    ),
    errors=(400, 409, 503),
)


@dataclass(frozen=True, slots=True)
class MediaDefaults:
    """What is given to who asks for nothing particular."""

    quality: int
    snapshot_size: Size | None  # None is the stream's
    snapshot_quality: int
    autofocus_timeout_s: float
    max_clients: int


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """What is asked of one picture; None leaves it to the defaults."""

    quality: int | None = None
    width: int | None = None
    height: int | None = None
    max_age_s: float = 0.0
    wants_focus: bool | None = None
    wants_full: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One picture, and the header lines that tell when it was taken."""

    jpeg: bytes
    size: Size
    headers: Mapping[str, str]


class Media:
    """Answers for `/stream.mjpg` and `/snapshot.jpg`."""

    def __init__(
        self,
        manager: CameraManager | None,
        pictures: JpegEncoderPool,
        fanout: FanOut,
        defaults: MediaDefaults,
        control_manager: ControlManager | None = None,
    ) -> None:
        """`manager` is None if the camera is disabled, `control_manager` if nothing can be set."""
        self._manager = manager
        self._control_manager = control_manager
        self._pictures = pictures
        self._fanout = fanout
        self._defaults = defaults
        self._turns = threading.BoundedSemaphore(_TURNS)
        self._places = threading.BoundedSemaphore(defaults.max_clients)

    def stream(self, request: Request) -> Answer:
        """MJPEG: `quality` 1 to 100, `fps` at most, `width` in pixels (never larger than the camera's stream)."""
        parameters = request.query
        quality = query.whole(parameters, "quality", 1, 100)
        fps = query.decimal(parameters, "fps", 0.01, 1000)
        width = query.whole(parameters, "width", SMALLEST_PX, LARGEST_PX) or 0
        manager = self.camera()
        if not request.wants_body:
            return Response(b"", CONTENT_TYPE, headers=HEADERS)
        leave = self.enter(manager)
        try:
            mode = manager.wait_ready(time.monotonic() + STREAM_LIMIT_S)
        except BaseException:
            leave()
            raise
        # What gives the same picture gives the same key, so that it is encoded once: widths are made even anyway, and
        # only a camera's own JPEGs tell a quality that was asked for from the usual one.
        width = width // 2 * 2
        is_quality_asked = quality is not None and mode.pixel_format == "MJPEG"
        key = JpegVariant(width if width < mode.width else 0, quality or self._defaults.quality, is_quality_asked)
        interval_s = 1 / fps if fps else 0.0

        def take(connection: socket) -> None:
            self._fanout.add(StreamClient(connection, request.client, key, interval_s, leave))

        return StreamingResponse(take, leave, CONTENT_TYPE, HEADERS)

    def snapshot(self, request: Request) -> Answer:
        """One JPEG: `quality`, `width`, `height`, `max_age` (seconds), `autofocus`, `full` (the whole sensor).

        `format=dng` is the sensor's own picture, without all the others.
        """
        parameters = request.query
        wish = SnapshotOptions(
            quality=query.whole(parameters, "quality", 1, 100),
            width=query.whole(parameters, "width", SMALLEST_PX, LARGEST_PX),
            height=query.whole(parameters, "height", SMALLEST_PX, LARGEST_PX),
            max_age_s=query.decimal(parameters, "max_age", 0, 3600) or 0.0,
            wants_focus=query.boolean(parameters, "autofocus"),
            wants_full=query.boolean(parameters, "full") or False,
        )
        is_raw = query.choice(parameters, "format", ("jpeg", "dng")) == "dng"
        self.camera()
        if not request.wants_body:
            return Response(b"", DNG_TYPE if is_raw else "image/jpeg", headers=HEADERS)
        if is_raw:
            raw = self._raw(wish.wants_focus)
            headers = {
                **_picture_headers(raw.timestamp_s),
                "Content-Disposition": 'attachment; filename="snapshot.dng"',
            }
            return Response(turned(raw.dng, self._orientation), DNG_TYPE, headers=headers)
        taken = self.take(wish)
        return Response(taken.jpeg, "image/jpeg", headers=taken.headers)

    def take(self, wish: SnapshotOptions) -> Snapshot:
        """One picture. Raises CameraError, NoPicture among them."""
        asked_s = time.monotonic()
        deadline_s = asked_s + _SNAPSHOT_LIMIT_S
        manager = self.camera()
        width, height = wish.width, wish.height
        max_age_s, wants_focus, wants_full = wish.max_age_s, wish.wants_focus, wish.wants_full
        with manager.lease("snapshot"):
            mode = manager.wait_ready(deadline_s, max_age_s)
            size = self._size((mode.width, mode.height), width, height)
            if wants_focus is None and max_age_s:
                wants_focus = False  # who takes an older picture does not wait for the lens
            has_focused = self._focus(manager, wants_focus, deadline_s)
            if wants_full or size[0] > mode.width or size[1] > mode.height:
                manager.wait_frame(0.0, deadline_s).release()  # a cold camera's exposure would be that of the still
                still_size = None if wants_full else _within(size, mode.sensor_size)
                control_manager = self._control_manager
                controls_for = (
                    no_controls if control_manager is None else control_manager.still_view(is_whole=wants_full)
                )
                frame = manager.still(still_size, deadline_s, controls_for)
                if wants_full:  # the whole of it has a shape of its own, and not the stream's
                    size = self._size(frame.size, width, height, default=frame.size)
                return self._encode(wish, frame, size, mode)
            not_before_s = time.monotonic() if has_focused else asked_s - max_age_s
            # In turn, and the turn before the frame: each holds one of the camera's few buffers until it is encoded.
            if not self._turns.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                raise NoPicture("too many pictures are wanted at once")
            try:
                return self._encode_next(wish, manager, not_before_s, deadline_s, size, mode)
            finally:
                self._turns.release()

    def _encode_next(
        self,
        wish: SnapshotOptions,
        manager: CameraManager,
        not_before_s: float,
        deadline_s: float,
        size: Size,
        mode: StreamConfig,
    ) -> Snapshot:
        """The snapshot of the first frame that is whole: now and then a camera that makes JPEGs gives a damaged one."""
        damaged = 0
        while True:
            frame = manager.wait_frame(not_before_s, deadline_s)
            try:
                return self._encode(wish, frame, size, mode)
            except CameraError:
                damaged += 1
                if frame.pixel_format != "MJPEG" or damaged == _MOST_DAMAGED:
                    raise
            not_before_s = math.nextafter(frame.began_s, math.inf)

    def _encode(self, wish: SnapshotOptions, frame: Frame, size: Size, mode: StreamConfig) -> Snapshot:
        """The snapshot of a frame, whose hold is given back."""
        try:
            picture = self._pictures.snapshot(
                frame,
                _within(size, frame.size),
                wish.quality or self._defaults.snapshot_quality,
                is_quality_asked=wish.quality is not None,
            )
            size = size_of(picture)
            headers = _picture_headers(frame.timestamp_s)
            return Snapshot(_with_exif(picture, size, frame, mode, self._orientation), size, headers)
        finally:
            frame.release()

    @property
    def _orientation(self) -> int:
        """EXIF's, for every picture."""
        return 1 if self._control_manager is None else self._control_manager.orientation

    def _raw(self, wants_focus: bool | None) -> RawPicture:
        deadline_s = time.monotonic() + _RAW_LIMIT_S
        manager = self.camera()
        with manager.lease("snapshot"):
            mode = manager.wait_ready(deadline_s)
            if not mode.has_raw:
                raise NotSupported("format dng: this camera gives no raw pictures")
            self._focus(manager, wants_focus, deadline_s)
            manager.wait_frame(0.0, deadline_s).release()
            return manager.raw_still(deadline_s)

    def camera(self) -> CameraManager:
        """The camera to ask. Raises HttpError where it is switched off."""
        if self._manager is None:
            raise switched_off()
        return self._manager

    def enter(self, manager: CameraManager) -> Callable[[], None]:
        """A viewer's place and lease; gives what takes both back, to be called once. Raises HttpError when full."""
        if not self._places.acquire(blocking=False):
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._defaults.max_clients} places are taken",
                {"Retry-After": str(_RETRY_AFTER_S)},
            )
        try:
            lease = manager.lease("stream")
        except BaseException:
            self._places.release()
            raise

        def leave() -> None:
            lease.release()
            self._places.release()

        return leave

    def _size(self, stream: Size, width: int | None, height: int | None, default: Size | None = None) -> Size:
        """The size to answer with; of width and height alone the other follows from the aspect ratio. Even numbers."""
        default = default or self._defaults.snapshot_size or stream
        if width is None and height is None:
            return default
        ratio = default[0] / default[1]
        wanted = (width or (height or 0) * ratio, height or (width or 0) / ratio)
        return _even(wanted[0]), _even(wanted[1])

    def _focus(self, manager: CameraManager, wants_focus: bool | None, deadline_s: float) -> bool:
        """One acquisition before the picture; whether there was one.

        A running stream is in continuous focus, and is left in peace where nobody asks for more.
        """
        if wants_focus is None:
            if manager.status().is_streaming:
                return False
            budget_s = min(_FOCUS_BUDGET_S, self._defaults.autofocus_timeout_s)
        elif wants_focus:
            budget_s = self._defaults.autofocus_timeout_s
        else:
            return False
        return manager.focus.acquire(min(deadline_s, time.monotonic() + budget_s)) is not None


def _within(size: Size, most: Size) -> Size:
    """`size`, or the largest of its aspect ratio that fits into `most`: no picture is larger than what was seen."""
    factor = min(1.0, most[0] / size[0], most[1] / size[1])
    # Half a pixel for what the product lacks of a whole one; `most` is even, so it is not passed.
    return size if factor == 1.0 else (_even(size[0] * factor + 0.5), _even(size[1] * factor + 0.5))


def _even(length: float) -> int:
    """Not above `length`, even, and something to see: 2 or more."""
    return max(2, 2 * math.floor(length / 2))


def _with_exif(picture: bytes, size: Size, frame: Frame, mode: StreamConfig, orientation: int) -> bytes:
    if frame.pixel_format == "MJPEG":  # the camera's own, which may have such a block already
        return with_orientation(picture, orientation)
    metadata = frame.metadata
    segment = exif_segment(
        taken_at_s=frame.timestamp_s,
        size=size,
        exposure_us=_known(metadata.get("ExposureTime")),
        gain=_known(metadata.get("AnalogueGain")),
        lens_dioptres=_known(metadata.get("LensPosition")),
        make=make_of(mode.properties),
        model=mode.properties.get("Model"),
        orientation=orientation,
    )
    return with_exif(picture, segment)


def _known(value: Any) -> float | None:
    """A number to write down; libcamera gives NaN and infinity for what it does not know."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _picture_headers(timestamp_s: float) -> Mapping[str, str]:
    return {
        **HEADERS,
        "Last-Modified": formatdate(timestamp_s, usegmt=True),
        "X-Timestamp": f"{timestamp_s:.6f}",
    }
