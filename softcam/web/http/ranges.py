"""Which bytes of a file a request wants: ranges and conditions, as RFC 9110 has them (13 and 14).

Values alone: no socket, no thread, and of a file only its `stat`.
"""

import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import BinaryIO, Final

from softcam.web.http.messages import Answer, FileResponse, HttpError, Request, Response

_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_LONGEST_NUMBER: Final = 18  # digits; int() itself refuses thousands, and no file is so large
_ETAG: Final = re.compile(r'(?:W/)?("[^"]*")')
# A date tells seconds: only one that long past cannot mean two states of the file (RFC 9110, 8.8.2.2).
_SETTLED_S: Final = 2.0


def file_answer(
    request: Request, file: BinaryIO, size: int, content_type: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """The answer for the first `size` bytes of an open file, which is closed unless the answer bears it.

    Raises HttpError 416 for a range beyond them. Of several ranges at once the whole file is the answer, as allowed.
    """
    keeps_file = False
    try:
        told = os.fstat(file.fileno())
        etag = f'"{told.st_ino:x}-{told.st_mtime_ns:x}-{size:x}"'
        common = {
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Last-Modified": formatdate(told.st_mtime, usegmt=True),
            **(headers or {}),
        }
        if _is_known(request.headers, etag, told.st_mtime):
            return Response(b"", content_type, HTTPStatus.NOT_MODIFIED, common)
        part = None
        # For HEAD a range has no meaning (RFC 9110, 14.2).
        if request.wants_body and _may_be_part(request.headers, etag, told.st_mtime):
            part = wanted_range(request.headers.get("Range"), size)
        if part is None:
            answer = FileResponse(file, 0, size, content_type, HTTPStatus.OK, common)
        else:
            begin, end = part
            common["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            answer = FileResponse(file, begin, end - begin, content_type, HTTPStatus.PARTIAL_CONTENT, common)
        keeps_file = True
        return answer
    finally:
        if not keeps_file:
            file.close()


def wanted_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last, of a file of `size` bytes; None is the whole file.

    Raises HttpError 416 where no byte is left of what was asked for. What is not understood is not there.
    """
    found = None if text is None else _RANGE.fullmatch(text)
    if found is None or found[1] == found[2] == "":
        return None
    first, last = _number(found[1]), _number(found[2])
    if first is None:
        begin, end = size - min(last or 0, size), size
    else:
        if last is not None and last < first:
            return None
        begin, end = first, size if last is None else min(last + 1, size)
    if begin >= end:
        raise HttpError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"Range: there are {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        )
    return begin, end


def _number(digits: str) -> int | None:
    return int(digits[:_LONGEST_NUMBER] if len(digits.lstrip("0")) > _LONGEST_NUMBER else digits) if digits else None


def _is_known(headers: Message, etag: str, modified_s: float) -> bool:
    """Whether the client says that it has this state of the file."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or etag in _ETAG.findall(tags)
    since_s = _date(headers.get("If-Modified-Since"))
    return since_s is not None and int(modified_s) <= since_s


def _may_be_part(headers: Message, etag: str, modified_s: float) -> bool:
    """Whether a range would fit what the client has already (If-Range)."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if condition.strip().startswith(('"', "W/")):
        return condition.strip() == etag  # a weak one never fits
    return _date(condition) == int(modified_s) and time.time() - modified_s >= _SETTLED_S


def _date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment: datetime = parsedate_to_datetime(text)
        return moment.timestamp()
    except (ValueError, TypeError, OverflowError):  # no date, which is as good as none
        return None
