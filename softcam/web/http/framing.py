"""Checks where a request ends, before it is handled (RFC 9112): header syntax, method, Host and Content-Length.

A request whose end is in doubt ends its connection, so that a proxy in front and the portal cannot disagree about where
the next request begins (request smuggling, RFC 9112, 11.2). Pure functions.
"""

import re
from email import errors as defects
from email.message import Message
from http import HTTPStatus
from typing import Final

from softcam.web.http.messages import HttpError

_MAX_BODY_BYTES: Final = 64 * 1024  # the largest request is a JSON object with a dozen numbers
_MAX_DIGITS: Final = 18  # int() itself raises ValueError above some thousand digits
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110, 9.1; no registered method is longer

# Defects of a header block that http.server parsed only in part. A proxy may have read the rest as headers (RFC 9112,
# 5.1 and 11.2).
_HEADER_DEFECTS: Final = (
    defects.MissingHeaderBodySeparatorDefect,
    defects.InvalidHeaderDefect,
    defects.FirstHeaderLineIsContinuationDefect,
    defects.MisplacedEnvelopeHeaderDefect,
)


class FramingError(HttpError):
    """The end of the request is unknown: the connection must be closed after the response."""


def check_framing(method: str, version: str, headers: Message) -> None:
    """Raises FramingError 400 for a malformed header line, method or Host."""
    if any(isinstance(defect, _HEADER_DEFECTS) for defect in headers.defects):
        raise FramingError(HTTPStatus.BAD_REQUEST, "malformed header line: must be NAME: VALUE")
    if not _METHOD.fullmatch(method):
        raise FramingError(HTTPStatus.BAD_REQUEST, "malformed request method")
    hosts = len(headers.get_all("Host", []))
    if hosts > 1 or (hosts == 0 and version >= "HTTP/1.1"):  # RFC 9112, 3.2
        raise FramingError(HTTPStatus.BAD_REQUEST, "Host: must be present exactly once")


def body_length(headers: Message) -> int:
    """The length of the body in bytes. Raises FramingError 400, 411 or 413."""
    if "Transfer-Encoding" in headers:
        raise FramingError(
            HTTPStatus.LENGTH_REQUIRED, "Transfer-Encoding: not supported; a body must have a Content-Length"
        )
    lengths = [str(value).strip(" \t") for value in headers.get_all("Content-Length", ["0"])]
    if len(lengths) > 1:
        raise FramingError(HTTPStatus.BAD_REQUEST, "Content-Length: must be present at most once")
    text = lengths[0]
    if not (text.isascii() and text.isdigit()):
        raise FramingError(HTTPStatus.BAD_REQUEST, f"Content-Length {text[:_MAX_DIGITS]!r}: must be a number of bytes")
    if len(text) > _MAX_DIGITS or int(text) > _MAX_BODY_BYTES:
        raise FramingError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length: must be at most {_MAX_BODY_BYTES}")
    return int(text)
