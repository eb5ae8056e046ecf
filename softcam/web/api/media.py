"""The MJPEG stream and snapshots over HTTP. Runs on the request threads; opens no socket."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from socket import socket
from typing import Any, Final, Literal, Self

from softcam.camera.base import RawStill, StreamConfig
from softcam.camera.session.autofocus_cycle import FocusOutcome
from softcam.camera.session.manager import CameraManager
from softcam.controls.controller import ControlManager
from softcam.errors import CameraError, NoPicture, NotSupported
from softcam.imaging.dng import add_description, replace_orientation
from softcam.imaging.exif import exif_segment, has_exif, make_of, with_exif, with_orientation
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg import size_of
from softcam.imaging.scale import fit_within, floor_even
from softcam.imaging.snapshot import Snapshot
from softcam.streaming.clients import Channel, StreamClient
from softcam.streaming.fanout import CONTENT_TYPE, FanOut
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant, Size
from softcam.web.http import query
from softcam.web.http.downloads import content_disposition, picture_name
from softcam.web.http.messages import (
    ALLOW_ANY_ORIGIN,
    NO_STORE,
    AnyResponse,
    Request,
    Response,
    StreamingResponse,
    camera_disabled,
)
from softcam.web.http.places import StreamPlaces
from softcam.web.http.router import Doc, Route

_MAX_CONCURRENT: Final = 2  # snapshots that hold a camera buffer: with slot and encoders, five of its six buffers
_MAX_DAMAGED: Final = 4  # damaged JPEGs of the camera in a row before the snapshot fails
HEADERS: Final = {**NO_STORE, **ALLOW_ANY_ORIGIN, "X-Accel-Buffering": "no", "Referrer-Policy": "no-referrer"}

MIN_SIZE_PX: Final = 16
MAX_SIZE_PX: Final = 8192
SIZE_LIMITS: Final[Mapping[str, Any]] = {"low": MIN_SIZE_PX, "high": MAX_SIZE_PX, "unit": "pixels"}  # of a Field
OCTET_STREAM: Final = "application/octet-stream"
DNG_TYPE: Final = "image/x-adobe-dng"

_EVEN: Final = "in pixels, rounded down to an even number; "
_QUALITY: Final = query.integer("quality", "JPEG quality", 1, 100)
_FPS: Final = query.number("fps", "maximum frame rate", 0.01, 1000)
_WIDTH: Final = query.integer("width", f"{_EVEN}at most the width of the camera's stream", MIN_SIZE_PX, MAX_SIZE_PX)
_OPTIONS: Final = (
    _QUALITY,
    query.integer("width", f"{_EVEN}alone, keeps the aspect ratio", MIN_SIZE_PX, MAX_SIZE_PX),
    query.integer("height", f"{_EVEN}alone, keeps the aspect ratio", MIN_SIZE_PX, MAX_SIZE_PX),
    query.number("max_age", "maximum age of the frame in seconds", 0, 3600),
    query.boolean("autofocus", "whether to focus first"),
    query.boolean("full", "the full resolution of the sensor"),
)
_FORMAT: Final = query.choice("format", "dng returns the sensor's raw image", "jpeg", "dng")
_STREAM_DOC: Final = Doc(
    "Live stream, MJPEG",
    "pictures",
    {200: {CONTENT_TYPE: None, OCTET_STREAM: None}},
    "Every part has Content-Length and X-Timestamp, the time of exposure in Unix seconds. With `Accept: "
    "application/octet-stream`, the same bytes have that type: WebKit's fetch() rejects multipart responses.",
    parameters=(_QUALITY, _FPS, _WIDTH),
    errors=(400, 503),
    is_endless=True,
)
_SNAPSHOT_DOC: Final = Doc(
    "Snapshot",
    "pictures",
    {200: {"image/jpeg": None, DNG_TYPE: None}},
    "A JPEG exposed after the request, unless max_age allows an older one.",
    parameters=(*_OPTIONS, _FORMAT),
    errors=(400, 409, 503),
)
# Fields and parameters that `SnapshotOptions` names otherwise.
_NAMES: Final = {"autofocus_trigger": "autofocus", "max_age": "max_age_s", "full": "full_sensor"}
_STREAM_PATHS: Final = ("/stream.mjpg", "/stream", "/?action=stream", "/api/camera/stream")
_SNAPSHOT_PATHS: Final = ("/snapshot.jpg", "/snapshot", "/frame", "/?action=snapshot", "/api/camera/frame")


@dataclass(frozen=True, slots=True)
class MediaDefaults:
    """What applies to requests without parameters, and the limits."""

    quality: int
    snapshot_size: Size | None  # None is the stream's
    snapshot_quality: int
    autofocus_timeout_s: float
    max_clients: int
    max_clients_per_address: int
    name: str | None = None  # of the camera: the description in snapshots, and the start of their file names
    # Home Assistant waits 10 s for a snapshot.
    snapshot_timeout_s: float = 10.0
    raw_timeout_s: float = 20.0  # a DNG of 12 megapixels has 24 MB and is written to the SD card first
    # Above all limits of the camera's opening.
    stream_timeout_s: float = 30.0
    # When a snapshot no longer waits for autofocus that it did not request: Moonraker waits one second in total.
    focus_budget_s: float = 0.75
    # For a client that reconnects: the end of its previous stream is noticed a moment later.
    slot_wait_s: float = 0.5
    stream_hold_s: float = 0.4  # the longest wait of a stream for the settled frames of a camera that was just opened


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """The options of a snapshot; None selects the default."""

    quality: int | None = None
    width: int | None = None
    height: int | None = None
    max_age_s: float = 0.0
    autofocus: bool | None = None
    full_sensor: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The options by the names of fields and parameters; a value of None selects the default."""
        return cls(**{_NAMES.get(name, name): value for name, value in values.items() if value is not None})


class MediaApi:
    """Handles the MJPEG stream and snapshots."""

    def __init__(
        self,
        manager: CameraManager | None,
        control_manager: ControlManager,
        jpegs: JpegEncoderPool,
        fanout: FanOut,
        defaults: MediaDefaults,
    ) -> None:
        """`manager` is None if the camera is disabled."""
        self._manager = manager
        self._control_manager = control_manager
        self._jpegs = jpegs
        self._fanout = fanout
        self._defaults = defaults
        self._turns = threading.BoundedSemaphore(_MAX_CONCURRENT)
        self._places = StreamPlaces(defaults.max_clients, defaults.max_clients_per_address)

    def routes(self) -> list[Route]:
        return [
            Route(_STREAM_PATHS, self.stream, doc=_STREAM_DOC, accepts_query_key=True),
            Route(_SNAPSHOT_PATHS, self.snapshot, doc=_SNAPSHOT_DOC, accepts_query_key=True),
        ]

    # --- streams -----------------------------------------------------------------------------------------------------

    def stream(self, request: Request) -> AnyResponse:
        quality, fps = _QUALITY.read(request.query), _FPS.read(request.query)
        width = (_WIDTH.read(request.query) or 0) // 2 * 2

        def variant(config: StreamConfig) -> JpegVariant:
            # Requests for the same JPEG share one variant, which is encoded once: widths are even in any case, and an
            # explicit quality differs from the default only for a camera that delivers JPEGs.
            quality_is_explicit = quality is not None and config.pixel_format == "MJPEG"
            even_width = width if width < config.width else 0
            return JpegVariant(even_width, quality or self._defaults.quality, quality_is_explicit)

        # WebKit's fetch() rejects a multipart response: for the page, the same bytes have another type.
        content_type = OCTET_STREAM if request.headers.get("Accept") == OCTET_STREAM else CONTENT_TYPE
        return self.connect(request, content_type, lambda: HEADERS, variant, 1 / fps if fps else 0.0)

    def connect(
        self,
        request: Request,
        content_type: str,
        headers: Callable[[], Mapping[str, str]],
        source: Callable[[StreamConfig], JpegVariant | Channel],
        interval_s: float = 0.0,
    ) -> AnyResponse:
        """The response that passes the client to the fan-out, once the camera is open.

        Raises HttpError 503 if the camera is disabled or all places are in use, and CameraError.
        """
        self.require_camera()
        if not request.expects_body:
            with self._places.place(request.client):
                return Response(b"", content_type, headers=headers())
        config, release = self.reserve_stream(request.client)

        def start(connection: socket) -> None:
            self._fanout.add_client(StreamClient(connection, request.client, source(config), interval_s, release))

        return StreamingResponse(start, release, content_type, headers())

    def reserve_stream(self, client: str | None = None) -> tuple[StreamConfig, Callable[[], None]]:
        """Open the camera for one more stream; returns its configuration, and the function that ends the stream.

        `client` is the address that the stream counts for; None for a stream of several clients. Waits until the camera
        is ready. Raises as `connect`.
        """
        manager = self.require_camera()
        with ExitStack() as stack:
            stack.enter_context(self._places.place(client, self._defaults.slot_wait_s))
            stack.callback(manager.lease("stream").release)
            config = manager.wait_ready(time.monotonic() + self._defaults.stream_timeout_s)
            manager.wait_settled(time.monotonic() + self._defaults.stream_hold_s)
            return config, stack.pop_all().close

    def require_camera(self) -> CameraManager:
        """The camera's manager. Raises HttpError 503 if the camera is disabled."""
        if self._manager is None:
            raise camera_disabled()
        return self._manager

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, request: Request) -> AnyResponse:
        """One JPEG, or with `format=dng` the sensor's raw image."""
        options = SnapshotOptions.of({parameter.name: parameter.read(request.query) for parameter in _OPTIONS})
        is_raw = _FORMAT.read(request.query) == "dng"
        self.require_camera()
        if not request.expects_body:
            return Response(b"", DNG_TYPE if is_raw else "image/jpeg", headers=HEADERS)
        if is_raw:
            raw = self._take_raw(options.autofocus)
            headers = self._download_headers("attachment", raw.timestamp_s, ".dng")
            return Response(self._completed(raw.dng), DNG_TYPE, headers=headers)
        snapshot = self.take_snapshot(options)
        return Response(snapshot.jpeg, "image/jpeg", headers=self._download_headers("inline", snapshot.taken_s, ".jpg"))

    def _download_headers(self, kind: Literal["inline", "attachment"], taken_s: float, suffix: str) -> dict[str, str]:
        file_name = picture_name(self._defaults.name, taken_s, suffix)
        return {**_frame_headers(taken_s), "Content-Disposition": content_disposition(kind, file_name)}

    def _completed(self, dng: bytes) -> bytes:
        """A raw image with the orientation, and the name of the camera."""
        dng = replace_orientation(dng, self._control_manager.orientation)
        return dng if self._defaults.name is None else add_description(dng, self._defaults.name)

    def take_snapshot(self, options: SnapshotOptions, *, is_of_series: bool = True) -> Snapshot:
        """Open the camera if necessary, focus, and encode one frame. Raises CameraError, NoPicture among them."""
        requested_s = time.monotonic()
        deadline_s = requested_s + self._defaults.snapshot_timeout_s
        manager = self.require_camera()
        autofocus = options.autofocus
        if autofocus is None and options.max_age_s:
            autofocus = False  # a client that accepts an older frame does not wait for the lens
        with manager.lease("snapshot", needs_focus=autofocus is not False, is_of_series=is_of_series):
            config = manager.wait_ready(deadline_s, options.max_age_s)
            focus = self._focus(manager, autofocus, requested_s)
            size = _scaled(options, self._defaults.snapshot_size or (config.width, config.height))
            if options.full_sensor or size[0] > config.width or size[1] > config.height:
                return self._encode_still(options, manager, deadline_s, size, config)
            not_before_s = max(requested_s, focus.before_s) if focus else requested_s - options.max_age_s
            return self._encode_next(options, manager, not_before_s, deadline_s, size, config)

    def _encode_still(
        self, options: SnapshotOptions, manager: CameraManager, deadline_s: float, size: Size, config: StreamConfig
    ) -> Snapshot:
        """A snapshot that is larger than the stream: a still, which pauses the stream."""
        manager.wait_frame(0.0, deadline_s).release()  # the still uses the current exposure, which must have settled
        still_size = None if options.full_sensor else fit_within(size, config.sensor_size)
        controls_for = self._control_manager.still_view(is_whole=options.full_sensor)
        frame = manager.still(still_size, deadline_s, controls_for)
        if options.full_sensor:  # the sensor has its own aspect ratio, not the stream's
            size = _scaled(options, frame.size)
        return self._encode(options, frame, size, config)

    def _encode_next(
        self,
        options: SnapshotOptions,
        manager: CameraManager,
        not_before_s: float,
        deadline_s: float,
        size: Size,
        config: StreamConfig,
    ) -> Snapshot:
        """A snapshot of the next intact frame: a camera that delivers JPEGs occasionally delivers a damaged one."""
        damaged = 0
        while True:
            with self._turn(manager, not_before_s, deadline_s) as frame:
                try:
                    return self._encode(options, frame, size, config)
                except CameraError:
                    damaged += 1
                    if frame.pixel_format != "MJPEG" or damaged == _MAX_DAMAGED:
                        raise
                not_before_s = math.nextafter(frame.began_s, math.inf)

    @contextmanager
    def _turn(self, manager: CameraManager, not_before_s: float, deadline_s: float) -> Iterator[Frame]:
        """A frame, which the caller releases, and a turn: each snapshot holds one of the camera's few buffers while it
        is encoded. One that waits for its frame has neither, so it delays no other.
        """
        while True:
            shown = manager.wait_frame(not_before_s, deadline_s)
            shown.release()
            if not self._turns.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                raise NoPicture("too many concurrent snapshot requests")
            try:
                frame = manager.newest_frame(shown.began_s)
                if frame is not None:
                    yield frame
                    return
            finally:
                self._turns.release()

    def _encode(self, options: SnapshotOptions, frame: Frame, size: Size, config: StreamConfig) -> Snapshot:
        """The snapshot of a frame, which is released."""
        try:
            jpeg = self._jpegs.snapshot(
                frame,
                fit_within(size, frame.size),
                options.quality or self._defaults.snapshot_quality,
                quality_is_explicit=options.quality is not None,
            )
            orientation = self._control_manager.orientation
            return Snapshot(_with_exif(jpeg, frame, config, orientation, self._defaults.name), frame.timestamp_s)
        finally:
            frame.release()

    def _take_raw(self, autofocus: bool | None) -> RawStill:
        requested_s = time.monotonic()
        deadline_s = requested_s + self._defaults.raw_timeout_s
        manager = self.require_camera()
        with manager.lease("snapshot", needs_focus=autofocus is not False):
            config = manager.wait_ready(deadline_s)
            if not config.has_raw:
                raise NotSupported("format: must be jpeg, this camera has no raw images")
            self._focus(manager, autofocus, requested_s)
            manager.wait_frame(0.0, deadline_s).release()
            return manager.raw_still(deadline_s)

    def _focus(self, manager: CameraManager, autofocus: bool | None, requested_s: float) -> FocusOutcome | None:
        """Wait for the end of an autofocus cycle if needed; None if there was none in time.

        Unless the request asks for it, the focus of a running stream or of earlier snapshots is not disturbed.
        """
        budget_s = min(self._defaults.autofocus_timeout_s, self._defaults.snapshot_timeout_s)
        if autofocus is None:
            if not manager.status().is_streaming:
                manager.autofocus.keep_focused("a snapshot")
            budget_s = min(self._defaults.focus_budget_s, budget_s)
            return manager.autofocus.wait_for_cycle(requested_s, budget_s)
        return manager.autofocus.focus_once(requested_s + budget_s) if autofocus else None


def _scaled(options: SnapshotOptions, default: Size) -> Size:
    """The requested size, in even numbers; if only one side is given, the other follows from the default's ratio."""
    if options.width is None and options.height is None:
        return default
    ratio = default[0] / default[1]
    width, height = options.width or (options.height or 0) * ratio, options.height or (options.width or 0) / ratio
    return floor_even(width), floor_even(height)


def _with_exif(jpeg: bytes, frame: Frame, config: StreamConfig, orientation: int, name: str | None) -> bytes:
    if frame.pixel_format == "MJPEG":
        if name is None or has_exif(jpeg):  # that of the camera
            return with_orientation(jpeg, orientation)
        return with_exif(jpeg, exif_segment(orientation=orientation, description=name))
    metadata = frame.metadata
    segment = exif_segment(
        taken_at_s=frame.timestamp_s,
        size=size_of(jpeg),
        exposure_us=_finite(metadata.get("ExposureTime")),
        gain=_finite(metadata.get("AnalogueGain")),
        lens_dioptres=_finite(metadata.get("LensPosition")),
        make=make_of(config.properties),
        model=config.properties.get("Model"),
        description=name,
        orientation=orientation,
    )
    return with_exif(jpeg, segment)


def _finite(value: Any) -> float | None:
    """A finite number, else None: libcamera reports NaN and infinity for unknown values."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _frame_headers(timestamp_s: float) -> dict[str, str]:
    return {**HEADERS, "Last-Modified": formatdate(timestamp_s, usegmt=True), "X-Timestamp": f"{timestamp_s:.6f}"}
