"""Reads the head of a request, its request line and header, by the rules of RFC 9110 and RFC 9112.

A head that a proxy in front could read differently is rejected, not guessed at (request smuggling, RFC 9112, 11). It
is counted while it is read: a client cannot make the portal hold more than `MAX_HEAD_BYTES` of it.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Final

from softcam.web.http.messages import HttpError

MAX_HEAD_BYTES: Final = 32 * 1024  # nginx passes on as much with its default settings
_MAX_FIELDS: Final = 100
_EMPTY_LINES: Final = 8  # ignored before a request; a client may send them after the body of the previous one
_BLANKS: Final = b" \t"  # of HTTP; bytes.strip() without arguments would remove other characters, too
_REQUEST_LINE: Final = re.compile(rb"(\S+) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)")
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110, 9.1; no registered method is longer
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")  # RFC 9110, 5.1 and 5.5


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The request line and header of one request. `version` is `HTTP/1.0` or `HTTP/1.1`."""

    method: str
    target: str
    version: str
    headers: Message

    @property
    def keeps_connection(self) -> bool:
        """Whether the client can send another request on the same connection (RFC 9112, 9.3)."""
        options = {
            word.strip().lower() for value in self.headers.get_all("Connection", []) for word in value.split(",")
        }
        return "close" not in options and (self.version == "HTTP/1.1" or "keep-alive" in options)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client sends the body only after `100 Continue` (RFC 9110, 10.1.1)."""
        return self.version == "HTTP/1.1" and self.headers.get("Expect", "").lower() == "100-continue"


def read_head(file: io.BufferedIOBase, on_empty_line: Callable[[], None]) -> RequestHead | None:
    """The next head, decoded as Latin-1; None if the client closed the connection before one.

    `on_empty_line` is called for each empty line in front of it, which does not belong to the request. Raises HttpError
    400, 414, 431 or 505; the connection must then be closed, since the end of the request is unknown. Also raises what
    `file.readline` raises.
    """
    left = MAX_HEAD_BYTES
    for _ in range(_EMPTY_LINES + 1):
        line = _read_line(file, left, HTTPStatus.REQUEST_URI_TOO_LONG, "request line")
        if line != b"":
            break
        on_empty_line()
    if line is None:
        return None
    method, target, version = _parse_request_line(line)
    left -= len(line) + 2
    headers = Message()
    while field := _read_line(file, max(left, 0), HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "header"):
        left -= len(field) + 2
        match = _FIELD.fullmatch(field)
        if match is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "header: every line must be NAME: VALUE")
        if len(headers) == _MAX_FIELDS:
            rule = f"header: must have at most {_MAX_FIELDS} lines"
            raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, rule)
        headers[match[1].decode("ascii")] = match[2].strip(_BLANKS).decode("latin-1")
    if field is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "header: must end with an empty line")
    return RequestHead(method, target, version, headers)


def _read_line(file: io.BufferedIOBase, limit: int, status: HTTPStatus, what: str) -> bytes | None:
    """A line without its end, which is CR LF or LF (RFC 9112, 2.2); None if the connection was closed."""
    line = file.readline(limit + 1)
    if len(line) > limit:
        raise HttpError(status, f"{what}: must have at most {MAX_HEAD_BYTES} bytes, including the lines before it")
    if not line.endswith(b"\n"):
        if line:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{what}: must be complete before the connection is closed")
        return None
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _parse_request_line(line: bytes) -> tuple[str, str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    method = match[1].decode("latin-1") if match else ""
    if match is None or not _METHOD.fullmatch(method):
        raise HttpError(HTTPStatus.BAD_REQUEST, "request line: must be METHOD PATH HTTP/1.1")
    if match[3] != b"1":
        rule = "request line: must end with HTTP/1.1 or HTTP/1.0"
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, rule)
    return method, match[2].decode("latin-1"), "HTTP/1.0" if match[4] == b"0" else "HTTP/1.1"
