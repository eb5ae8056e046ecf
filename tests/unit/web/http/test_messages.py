"""Targets are read as clients mean them, and JSON is JSON."""

import json
from http import HTTPStatus

import pytest

from softcam.web.http.messages import HttpError, Request, json_response, parse_target
from tests.support.raw_http import make_request


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/stream.mjpg", "/stream.mjpg", {}),
        ("/stream.mjpg?", "/stream.mjpg", {}),
        ("/frame?quality=80&fps=10", "/frame", {"quality": "80", "fps": "10"}),
        ("/frame?quality=80&quality=10", "/frame", {"quality": "80"}),
        ("/frame?quality=", "/frame", {"quality": ""}),
        ("/frame?quality", "/frame", {"quality": ""}),
        ("/frame?a=%20b%3D&c=d+e", "/frame", {"a": " b=", "c": "d e"}),
        ("/frame?a=%ff%zz", "/frame", {"a": "\ufffd%zz"}),
        # What clients append to the address that they were given.
        ("/?action=stream?nonce=1", "/", {"action": "stream", "nonce": "1"}),
        ("/?action=snapshot&cacheBust=1?timestamp=2", "/", {"action": "snapshot", "cacheBust": "1", "timestamp": "2"}),
        # As it comes through a proxy.
        ("http://camera:8080/stream?fps=5", "/stream", {"fps": "5"}),
        ("http://camera", "/", {}),
        ("http://camera?action=stream", "/", {"action": "stream"}),
        # A path that only looks so stays what it is.
        ("/elsewhere/http://camera/stream", "/elsewhere/http://camera/stream", {}),
        ("*", "*", {}),
        ("", "", {}),
    ],
)
def test_ok_targets(target: str, path: str, query: dict[str, str]) -> None:
    assert parse_target(target) == (path, query)


def test_json_is_utf8_and_never_kept() -> None:
    response = json_response({"name": "Küche", "none": None})
    assert response.body == '{"name": "Küche", "none": null}\n'.encode()
    assert response.status is HTTPStatus.OK
    assert response.content_type == "application/json"
    assert response.headers == {"Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}


def test_json_takes_further_headers() -> None:
    response = json_response({}, HTTPStatus.CONFLICT, {"Retry-After": "5", "Cache-Control": "private"})
    assert response.status is HTTPStatus.CONFLICT
    assert response.headers["Retry-After"] == "5"
    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_fail_what_json_cannot_say(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_response({"lux": number})


def test_an_error_knows_its_answer() -> None:
    error = HttpError(HTTPStatus.BAD_REQUEST, "quality 0: wants more")
    assert (str(error), error.status, error.headers) == ("quality 0: wants more", HTTPStatus.BAD_REQUEST, {})


@pytest.mark.parametrize(("method", "expects_body"), [("GET", True), ("POST", True), ("HEAD", False)])
def test_only_head_wants_no_body(method: str, expects_body: bool) -> None:
    request: Request = make_request("/", method=method)
    assert request.expects_body is expects_body
    assert json.loads(json_response({"method": request.method}).body) == {"method": method}
