"""The log of this portal: the newest lines, and new ones as Server-Sent Events. Runs on the threads of requests.

The lines are printable and without secrets, see `softcam.runtime.log`. They are for the owner: the view key does not
grant access, and pages of other origins cannot read them.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.net.event_loop import EventLoop
from softcam.runtime.log.lines import LEVELS, LogLine
from softcam.runtime.log.memory import LogMemory, Selection
from softcam.runtime.plural import counted
from softcam.runtime.shares import AddressShares
from softcam.streaming.event_stream import CONTENT_TYPE, EventBatch, EventStream, format_event
from softcam.web.api.event_stream import AFTER, MAX_NUMBER, connect, resume_position
from softcam.web.api.json_schema import BOOLEAN, INTEGER, STATUS_OK, STRING, UNIX_TIME, json_ok, note, record
from softcam.web.http import query
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.query import QueryParameter
from softcam.web.http.router import Doc, Route

# Not of --max-clients: a crowd of viewers does not keep the owner from reading why it is slow, and the reverse.
_MAX_CLIENTS: Final = 16
_MAX_PER_ADDRESS: Final = 8
_DEFAULT_LINES: Final = 100
_MAX_SEARCH: Final = 200  # characters
_MAX_MISSED: Final = 10**7  # lines; the numbers of a run that is lost may be much lower
_BATCH: Final = 50  # lines that are read in a turn of the event loop
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def _level(text: str) -> int:
    if text and text.upper() not in LEVELS:
        raise ValueError(f"one of {', '.join(LEVELS)}")
    return LEVELS.get(text.upper(), 0)


def _search(text: str) -> str:
    if len(text) > _MAX_SEARCH:
        raise ValueError(f"at most {_MAX_SEARCH} characters")
    return text.casefold()


_LINES: Final = query.integer("lines", f"maximum number of lines, {_DEFAULT_LINES} by default", 1, 10_000)
_BEFORE: Final = query.integer("before", "number of a line; only older ones are returned", 1, MAX_NUMBER)
_LEVEL: Final = QueryParameter(
    "level",
    "this level and above, in any case",
    {"type": "string", "enum": [*LEVELS, *map(str.lower, LEVELS), ""]},
    parse=_level,
)
_SEARCH: Final = QueryParameter(
    "search", "text that the line contains, in any case", {"type": "string", "maxLength": _MAX_SEARCH}, parse=_search
)
_FORMAT: Final = query.choice("format", "data of the events: the line, or an entry as JSON", "text", "json")

_ENTRY: Final = record(
    {
        "id": INTEGER | note("increases with each line, also from run to run"),
        "time": UNIX_TIME,
        "level": {"enum": [*LEVELS]},
        "logger": STRING,
        "thread": STRING,
        "message": STRING | note("a line of a traceback begins with `| `"),
        "run": INTEGER | note("of the portal that logged it"),
    }
)
_LINES_DOC: Final = Doc(
    "The log of this portal",
    "system",
    json_ok(
        record(
            {
                **STATUS_OK,
                "logs": {"type": "array", "items": STRING} | note("the lines as text, the oldest first"),
                "total_lines": INTEGER | note("in this response"),
                "service": STRING,
                "entries": {"type": "array", "items": _ENTRY} | note("the same lines"),
                "run": INTEGER | note("number of this run; lower ones are of earlier runs"),
                "has_more": BOOLEAN | note("whether there are older lines: request them with `before`"),
            }
        )
    ),
    "The newest lines, also of earlier runs, which show why the portal was restarted. Requires the full key.",
    parameters=(_LINES, _LEVEL, _SEARCH, _BEFORE),
    errors=(400, 403),
)
_STREAM_DOC: Final = Doc(
    "The log of this portal, live",
    "system",
    {200: {CONTENT_TYPE: None}},
    "Server-Sent Events: new lines as they are logged. A browser that connects again gets what it has missed "
    "(`Last-Event-ID`). A client that is too slow gets an event `skipped`. Requires the full key.",
    parameters=(_LEVEL, _SEARCH, AFTER, _FORMAT),
    errors=(400, 403, 503),
    is_endless=True,
)


def live_logs(memory: LogMemory, loop: EventLoop, service: str) -> "LogsApi":
    """The API with a stream on the event loop, before that is started."""
    stream = EventStream(loop, "Log client", _MAX_CLIENTS)
    memory.subscribe(stream.wake)
    return LogsApi(memory, stream, AddressShares(_MAX_PER_ADDRESS), service)


@dataclass(frozen=True, slots=True)
class LogsApi:
    """Handles `/v1/system/logs`. `service` is the name of the systemd unit."""

    memory: LogMemory
    stream: EventStream
    shares: AddressShares
    service: str

    def routes(self) -> list[Route]:
        place = "system/logs"
        routes = [
            Route((f"/v1/{place}", f"/{place}"), self.get_lines, is_private=True, doc=_LINES_DOC),
            Route((f"/v1/{place}/stream", f"/{place}/stream"), self.get_stream, is_private=True, doc=_STREAM_DOC),
        ]
        return [replace(route, is_same_origin=True) for route in routes]

    def get_lines(self, request: Request) -> AnyResponse:
        lines, has_more = self.memory.newest(
            _LINES.read(request.query) or _DEFAULT_LINES, _selection(request), _BEFORE.read(request.query)
        )
        content = {
            "status": "ok",
            "logs": [line.text for line in lines],
            "total_lines": len(lines),
            "service": self.service,
            "entries": [_entry(line) for line in lines],
            "run": self.memory.run,
            "has_more": has_more,
        }
        return json_response(content, headers=_HEADERS)

    def get_stream(self, request: Request) -> AnyResponse:
        selection, is_json = _selection(request), _FORMAT.read(request.query) == "json"
        newest, position = self.memory.last_id, resume_position(request)
        if position is None:
            position = newest
        elif not self.memory.oldest_id - _MAX_MISSED <= position <= newest:
            position = 0  # of a log that a restart has lost: begin with the oldest line

        def read(last_id: int) -> EventBatch:
            lines, lost = self.memory.after(last_id, _BATCH)
            parts = [_event(line, is_json=is_json) for line in lines if selection.matches(line)]
            if not last_id:
                lost = 0  # it asked for all that there is
            elif lost:
                parts.insert(0, format_event(f"{counted(lost, 'line')} skipped", name="skipped"))
            position = lines[-1].id if lines else last_id
            return EventBatch(b"".join(parts), position, position >= self.memory.last_id, lost)

        return connect(request, self.stream, self.shares, read, position)


def _selection(request: Request) -> Selection:
    """Raises HttpError 400."""
    return Selection(_LEVEL.read(request.query) or 0, _SEARCH.read(request.query) or "")


def _event(line: LogLine, *, is_json: bool) -> bytes:
    data = json.dumps(_entry(line), ensure_ascii=False, separators=(",", ":")) if is_json else line.text
    return format_event(data, number=line.id)


def _entry(line: LogLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "time": round(line.time_s, 3),
        "level": line.level_name,
        "logger": line.logger,
        "thread": line.thread,
        "message": line.message,
        "run": line.run,
    }
