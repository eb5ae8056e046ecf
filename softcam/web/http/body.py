"""Reads the bodies of requests: JSON objects, checked against a group of the table. Runs on the threads of requests."""

import json
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import Any, Final

from softcam.controls.schema import BadValue, Group
from softcam.web.http.messages import HttpError, Request

_JSON: Final = "application/json"


NO_FIELDS: Final = Group("", "No fields.", (), is_optional=True)  # for requests that say all by their address


def refuse_other_than_json(headers: Message, length: int) -> None:
    """Raises HttpError 415 for a body of another type: forms of foreign pages have such, and JSON asks first."""
    content_type = headers.get("Content-Type")
    if length and (content_type is None or content_type.partition(";")[0].strip().lower() != _JSON):
        shown = "is missing" if content_type is None else repr(content_type[:80])
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {shown}: wants {_JSON}")


def read(request: Request, group: Group) -> Mapping[str, Any]:
    """The checked values of a body. Raises HttpError 400 with every fault, by field and rule."""
    if not request.body and group.is_optional:
        return {}
    try:
        content = json.loads(request.body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except BadValue as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
    except (ValueError, RecursionError) as error:
        # No text of the body in the answer: it may be anything.
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is no JSON{where}") from error
    try:
        return group.parse(content)
    except BadValue as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error


def _refuse(word: str) -> None:
    raise BadValue(f"{word} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise BadValue("a field stands there twice")
    return content
