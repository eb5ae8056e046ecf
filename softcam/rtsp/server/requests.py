"""Requests as the server answers them: their first line and what their URL names; and its responses (RFC 2326, 6, 7).

Functions without state. Any case, and no version, are accepted.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from softcam.rtsp.messages import InvalidMessage, Message, format_message

_REQUEST_LINE: Final = re.compile(
    r"([!#$%&'*+.^_`|~\w-]+)[ \t]+([!-~\x80-\xff]+)(?:[ \t]+((?i:RTSP|HTTP))/(\d)\.(\d))?[ \t]*", re.ASCII
)

REASONS: Final[Mapping[int, str]] = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Time-out",
    413: "Request Entity Too Large",
    451: "Parameter Not Understood",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version not supported",
    551: "Option not supported",
}


@dataclass(frozen=True, slots=True)
class Request(Message):
    """A message whose first line is that of a request."""

    method: str
    url: str
    protocol: str  # RTSP or HTTP
    version: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names. `path` has no slash at either end, `base` no user and password, and ends with a slash."""

    path: str
    base: str


TRACK: Final = "trackID=0"  # the name of the one track in control URLs


def read_request(message: Message) -> Request:
    """Raises InvalidMessage."""
    match = _REQUEST_LINE.fullmatch(message.first)
    if match is None:
        raise InvalidMessage(400, "the request line must be METHOD URL RTSP/1.0")
    version = (int(match[4]), int(match[5])) if match[3] else (1, 0)
    protocol = (match[3] or "RTSP").upper()
    return Request(message.first, message.fields, message.body, match[1].upper(), match[2], protocol, version)


def read_target(url: str) -> Target | None:
    """What the URL of a request names; None if it is not a URL. `*` and an empty path name the whole stream."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return None
    if parts.scheme.lower() not in ("rtsp", "rtspu", "") or (url != "*" and not url.startswith("/") and not host):
        return None
    # Clients append the name of the track to the whole URL, also where that ends with a query.
    text = "" if url == "*" else f"{parts.path}?{parts.query}" if parts.query else parts.path
    head, slash, tail = text.rstrip("/").rpartition("/")
    if slash and tail.lower() == TRACK.lower():
        text = head
    path, _, query = text.partition("?")
    path = path.strip("/")
    base = f"rtsp://{host}/" + (f"{path}/" if path else "") if host else ""
    if base and query:
        base = f"{base if not path else base.removesuffix('/')}?{query}/"
    return Target(unquote(path), base)


def format_response(status: int, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    return format_message(f"RTSP/1.0 {status} {REASONS[status]}", fields, body)
