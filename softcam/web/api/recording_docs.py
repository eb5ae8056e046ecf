"""Request fields and OpenAPI descriptions of `/v1/recordings`. Tables only; no thread."""

from typing import Final

from softcam.controls.fields import Field, Group
from softcam.recording.names import NAME_PATTERN
from softcam.recording.recorder import RecordingOptions
from softcam.recording.timelapse import TimelapseOptions
from softcam.web.api.json_schema import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STATUS_OK,
    STRING,
    UNIX_TIME,
    Schema,
    json_ok,
    note,
    nullable,
    record,
)
from softcam.web.api.media import MAX_SIZE_PX, MIN_SIZE_PX
from softcam.web.http import query
from softcam.web.http.router import Doc, Parameter

_MAX_DURATION_S: Final = 366 * 86_400

# --- requests

_KIND: Final = Field("kind", "choice", "kind of recording", choices={"video": 0, "timelapse": 1})
_DURATION: Final = Field(
    "duration_s", "number", "duration after which the recording stops", None, 0.5, _MAX_DURATION_S, "seconds"
)
TIMELAPSE: Final = Group(
    "timelapse",
    "Take a still per interval and append it to a video.",
    (
        _KIND,
        Field("interval_s", "number", "interval of stills", TimelapseOptions().interval_s, 0.5, 86_400, "seconds"),
        Field("fps", "number", "frame rate of the video", TimelapseOptions().fps, 1, 120, "frames per second"),
        Field("full", "boolean", "stills of the full sensor", False),
        _DURATION,
    ),
    is_optional=True,
)
STOP: Final = Group("stop", "Stop a recording.", (_KIND,), is_optional=True)


def _size_field(name: str) -> Field:
    return Field(name, "integer", f"{name}; alone, it keeps the aspect ratio", None, MIN_SIZE_PX, MAX_SIZE_PX, "pixels")


STILL: Final = Group(
    "still",
    "Save a photo.",
    (
        Field("full", "boolean", "the full sensor", False),
        _size_field("width"),
        _size_field("height"),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("autofocus", "boolean", "whether to focus first"),
    ),
    is_optional=True,
)


def video_group(max_preroll_s: float) -> Group:
    """The fields of a video recording; `max_preroll_s` is what is configured."""
    setting = "--recordings-preroll"
    summary = f"pre-roll; all that {setting} keeps by default"
    return Group(
        "video",
        "Record video.",
        (
            _KIND,
            _DURATION,
            Field("segment_s", "number", "duration of each file", RecordingOptions().segment_s, 2, 3600, "seconds"),
            Field("preroll_s", "number", summary, None, 0, max_preroll_s, "seconds", high_of=setting),
        ),
        is_optional=True,
    )


# --- responses


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_ENTRY: Final = record(
    {
        "name": STRING | note("contains the start time in UTC"),
        "kind": {"enum": ["video", "timelapse", "still"]},
        "began": UNIX_TIME,
        "duration_s": nullable("number"),
        "bytes": INTEGER | note("size, including the stills of a time-lapse"),
        "width": nullable("integer"),
        "height": nullable("integer"),
        "is_running": BOOLEAN,
        "has_thumbnail": BOOLEAN,
    }
)
_RUNNING: Final = {
    "name": nullable("string") | note("the newest file; null before the first"),
    "began": UNIX_TIME,
    "elapsed_s": NUMBER,
    "bytes": INTEGER,
}
_VIDEO: Final = record({**_RUNNING, "segments": INTEGER})
_TIMELAPSE: Final = record({**_RUNNING, "stills": INTEGER, "failures": INTEGER, "interval_s": NUMBER})
_BOTH: Final = {"video": _or_null(_VIDEO), "timelapse": _or_null(_TIMELAPSE)}
_LIST: Final = {
    "recordings": {"type": "array", "items": _ENTRY},
    "running": record(_BOTH),
    "used_bytes": INTEGER,
    "max_bytes": nullable("integer"),
    "free_bytes": nullable("integer"),
    "last_error": nullable("string"),
}
# The field of the camera's status.
RECORDING_SHAPE: Final = {
    "recording": _or_null(record({**_BOTH, "last_error": nullable("string")}))
    | note("recordings in progress and the last error; null if no folder is configured")
}


def _result(recording: Schema) -> Schema:
    return record({**STATUS_OK, "recording": recording})


# --- routes

_NAME: Final = Parameter(
    "name", "a name from the list", {"type": "string", "pattern": f"^{NAME_PATTERN}$".replace(r"\d", "[0-9]")}, "path"
)
DOWNLOAD: Final = query.boolean("download", "whether the browser saves the file instead of showing it")
_FILE: Final = {"video/mp4": None, "image/jpeg": None}
LIST_DOC: Final = Doc("All recordings, the newest first", "recordings", json_ok(record(_LIST)), errors=(409,))
STOP_DOC: Final = Doc(
    "Stop a recording",
    "recordings",
    json_ok(_result({"anyOf": [_VIDEO, _TIMELAPSE, {"type": "null"}]})),
    "Without a kind, stops all recordings. When it returns, the last file is complete.",
    body=STOP.schema(),
    is_body_required=False,
    errors=(400, 409),
)
STILL_DOC: Final = Doc(
    "Save a photo",
    "recordings",
    json_ok(_result(_ENTRY)),
    body=STILL.schema(),
    is_body_required=False,
    errors=(400, 409, 503),
)
FILE_DOC: Final = Doc(
    "Download a recording",
    "recordings",
    {200: _FILE, 206: _FILE, 304: {}},
    "Supports Range, If-Range, If-None-Match and If-Modified-Since. A running recording ends with its last whole "
    "fragment.",
    parameters=(_NAME, DOWNLOAD),
    errors=(400, 404, 409, 416),
)
DELETE_DOC: Final = Doc(
    "Delete a recording", "recordings", json_ok(record(STATUS_OK)), parameters=(_NAME,), errors=(404, 409)
)
THUMBNAIL_DOC: Final = Doc(
    "The thumbnail of a recording", "recordings", {200: {"image/jpeg": None}}, parameters=(_NAME,), errors=(404, 409)
)


def start_doc(video: Group) -> Doc:
    """The description of starting a recording, with the fields of `video` or of a time-lapse."""
    schemas = {group.name: group.schema() for group in (video, TIMELAPSE)}
    for group in (video, TIMELAPSE):
        schemas[group.name]["properties"]["kind"] = {"const": group.name} | note(group.help)
    schemas["timelapse"]["required"] = ["kind"]  # without it, the recording is a video
    return Doc(
        "Record video or a time-lapse",
        "recordings",
        json_ok(_result({"anyOf": [_VIDEO, _TIMELAPSE]})),
        "Records until it is stopped: if the disk is full or missing, it retries every few seconds. A restart of the "
        "portal ends the recording.",
        body={"oneOf": list(schemas.values())},
        is_body_required=False,
        errors=(400, 409, 503),
    )
