"""One table finds what is asked for, under each of its names."""

from collections.abc import Mapping
from http import HTTPStatus

import pytest

from softcam.web.http.messages import HttpError, Request, Response
from softcam.web.http.router import Route, Router


def answer(_request: Request) -> Response:
    return Response()


PAGE = Route(("/", "/index.html"), answer)
STREAM = Route(("/stream.mjpg", "/stream", "/?action=stream"), answer)
SNAPSHOT = Route(("/snapshot.jpg", "/?action=snapshot"), answer)
SAVE = Route(("/save",), answer, method="POST")
LOAD = Route(("/save",), answer)
ROUTES = Router([PAGE, STREAM, SNAPSHOT, SAVE, LOAD])


@pytest.mark.parametrize(
    ("method", "path", "query", "route"),
    [
        ("GET", "/", {}, PAGE),
        ("HEAD", "/", {}, PAGE),
        ("GET", "/", {"timestamp": "1"}, PAGE),
        ("GET", "/index.html", {}, PAGE),
        ("GET", "/stream", {}, STREAM),
        ("GET", "/stream", {"action": "snapshot"}, STREAM),  # an action means something at the root alone
        ("GET", "/", {"action": "stream"}, STREAM),
        ("HEAD", "/", {"action": "snapshot"}, SNAPSHOT),
        ("POST", "/save", {}, SAVE),
        ("GET", "/save", {}, LOAD),
    ],
)
def test_ok_found(method: str, path: str, query: Mapping[str, str], route: Route) -> None:
    assert ROUTES.find(method, path, query) is route


@pytest.mark.parametrize("path", ["/nothing", "/stream/", "/Stream", "//stream", "", "*", "/index"])
def test_fail_not_found(path: str) -> None:
    with pytest.raises(HttpError) as caught:
        ROUTES.find("GET", path, {})
    assert caught.value.status is HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "query", "allowed"),
    [
        ("POST", "/stream", {}, "GET, HEAD, OPTIONS"),
        ("DELETE", "/save", {}, "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/", {"action": "stream"}, "GET, HEAD, OPTIONS"),
    ],
)
def test_fail_not_allowed(method: str, path: str, query: Mapping[str, str], allowed: str) -> None:
    with pytest.raises(HttpError, match=f"takes {allowed}, not {method}") as caught:
        ROUTES.find(method, path, query)
    assert caught.value.status is HTTPStatus.METHOD_NOT_ALLOWED
    assert caught.value.headers == {"Allow": allowed}


@pytest.mark.parametrize("action", ["", "command", "stream_0", "x" * 5000])
def test_fail_unknown_action(action: str) -> None:
    with pytest.raises(HttpError, match=r"^action .*: wants one of snapshot, stream$") as caught:
        ROUTES.find("GET", "/", {"action": action})
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert len(str(caught.value)) < 200


def test_a_long_path_is_not_repeated_in_full() -> None:
    with pytest.raises(HttpError) as caught:
        ROUTES.find("GET", "/" + "x" * 60000, {})
    assert len(str(caught.value)) < 200


def test_two_routes_under_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two routes for HEAD /stream"):
        Router([STREAM, Route(("/stream",), answer, method="HEAD")])
    with pytest.raises(ValueError, match="two routes for GET /"):
        Router([PAGE, Route(("/",), answer)])


def test_allowed_is_told_for_any_path() -> None:
    assert ROUTES.allowed("/save") == ["GET", "HEAD", "OPTIONS", "POST"]
    assert ROUTES.allowed("/nothing") == ["OPTIONS"]
