"""Exceptions become responses in one place."""

import json
from http import HTTPStatus

import pytest

from softcam.errors import BadValue, CameraBusy, NoPicture, NoRecording, NotSupported, PortalError, RecordingError
from softcam.web.http.errors import error_response
from softcam.web.http.messages import HttpError


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (HttpError(HTTPStatus.CONFLICT, "hdr: camera must be closed", {"Retry-After": "7"}), 409, "7"),
        (NoRecording("no recording of that name"), 404, None),
        (RecordingError("a recording is running"), 409, None),
        (BadValue("gain: must be a number from 0.1 to 64"), 400, None),
        (NotSupported("this camera has no autofocus"), 409, None),
        (CameraBusy("another program has the camera"), 503, "2"),
        (NoPicture("no picture in time"), 503, "2"),
    ],
)
def test_expected_errors(error: Exception, status: int, retry_after: str | None) -> None:
    response = error_response(error)
    assert (response.status, json.loads(response.body)) == (status, {"detail": str(error)})
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("error", [ValueError("a secret"), PortalError("a secret")])
def test_unexpected_error_is_not_revealed(error: Exception) -> None:
    response = error_response(error)
    assert (response.status, json.loads(response.body)) == (500, {"detail": "internal server error"})


def test_unauthorized_page_for_browsers() -> None:
    error = HttpError(HTTPStatus.UNAUTHORIZED, "an API key is required", {"WWW-Authenticate": "Basic"})
    page = error_response(error, accepts_html=True)
    assert page.content_type.startswith("text/html")
    assert b"enter the camera's API key as the password" in page.body
    assert page.headers["WWW-Authenticate"] == "Basic"
    assert error_response(error).content_type == "application/json"
