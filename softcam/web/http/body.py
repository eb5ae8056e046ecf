"""Parses request bodies: JSON objects, validated against a group of the control schema. Runs on the request threads."""

import json
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import Any, Final

from softcam.controls.fields import BadValue, Group
from softcam.web.http.messages import HttpError, Request

_JSON: Final = "application/json"

NO_FIELDS: Final = Group("", "No fields.", (), is_optional=True)  # for requests without parameters in the body


def require_json(headers: Message, length: int) -> None:
    """Raises HttpError 415 for a body of another type: a foreign page can send forms without a preflight, not JSON."""
    content_type = headers.get("Content-Type")
    if length and (content_type is None or content_type.partition(";")[0].strip().lower() != _JSON):
        shown = "Content-Type" if content_type is None else f"Content-Type {content_type[:80]!r}"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{shown}: must be {_JSON}")


def read(request: Request, group: Group) -> Mapping[str, Any]:
    """The validated values of a body. Raises HttpError 400 that lists every invalid field."""
    if not request.body and group.is_optional:
        return {}
    try:
        content = json.loads(request.body.decode("utf-8"), parse_constant=_reject_constant, object_pairs_hook=_unique)
    except BadValue as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
    except (ValueError, RecursionError) as error:
        # The body is not quoted: it may contain anything.
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON{where}") from error
    try:
        return group.parse(content)
    except BadValue as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error


def _reject_constant(word: str) -> None:
    raise BadValue(f"{word} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        name = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise BadValue(f"{name[:40]}: duplicate key in the JSON object")
    return content
