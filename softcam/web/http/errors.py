"""Translates exceptions of handlers into responses: the only place that decides status and text of an error.

Every error is `{"detail": …}`. Runs on the request threads.
"""

from dataclasses import replace
from http import HTTPStatus
from typing import Final

from softcam.errors import CameraError, NoRecording, NotSupported, RecordingError
from softcam.web.http.messages import HttpError, Response, json_response

_RETRY_AFTER_S: Final = 2
RETRY_SOON: Final = {"Retry-After": str(_RETRY_AFTER_S)}
_STATUSES: Final = (  # subclasses first
    (NoRecording, HTTPStatus.NOT_FOUND),
    (RecordingError, HTTPStatus.CONFLICT),
    (NotSupported, HTTPStatus.CONFLICT),
    (CameraError, HTTPStatus.SERVICE_UNAVAILABLE),
)

_BUSY_DETAIL: Final = b'{"detail":"too many connections at once"}\n'
# Sent by the accepting thread where no thread is left to read the request.
BUSY_RESPONSE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%s" % (_RETRY_AFTER_S, len(_BUSY_DETAIL), _BUSY_DETAIL)
)

# Shown to a person who dismissed the browser's password dialog; programs get JSON.
_UNAUTHORIZED_PAGE: Final = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light"><title>Authentication required</title>
<h1>Authentication required</h1>
<p>Reload this page and enter the camera's API key as the password. Any user name is accepted.</p>
</html>
"""


def error_response(error: Exception, *, accepts_html: bool = False) -> Response:
    """The response for an exception; 500, without its text, where the exception is not an expected one."""
    if isinstance(error, HttpError):
        response = json_response({"detail": str(error)}, error.status, error.headers)
        if error.status is HTTPStatus.UNAUTHORIZED and accepts_html:
            return replace(response, body=_UNAUTHORIZED_PAGE, content_type="text/html; charset=utf-8")
        return response
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            headers = RETRY_SOON if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
            return json_response({"detail": str(error)}, status, headers)
    return json_response({"detail": "internal server error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
