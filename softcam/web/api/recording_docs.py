"""Request fields and OpenAPI descriptions of `/v1/recordings`. Tables only; no thread."""

from collections.abc import Mapping
from typing import Any, Final

from softcam.controls.fields import Field, Group
from softcam.recording.names import NAME_PATTERN
from softcam.recording.recorder import RecordingOptions
from softcam.recording.timelapse import TimelapseOptions
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
STILL: Final = Group(
    "still",
    "Save a photo.",
    (
        Field("full", "boolean", "the full sensor", False),
        Field("width", "integer", "width; alone, it keeps the aspect ratio", None, MIN_SIZE_PX, MAX_SIZE_PX, "pixels"),
        Field(
            "height", "integer", "height; alone, it keeps the aspect ratio", None, MIN_SIZE_PX, MAX_SIZE_PX, "pixels"
        ),
        Field("quality", "integer", "JPEG quality", None, 1, 100),
        Field("autofocus", "boolean", "whether to focus first"),
    ),
    is_optional=True,
)


def video_group(max_preroll_s: float) -> Group:
    """The fields of a video recording; `max_preroll_s` is what is configured."""
    segment_s = RecordingOptions().segment_s
    return Group(
        "video",
        "Record video.",
        (
            _KIND,
            _DURATION,
            Field("segment_s", "number", "duration of each file", segment_s, 2, 3600, "seconds"),
            Field(
                "preroll_s",
                "number",
                "pre-roll; all that --recordings-preroll keeps by default",
                None,
                0,
                max_preroll_s,
                "seconds",
                high_of="--recordings-preroll",
            ),
        ),
        is_optional=True,
    )


# --- responses


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
_NEWEST: Final = {"type": ["string", "null"], "description": "the newest file; null before the first"}
_ENTRY: Final = _object(
    {
        "name": {"type": "string", "description": "contains the start time in UTC"},
        "kind": {"enum": ["video", "timelapse", "still"]},
        "began": _BEGAN,
        "duration_s": {"type": ["number", "null"]},
        "bytes": {"type": "integer", "description": "size, including the stills of a time-lapse"},
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
# The field of the camera's status.
RECORDING_SHAPE: Final[Mapping[str, Mapping[str, Any]]] = {
    "recording": {
        **_or_null(_object({**_BOTH["properties"], "last_error": {"type": ["string", "null"]}})),
        "description": "recordings in progress and the last error; null if no folder is configured",
    }
}

# --- routes

_NAME: Final = Parameter(
    "name", "a name from the list", {"type": "string", "pattern": f"^{NAME_PATTERN}$".replace(r"\d", "[0-9]")}, "path"
)
DOWNLOAD: Final = query.boolean("download", "whether the browser saves the file instead of showing it")
_FILE: Final = {"video/mp4": None, "image/jpeg": None}
LIST_DOC: Final = Doc(
    "All recordings, the newest first", "recordings", {200: {"application/json": _LIST}}, errors=(409,)
)
STOP_DOC: Final = Doc(
    "Stop a recording",
    "recordings",
    {200: {"application/json": _object({**_STATUS, "recording": {"anyOf": [_VIDEO, _TIMELAPSE, {"type": "null"}]}})}},
    "Without a kind, stops all recordings. When it returns, the last file is complete.",
    body=STOP.schema(),
    is_body_required=False,
    errors=(400, 409),
)
STILL_DOC: Final = Doc(
    "Save a photo",
    "recordings",
    {200: {"application/json": _object({**_STATUS, "recording": _ENTRY})}},
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
    "Delete a recording",
    "recordings",
    {200: {"application/json": _object(_STATUS)}},
    parameters=(_NAME,),
    errors=(404, 409),
)
THUMBNAIL_DOC: Final = Doc(
    "The thumbnail of a recording",
    "recordings",
    {200: {"image/jpeg": None}},
    parameters=(_NAME,),
    errors=(404, 409),
)


def start_doc(video: Group) -> Doc:
    """The description of starting a recording, with the fields of `video` or of a time-lapse."""
    schemas = []
    for group, is_kind_required in ((video, False), (TIMELAPSE, True)):
        schema = group.schema()
        schema["properties"]["kind"] = {"const": group.name, "description": group.help}
        schemas.append(schema | ({"required": ["kind"]} if is_kind_required else {}))
    return Doc(
        "Record video or a time-lapse",
        "recordings",
        {200: {"application/json": _object({**_STATUS, "recording": {"anyOf": [_VIDEO, _TIMELAPSE]}})}},
        "Records until it is stopped: if the disk is full or missing, it retries every few seconds. A restart of the "
        "portal ends the recording.",
        body={"oneOf": schemas},
        is_body_required=False,
        errors=(400, 409, 503),
    )
