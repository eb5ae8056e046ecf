"""Range and conditional requests for files (RFC 9110, sections 13 and 14).

Pure functions, except for one `fstat`.
"""

import math
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import BinaryIO, Final

from softcam.web.http.messages import AnyResponse, FileResponse, HttpError, Request, Response

_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_MAX_DIGITS: Final = 18  # int() itself raises ValueError above some thousand digits; no file is that large
_ETAG: Final = re.compile(r'(?:W/)?("[^"]*")')  # a compressing proxy turns a tag into a weak one
# Dates have a resolution of one second: a younger one could stand for two states of the file (RFC 9110, 8.8.2.2).
_SETTLED_S: Final = 2.0


def file_response(
    request: Request,
    file: BinaryIO,
    size: int,
    content_type: str,
    headers: Mapping[str, str] | None = None,
    *,
    head: bytes = b"",
    tail: bytes = b"",
    modified_s: float | None = None,
) -> AnyResponse:
    """The response for the first `size` bytes of an open file, which is closed unless the response contains it.

    `head` replaces its first bytes, and `tail` follows. `modified_s` (Unix time) is by default that of the file.

    Raises HttpError 416 for a range beyond them. Several ranges at once return the whole file, as RFC 9110 permits.
    """
    with ExitStack() as stack:
        stack.callback(file.close)
        stat = os.fstat(file.fileno())
        modified_ns = stat.st_mtime_ns if modified_s is None else int(modified_s * 1e9)
        modified_s = modified_ns / 1e9
        tail_at, size = size, size + len(tail)
        etag = f'"{stat.st_ino:x}-{modified_ns:x}-{size:x}"'
        common = {
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Last-Modified": formatdate(modified_s, usegmt=True),
            **(headers or {}),
        }
        if is_unchanged(request.headers, etag, modified_s):
            return Response(b"", content_type, HTTPStatus.NOT_MODIFIED, common)
        part = None
        # A range has no meaning for HEAD (RFC 9110, 14.2).
        if request.expects_body and _range_applies(request.headers, etag, modified_s):
            part = requested_range(request.headers.get("Range"), size)
        stack.pop_all()  # the response contains the file
        if part is None:
            return FileResponse(file, 0, size, content_type, HTTPStatus.OK, common, head, tail, tail_at)
        begin, end = part
        common["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return FileResponse(
            file, begin, end - begin, content_type, HTTPStatus.PARTIAL_CONTENT, common, head, tail, tail_at
        )


def requested_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the end (exclusive) of a range in a file of `size` bytes; None is the whole file.

    Raises HttpError 416 if the range contains no byte of the file. A malformed range is ignored (RFC 9110, 14.2).
    """
    found = _RANGE.fullmatch(text or "")
    if found is None or found[1] == found[2] == "":
        return None
    first, last = (int(digits.lstrip("0")[:_MAX_DIGITS] or "0") if digits else None for digits in found.groups())
    if first is None:
        begin, end = size - min(last or 0, size), size
    else:
        if last is not None and last < first:
            return None
        begin, end = first, size if last is None else min(last + 1, size)
    if begin >= end:
        raise HttpError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"Range: must start within the file, which has {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        )
    return begin, end


def is_unchanged(headers: Message, etag: str, modified_s: float = math.inf) -> bool:
    """Whether the client already has this state of the content."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or etag in _ETAG.findall(tags)
    since_s = _date(headers.get("If-Modified-Since"))
    return since_s is not None and modified_s < since_s + 1


def _range_applies(headers: Message, etag: str, modified_s: float) -> bool:
    """Whether a range belongs to the state that the client has (If-Range)."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if condition.strip().startswith(('"', "W/")):
        return condition.strip() == etag  # a weak tag never matches
    return _date(condition) == int(modified_s) and time.time() - modified_s >= _SETTLED_S


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):  # an invalid date is ignored
        return None
