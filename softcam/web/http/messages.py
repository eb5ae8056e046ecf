"""Requests and answers as values. No socket is known here; `server` reads the ones and writes the others."""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl

from softcam.errors import PortalError

# Mainsail and Fluidd fetch streams and snapshots from another origin; they say nothing that a page may not know.
ANYONE_MAY_READ: Final = {"Access-Control-Allow-Origin": "*"}
NEVER_KEEP: Final = {"Cache-Control": "no-store"}


class HttpError(PortalError):
    """An answer other than success; the message goes out as `{"detail": …}` and names the field and the rule."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def switched_off() -> HttpError:
    """The answer where the camera is switched off by configuration. No Retry-After: it will not come by itself."""
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the camera is switched off (CAMERA_ENABLED=0)")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    client: str
    body: bytes = b""
    parts: Mapping[str, str] = field(default_factory=dict)  # of the path, where the route has braces

    @property
    def wants_body(self) -> bool:
        """False for HEAD, which wants the header of the answer and nothing made for it."""
        return self.method != "HEAD"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    body: bytes = b""
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """The beginning of an answer without end: its header is sent, then `take` owns the socket.

    `give_up` is called in place of `take` when the client left before its header was sent.
    """

    take: Callable[[socket.socket], None]
    give_up: Callable[[], None]
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileResponse:
    """Bytes of a file, `length` of them from `begin` on. Who sends it closes the file, which may grow meanwhile."""

    file: BinaryIO
    begin: int
    length: int
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Response | FileResponse | StreamingResponse


def json_response(
    content: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """`content` as JSON in UTF-8, never kept by caches."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    return Response(body, "application/json", status, {**NEVER_KEEP, **ANYONE_MAY_READ, **(headers or {})})


def parse_target(target: str) -> tuple[str, dict[str, str]]:
    """Path and query of a request target; of a parameter given twice the first counts.

    A second question mark is read as an ampersand: clients append `?nonce=…` to whatever address they were given, so
    `/?action=stream?nonce=1` is real.
    """
    path, _, query = target.partition("?")
    if "://" in path and not path.startswith("/"):  # the absolute form, for proxies
        path = "/" + path.partition("://")[2].partition("/")[2]
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.replace("?", "&"), keep_blank_values=True):
        values.setdefault(name, value)
    return path, values
