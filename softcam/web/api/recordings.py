"""Recordings over HTTP: the list, start and stop, the files by ranges, stills. Runs on the threads of requests."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from softcam.controls.fields import Field, Group
from softcam.errors import NotSupported
from softcam.recording import thumbnail
from softcam.recording.library import NAME_PATTERN, Library, Recording
from softcam.recording.recorder import RecordingOptions, RunningVideo, VideoRecorder
from softcam.recording.timelapse import RunningTimelapse, Still, TimelapseOptions, TimelapseRecorder
from softcam.runtime.threads import spawn
from softcam.web.api.media import MAX_SIZE_PX, MIN_SIZE_PX, MediaApi, SnapshotOptions
from softcam.web.http import body, query
from softcam.web.http.messages import (
    ALLOW_ANY_ORIGIN,
    AnyResponse,
    HttpError,
    Request,
    Response,
    camera_disabled,
    json_response,
)
from softcam.web.http.ranges import file_response
from softcam.web.http.router import Doc, Parameter, Route

log = logging.getLogger(__name__)

_STOP_LIMIT_S: Final = 15.0  # a disk may take some seconds for the end of a file
_LONGEST_S: Final = 366 * 86_400
_TYPES: Final = {".mp4": "video/mp4", ".jpg": "image/jpeg"}
# Asked for anew each time, and answered with 304 while it is the same.
_HEADERS: Final = {"Cache-Control": "no-cache", **ALLOW_ANY_ORIGIN}

_KINDS: Final = {"video": 0, "timelapse": 1}
_KIND: Final = Field("kind", "choice", "what is recorded", choices=_KINDS)
_DURATION: Final = Field("duration_s", "number", "after which it ends by itself", None, 0.5, _LONGEST_S, "seconds")
TIMELAPSE: Final = Group(
    "timelapse",
    "Take a still every so often, and make a movie of them.",
    (
        _KIND,
        Field("interval_s", "number", "between two stills", TimelapseOptions().interval_s, 0.5, 86_400, "seconds"),
        Field("fps", "number", "how fast its movie runs", TimelapseOptions().fps, 1, 120, "pictures in a second"),
        Field("full", "boolean", "stills of the whole sensor", False),
        _DURATION,
    ),
    is_optional=True,
)
STOP: Final = Group("stop", "End a recording.", (_KIND,), is_optional=True)
STILL: Final = Group(
    "still",
    "Keep one picture.",
    (
        Field("full", "boolean", "the whole sensor", False),
        Field("width", "integer", "width; alone, it keeps the aspect ratio", None, MIN_SIZE_PX, MAX_SIZE_PX, "pixels"),
        Field(
            "height", "integer", "height; alone, it keeps the aspect ratio", None, MIN_SIZE_PX, MAX_SIZE_PX, "pixels"
        ),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("autofocus", "boolean", "focus first, or not"),
    ),
    is_optional=True,
)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_BEGAN: Final = {"type": "number", "description": "Unix seconds"}
_NEWEST: Final = {"type": ["string", "null"], "description": "the newest file; null before there is one"}
_ENTRY: Final = _object(
    {
        "name": {"type": "string", "description": "tells when it began, in UTC"},
        "kind": {"enum": ["video", "timelapse", "still"]},
        "began": _BEGAN,
        "duration_s": {"type": ["number", "null"]},
        "bytes": {"type": "integer", "description": "with the stills of a time-lapse"},
        "width": {"type": ["integer", "null"]},
        "height": {"type": ["integer", "null"]},
        "is_running": {"type": "boolean"},
        "has_thumbnail": {"type": "boolean"},
    }
)
_RUNNING: Final = {"name": _NEWEST, "began": _BEGAN, "elapsed_s": {"type": "number"}, "bytes": {"type": "integer"}}
_VIDEO: Final = _object({**_RUNNING, "segments": {"type": "integer"}})
_TIMELAPSE: Final = _object(
    {
        **_RUNNING,
        "stills": {"type": "integer"},
        "failures": {"type": "integer"},
        "interval_s": {"type": "number"},
    }
)
_BOTH: Final = _object({"video": _or_null(_VIDEO), "timelapse": _or_null(_TIMELAPSE)})
_LIST: Final = _object(
    {
        "recordings": {"type": "array", "items": _ENTRY},
        "running": _BOTH,
        "used_bytes": {"type": "integer"},
        "max_bytes": {"type": ["integer", "null"]},
        "free_bytes": {"type": ["integer", "null"]},
        "last_error": {"type": ["string", "null"]},
    }
)
_STATUS: Final = {"status": {"const": "ok"}}
# The field of the status.
RECORDING_SHAPE: Final[Mapping[str, Mapping[str, Any]]] = {
    "recording": {
        **_or_null(_object({**_BOTH["properties"], "last_error": {"type": ["string", "null"]}})),
        "description": "what runs, and why something is not recorded; null where no folder is set",
    }
}

_NAME: Final = Parameter(
    "name", "as the list has it", {"type": "string", "pattern": f"^{NAME_PATTERN}$".replace(r"\d", "[0-9]")}, "path"
)
_DOWNLOAD: Final = Parameter(
    "download",
    "to be saved, not shown",
    {"type": "string", "enum": ["1", "0", "true", "false", "yes", "no", "on", "off"]},
)
_FILE: Final = {"video/mp4": None, "image/jpeg": None}
_LIST_DOC: Final = Doc(
    "All recordings, the newest first", "recordings", {200: {"application/json": _LIST}}, errors=(409,)
)
_STOP_DOC: Final = Doc(
    "End a recording",
    "recordings",
    {200: {"application/json": _object({**_STATUS, "recording": {"anyOf": [_VIDEO, _TIMELAPSE, {"type": "null"}]}})}},
    "Without a kind all that run. Its last file is whole then.",
    body=STOP.schema(),
    is_body_required=False,
    errors=(400, 409),
)
_STILL_DOC: Final = Doc(
    "Keep one picture",
    "recordings",
    {200: {"application/json": _object({**_STATUS, "recording": _ENTRY})}},
    body=STILL.schema(),
    is_body_required=False,
    errors=(400, 409, 503),
)
_FILE_DOC: Final = Doc(
    "One recording",
    "recordings",
    {200: _FILE, 206: _FILE, 304: {}},
    "Takes Range, If-Range, If-None-Match and If-Modified-Since. One that runs ends with its last whole fragment.",
    parameters=(_NAME, _DOWNLOAD),
    errors=(400, 404, 409, 416),
)
_DELETE_DOC: Final = Doc(
    "Delete a recording",
    "recordings",
    {200: {"application/json": _object(_STATUS)}},
    parameters=(_NAME,),
    errors=(404, 409),
)
_THUMBNAIL_DOC: Final = Doc(
    "A small picture of a recording",
    "recordings",
    {200: {"image/jpeg": None}},
    parameters=(_NAME,),
    errors=(404, 409),
)


@dataclass(frozen=True, slots=True)
class Recorders:
    """What records into a folder; the recorders are None where the camera is switched off."""

    library: Library
    preroll_s: float
    video: VideoRecorder | None = None
    timelapse: TimelapseRecorder | None = None

    def open(self, on_crash: Callable[[str], None]) -> None:
        """Mend what a crash cut, on the thread `mender`, and begin to keep the seconds before."""
        spawn("mender", self._recover, on_crash)
        if self.video is not None:
            self.video.open()

    @property
    def last_error(self) -> str | None:
        """Why something is not recorded; None again when it is."""
        told = [recorder.last_error for recorder in (self.video, self.timelapse) if recorder is not None]
        return next((trouble for trouble in told if trouble is not None), None)

    def _recover(self) -> None:
        try:
            self.library.recover()
        except OSError as error:
            log.warning("The folder of recordings cannot be read: %s", error.strerror)

    def close(self, deadline_s: float) -> None:
        """End what runs; the files are whole then, if that is done before the deadline (monotonic clock)."""
        if self.timelapse is not None:
            self.timelapse.stop(0.0)  # told at once: it may be waiting for a still
        if self.video is not None:
            self.video.close(deadline_s)
        if self.timelapse is not None:
            self.timelapse.stop(deadline_s)


class Recordings:
    """Answers for `/v1/recordings`."""

    def __init__(self, recorders: Recorders | None, media: MediaApi) -> None:
        """`recorders` is None where no folder is set."""
        self._recorders = recorders
        self._media = media
        most_s = 0.0 if recorders is None else recorders.preroll_s
        self._video = Group(
            "video",
            "Record video.",
            (
                _KIND,
                _DURATION,
                Field(
                    "segment_s",
                    "number",
                    "after which the next file begins",
                    RecordingOptions().segment_s,
                    2,
                    3600,
                    "seconds",
                ),
                Field(
                    "preroll_s",
                    "number",
                    "from before; as much as --recordings-preroll keeps where it is left out",
                    None,
                    0,
                    most_s,
                    "seconds",
                    high_of="--recordings-preroll",
                ),
            ),
            is_optional=True,
        )

    def routes(self) -> list[Route]:
        place = "/v1/recordings"
        return [
            Route((place,), self.show, doc=_LIST_DOC),
            Route((f"{place}/start",), self.start, "POST", doc=self._start_doc()),
            Route((f"{place}/stop",), self.stop, "POST", doc=_STOP_DOC),
            Route((f"{place}/still",), self.still, "POST", doc=_STILL_DOC),
            Route((f"{place}/{{name}}",), self.file, doc=_FILE_DOC),
            Route((f"{place}/{{name}}",), self.delete, "DELETE", doc=_DELETE_DOC),
            Route((f"{place}/{{name}}/thumbnail",), self.thumbnail, doc=_THUMBNAIL_DOC),
        ]

    def status(self) -> dict[str, Any]:
        """The field of the status, as RECORDING_SHAPE has it."""
        recorders = self._recorders
        if recorders is None:
            return {"recording": None}
        return {"recording": {**_running(recorders), "last_error": recorders.last_error}}

    def show(self, _request: Request) -> AnyResponse:
        """The list. A folder that cannot be read is an empty one, and `last_error` says why."""
        recorders = self._here()
        library = recorders.library
        entries: list[Recording] = []
        used, free, trouble = 0, None, None
        try:
            entries = library.entries()
            used, free = library.used_bytes(), library.free_bytes()
        except OSError as error:
            trouble = f"the folder of recordings cannot be read: {error.strerror or error}"
        return json_response(
            {
                "recordings": [_shown(entry) for entry in entries],
                "running": _running(recorders),
                "used_bytes": used,
                "max_bytes": library.max_bytes,
                "free_bytes": free,
                "last_error": trouble or recorders.last_error,
            }
        )

    def start(self, request: Request) -> AnyResponse:
        """Raises RecordingError if one of this kind is running or nothing can be written."""
        group = TIMELAPSE if _kind_in(request) == "timelapse" else self._video
        values = dict(body.read(request, group))
        recorders = self._here()
        video, timelapse = recorders.video, recorders.timelapse
        if video is None or timelapse is None:
            raise camera_disabled()
        if values.pop("kind", None) == "timelapse":
            wants_full = values.pop("full", False)
            running = _shown_timelapse(timelapse.start(TimelapseOptions(**values, wants_full=wants_full)))
        else:
            running = _shown_video(video.start(RecordingOptions(**values)))
        return json_response({"status": "ok", "recording": running})

    def stop(self, request: Request) -> AnyResponse:
        """Done as well where nothing runs."""
        kind = body.read(request, STOP).get("kind")
        recorders = self._here()
        deadline_s = time.monotonic() + _STOP_LIMIT_S
        ended: list[dict[str, Any]] = []
        if kind != "timelapse" and recorders.video is not None and (video := recorders.video.stop(deadline_s)):
            ended.append(_shown_video(video))
        if kind != "video" and recorders.timelapse is not None and (slow := recorders.timelapse.stop(deadline_s)):
            ended.append(_shown_timelapse(slow))
        return json_response({"status": "ok", "recording": ended[0] if ended else None})

    def still(self, request: Request) -> AnyResponse:
        """Raises CameraError, and HttpError 409 where it cannot be kept."""
        values = body.read(request, STILL)
        library = self._here().library
        wish = SnapshotOptions(
            quality=values.get("quality"),
            width=values.get("width"),
            height=values.get("height"),
            autofocus=values.get("autofocus"),
            full_sensor=values.get("full", False),
        )
        taken = take_still(self._media, wish)
        try:
            entry = library.add_still(taken.jpeg, taken.taken_s, thumbnail.of_jpeg(taken.jpeg))
        except OSError as error:
            raise HttpError(HTTPStatus.CONFLICT, f"the picture cannot be kept: {error.strerror}") from error
        return json_response({"status": "ok", "recording": _shown(entry)})

    def file(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        name = request.path_parameters["name"]
        headers = dict(_HEADERS)
        if query.boolean(request.query, "download"):
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        file, whole = self._here().library.open(name)
        return file_response(request, file, whole, _TYPES[name[-4:]], headers)

    def delete(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        self._here().library.delete(request.path_parameters["name"])
        return json_response({"status": "ok"})

    def thumbnail(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        picture = self._here().library.thumbnail(request.path_parameters["name"])
        return Response(picture, "image/jpeg", headers=_HEADERS)

    def _here(self) -> Recorders:
        if self._recorders is None:
            raise NotSupported("recordings is not set: --recordings or CAMERA_RECORDINGS names their folder")
        return self._recorders

    def _start_doc(self) -> Doc:
        schemas = []
        for group, is_needed in ((self._video, False), (TIMELAPSE, True)):
            schema = group.schema()
            schema["properties"]["kind"] = {"const": group.name, "description": group.help}
            schemas.append(schema | ({"required": ["kind"]} if is_needed else {}))
        return Doc(
            "Record video, or a time-lapse",
            "recordings",
            {200: {"application/json": _object({**_STATUS, "recording": {"anyOf": [_VIDEO, _TIMELAPSE]}})}},
            "Goes on as long as it is asked for: a disk that is full or gone is tried again every few seconds. "
            "A restart of the portal ends it.",
            body={"oneOf": schemas},
            is_body_required=False,
            errors=(400, 409, 503),
        )


def take_still(media: MediaApi, wish: SnapshotOptions) -> Still:
    """Raises CameraError."""
    taken = media.take_snapshot(wish)
    return Still(taken.jpeg, float(taken.headers["X-Timestamp"]))


def _kind_in(request: Request) -> Any:
    """What the body names, checked by nobody yet."""
    try:
        content = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return content.get("kind") if isinstance(content, dict) else None


def _running(recorders: Recorders) -> dict[str, Any]:
    video = None if recorders.video is None else recorders.video.running
    timelapse = None if recorders.timelapse is None else recorders.timelapse.running
    return {
        "video": None if video is None else _shown_video(video),
        "timelapse": None if timelapse is None else _shown_timelapse(timelapse),
    }


def _shown(entry: Recording) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "began": entry.began_s,
        "duration_s": None if entry.duration_s is None else round(entry.duration_s, 3),
        "bytes": entry.size,
        "width": entry.width,
        "height": entry.height,
        "is_running": entry.is_running,
        "has_thumbnail": entry.has_thumbnail,
    }


def _shown_video(running: RunningVideo) -> dict[str, Any]:
    return {
        "name": running.name,
        "began": round(running.began_s, 3),
        "elapsed_s": round(running.elapsed_s, 1),
        "bytes": running.size,
        "segments": running.segments,
    }


def _shown_timelapse(running: RunningTimelapse) -> dict[str, Any]:
    return {
        "name": running.name,
        "began": round(running.began_s, 3),
        "elapsed_s": round(running.elapsed_s, 1),
        "bytes": running.size,
        "stills": running.stills,
        "failures": running.failures,
        "interval_s": running.interval_s,
    }
