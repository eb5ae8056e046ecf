"""Request bodies: where a request ends, its media type, and its JSON, validated against a group of the control schema.

A request whose end is in doubt ends its connection, so that a proxy in front and the portal cannot disagree about where
the next request begins (request smuggling, RFC 9112, 11.2). Pure functions.
"""

import json
import re
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import Any, Final

from softcam.controls.fields import Group
from softcam.errors import BadValue
from softcam.web.http.messages import HttpError, Request

_JSON: Final = "application/json"
# RFC 9110, 7.2, and RFC 3986, 3.2.2; also names in other letters, which some clients do not encode.
_HOST: Final = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%\x80-\xff-]*)(?::\d{0,5})?", re.ASCII)
_MAX_BODY_BYTES: Final = 64 * 1024  # the largest request is a JSON object with a dozen numbers
_MAX_DIGITS: Final = 18  # int() itself raises ValueError above some thousand digits

NO_FIELDS: Final = Group("", "No fields.", (), is_optional=True)  # for requests without parameters in the body


def body_length(version: str, headers: Message) -> int:
    """The length of the body in bytes. Raises HttpError 400, 411 or 413.

    After an error the end of the request is unknown: the connection must be closed after the response.
    """
    hosts = headers.get_all("Host", [])
    if len(hosts) > 1 or (not hosts and version >= "HTTP/1.1"):  # RFC 9112, 3.2
        raise HttpError(HTTPStatus.BAD_REQUEST, "Host: must be present exactly once")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise HttpError(HTTPStatus.BAD_REQUEST, "Host: must be HOST or HOST:PORT")
    if "Transfer-Encoding" in headers:
        raise HttpError(
            HTTPStatus.LENGTH_REQUIRED, "Transfer-Encoding: must be absent; a body must have a Content-Length"
        )
    text, *others = headers.get_all("Content-Length", ["0"])
    if others:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length: must be present at most once")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length: must be a number of bytes")
    if len(text) > _MAX_DIGITS or int(text) > _MAX_BODY_BYTES:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length: must be at most {_MAX_BODY_BYTES}")
    return int(text)


def require_json(headers: Message, length: int) -> None:
    """Raises HttpError 415 for a body of another type: a foreign page can send forms without a preflight, not JSON."""
    content_type = headers.get("Content-Type")
    if length and (content_type is None or content_type.partition(";")[0].strip().lower() != _JSON):
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: must be {_JSON}")


def read(request: Request, group: Group, *others: Group) -> Mapping[str, Any]:
    """The validated values of a body. Raises BadValue that lists every invalid field, or HttpError 400.

    A field `kind` may select one of the `others` by its name.
    """
    if not request.body and group.is_optional:
        return {}
    content = read_json(request)
    kind = content.get("kind") if isinstance(content, dict) else None
    return next((each for each in others if each.name == kind), group).parse(content)


def read_json(request: Request) -> Any:
    """The JSON of a body, whatever it is. Raises HttpError 400, and BadValue for what JSON does not have."""
    try:
        text = request.body.decode("utf-8")
        return json.loads(text, parse_constant=_reject_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # The body is not quoted: it may contain anything.
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise HttpError(HTTPStatus.BAD_REQUEST, f"body: must be valid JSON{where}") from error


def _reject_constant(word: str) -> None:
    raise BadValue(f"body: must be valid JSON, which does not have {word}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise BadValue(f"{name[:40]}: must be present at most once")
        content[name] = value
    return content
