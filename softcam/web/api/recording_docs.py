"""Request fields and OpenAPI descriptions of `/v1/recordings`. Tables only; no thread."""

import contextlib
from collections.abc import Mapping
from datetime import date
from typing import Final, cast, get_args

from softcam.controls.fields import Field, Group
from softcam.recording.folder import Selection
from softcam.recording.names import NAME_PATTERN, Kind, SortKey, is_recording, sort_key, sort_key_at
from softcam.recording.timelapse import TimelapseOptions
from softcam.recording.video_run import RecordingOptions
from softcam.web.api import json_schema as schema
from softcam.web.api.media import SIZE_LIMITS
from softcam.web.http import query
from softcam.web.http.router import Doc, Parameter

_MAX_DURATION_S: Final = 366 * 86_400
_MAX_LISTED: Final = 1000  # on a page
_LAST_S: Final = 253_402_300_000  # of the year 9999

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
KEEP: Final = Group(
    "keep", "Mark a recording to keep.", (Field("keep", "boolean", "whether to keep it", True),), is_optional=True
)
STILL: Final = Group(
    "still",
    "Save a photo.",
    (
        Field("full", "boolean", "the full sensor", False),
        Field("width", "integer", "width; alone, it keeps the aspect ratio", **SIZE_LIMITS),
        Field("height", "integer", "height; alone, it keeps the aspect ratio", **SIZE_LIMITS),
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


def _or_null(other: schema.Schema) -> schema.Schema:
    return {"anyOf": [other, {"type": "null"}]}


_ENTRY: Final = schema.record(
    {
        "name": schema.STRING | schema.note("contains the start time in UTC"),
        "kind": {"enum": ["video", "timelapse", "still"]},
        "began": schema.UNIX_TIME,
        "duration_s": schema.nullable("number"),
        "bytes": schema.INTEGER | schema.note("size, including the stills of a time-lapse"),
        "width": schema.nullable("integer"),
        "height": schema.nullable("integer"),
        "is_running": schema.BOOLEAN,
        "has_thumbnail": schema.BOOLEAN,
        "keep": schema.BOOLEAN | schema.note("not deleted to free space"),
    }
)
_RUNNING: Final = {
    "name": schema.nullable("string") | schema.note("the newest file; null before the first and while paused"),
    "began": schema.UNIX_TIME,
    "elapsed_s": schema.NUMBER | schema.note("recorded time since then, without pauses and interruptions"),
    "paused": schema.nullable("string") | schema.note("why nothing is being recorded; null while it records"),
    "bytes": schema.INTEGER | schema.note("recorded since the interruption, also what was deleted to free space"),
    "interrupted": schema.nullable("number")
    | schema.note("Unix time; the end of the portal interrupted the recording, and its next start resumed it"),
}
_VIDEO: Final = schema.record({**_RUNNING, "segments": schema.INTEGER})
_TIMELAPSE: Final = schema.record(
    {**_RUNNING, "stills": schema.INTEGER, "failures": schema.INTEGER, "interval_s": schema.NUMBER}
)
_BOTH: Final = {"video": _or_null(_VIDEO), "timelapse": _or_null(_TIMELAPSE)}
_CUT_SHORT: Final = schema.record(
    {"video": schema.nullable("number"), "timelapse": schema.nullable("number")}
) | schema.note(
    "Unix time; the end of the portal interrupted a recording that was not resumed; null after another start"
)
_LIST: Final = {
    "recordings": {"type": "array", "items": _ENTRY},
    "total": schema.INTEGER | schema.note("how many the query selects, on all pages"),
    "next": schema.nullable("string") | schema.note("`before` of the next page; null on the last page"),
    "running": schema.record(_BOTH),
    "cut_short": _CUT_SHORT,
    "used_bytes": schema.INTEGER,
    "max_bytes": schema.nullable("integer"),
    "free_bytes": schema.nullable("integer"),
    "last_error": schema.nullable("string"),
}
# The field of the camera's status.
RECORDING_SHAPE: Final = {
    "recording": _or_null(
        schema.record(
            {
                **_BOTH,
                "cut_short": _CUT_SHORT,
                "last_error": schema.nullable("string"),
                "not_kept": schema.nullable("string")
                | schema.note("why the next start does not know what is recorded and what was stopped"),
            }
        )
    )
    | schema.note("recordings in progress and the last error; null if no folder is configured")
}


def _result(recording: schema.Schema) -> Mapping[int, Mapping[str, schema.Schema]]:
    return schema.json_ok(schema.record({**schema.STATUS_OK, "recording": recording}, schema.NOTE))


# --- routes

_NAME_SCHEMA: Final = {
    "type": "string",
    "pattern": f"^{NAME_PATTERN}$".replace(r"\d", "[0-9]"),
    "examples": ["2026-01-31_12-00-00.mp4"],
}
_NAME: Final = Parameter("name", "a name from the list", _NAME_SCHEMA, "path")
_LIMIT: Final = query.integer("limit", f"maximum number of recordings; {_MAX_LISTED} by default", 1, _MAX_LISTED)
_ONE_KIND: Final = query.choice("kind", "only recordings of this kind", *get_args(Kind))


def _day(text: str) -> str:
    with contextlib.suppress(ValueError):
        if date.fromisoformat(text).isoformat() == text:
            return text
    raise ValueError("a day in UTC, such as 2026-11-20")


_TIME: Final = query.number("", "Unix time", 0, _LAST_S)


def _bound(text: str) -> SortKey:
    with contextlib.suppress(ValueError):
        return sort_key(text) if is_recording(text) else sort_key_at(_TIME.parse(text))
    raise ValueError(f"a name from the list, or Unix time from 0 to {_LAST_S}")


def _before(text: str) -> tuple[SortKey | None, SortKey | None]:
    """The last recording of the previous page, if any, and the end of the time that is selected, if any."""
    name, comma, moment = text.partition(",")
    if not is_recording(name):
        return None, _bound(text)
    with contextlib.suppress(ValueError):
        return sort_key(name), sort_key_at(_TIME.parse(moment)) if comma else None
    raise ValueError(f"`next` of the previous page, or Unix time from 0 to {_LAST_S}")


def next_page(parameters: Mapping[str, str], last: str) -> str:
    """`before` of the page after the recording `last`, with the time of this page's `before`."""
    moment = parameters.get("before", "").rpartition(",")[2]
    return f"{last},{moment}" if moment and not is_recording(moment) else last


_BOUND: Final = {"anyOf": [_NAME.schema, _TIME.schema]}
_NEXT: Final = {"type": "string", "pattern": f"^{NAME_PATTERN},[0-9]{{1,11}}$".replace(r"\d", "[0-9]")}
_DAY: Final = query.QueryParameter(
    "day", "only recordings of this day, in UTC", {"format": "date"} | schema.STRING, parse=_day
)
_BEFORE: Final = query.QueryParameter(
    "before",
    "only recordings before this Unix time; or `next` of the previous page, which does not change `total`",
    {"anyOf": [*_BOUND["anyOf"], _NEXT]},
    parse=_before,
)
_AFTER: Final = query.QueryParameter(
    "after", "only this recording and later ones, or those since this Unix time", _BOUND, parse=_bound
)


def selection(parameters: Mapping[str, str]) -> Selection:
    """The recordings that the query selects. Raises HttpError 400."""
    cursor, end = _BEFORE.read(parameters) or (None, None)
    return Selection(
        kind=cast(Kind | None, _ONE_KIND.read(parameters)),
        day=_DAY.read(parameters) or "",
        first=_AFTER.read(parameters),
        end=end,
        cursor=cursor,
        limit=_LIMIT.read(parameters) or _MAX_LISTED,
    )


DOWNLOAD: Final = query.boolean("download", "whether the browser saves the file instead of showing it")
INDEX: Final = query.boolean("index", "whether a running recording has an index, so that players can seek in it")
_FILE: Final = {"video/mp4": None, "image/jpeg": None}
LIST_DOC: Final = Doc(
    "Recordings, the newest first",
    "recordings",
    schema.json_ok(schema.record(_LIST)),
    "In pages: the next one begins with `before`, which is the `next` of the previous page.",
    parameters=(_LIMIT, _BEFORE, _AFTER, _ONE_KIND, _DAY),
    errors=(400, 409),
)
STOP_DOC: Final = Doc(
    "Stop a recording",
    "recordings",
    _result({"anyOf": [_VIDEO, _TIMELAPSE, {"type": "null"}]}),
    "Without a kind, stops all recordings. When it returns, the last file is complete.",
    body=STOP.schema(),
    is_body_required=False,
    errors=(400, 409),
)
STILL_DOC: Final = Doc(
    "Save a photo",
    "recordings",
    _result(_ENTRY),
    body=STILL.schema(),
    is_body_required=False,
    errors=(400, 409, 503),
)
FILE_DOC: Final = Doc(
    "Download a recording",
    "recordings",
    {200: _FILE, 206: _FILE, 304: {}},
    "Supports Range, If-Range, If-None-Match and If-Modified-Since. A running recording ends with its last whole "
    "fragment. With `index` it remains the same until it has not been requested for a minute; without, it grows.",
    parameters=(_NAME, DOWNLOAD, INDEX),
    errors=(400, 404, 409, 416),
)
DELETE_DOC: Final = Doc(
    "Delete a recording",
    "recordings",
    schema.json_ok(schema.record(schema.STATUS_OK)),
    parameters=(_NAME,),
    errors=(404, 409),
)
KEEP_DOC: Final = Doc(
    "Keep a recording, or no longer",
    "recordings",
    schema.json_ok(schema.record({**schema.STATUS_OK, "keep": schema.BOOLEAN})),
    "A recording that is kept is not deleted to free space.",
    parameters=(_NAME,),
    body=KEEP.schema(),
    is_body_required=False,
    errors=(400, 404, 409),
)
THUMBNAIL_DOC: Final = Doc(
    "The thumbnail of a recording", "recordings", {200: {"image/jpeg": None}}, parameters=(_NAME,), errors=(404, 409)
)


def start_doc(video: Group) -> Doc:
    """The description of starting a recording, with the fields of `video` or of a time-lapse."""
    schemas = {group.name: group.schema() for group in (video, TIMELAPSE)}
    for group in (video, TIMELAPSE):
        schemas[group.name]["properties"]["kind"] = {"const": group.name} | schema.note(group.help)
    schemas["timelapse"]["required"] = ["kind"]  # without it, the recording is a video
    return Doc(
        "Record video or a time-lapse",
        "recordings",
        _result({"anyOf": [_VIDEO, _TIMELAPSE]}),
        "Records until it is stopped: if the disk is full or missing, it retries every few seconds. After a restart "
        "or a crash the portal resumes the recording.",
        body={"oneOf": list(schemas.values())},
        is_body_required=False,
        errors=(400, 409, 503),
    )
