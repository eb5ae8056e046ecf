"""The router finds each route under all its paths."""

from collections.abc import Mapping
from http import HTTPStatus

import pytest

from softcam.web.http.messages import HttpError, Request, Response
from softcam.web.http.router import Doc, Route, Router


def respond(_request: Request) -> Response:
    return Response()


PAGE = Route(("/", "/index.html"), respond)
STREAM = Route(("/stream.mjpg", "/stream", "/?action=stream"), respond)
SNAPSHOT = Route(("/snapshot.jpg", "/?action=snapshot"), respond)
SAVE = Route(("/save",), respond, method="POST")
LOAD = Route(("/save",), respond)
DOCS = Route(("/docs",), respond, doc=Doc("A page", "pages", {}))
ITEM = Route(("/items/{name}",), respond)
ROUTER = Router([PAGE, STREAM, SNAPSHOT, SAVE, LOAD, DOCS, ITEM])


@pytest.mark.parametrize(
    ("method", "path", "query", "route"),
    [
        ("GET", "/", {}, PAGE),
        ("HEAD", "/", {}, PAGE),
        ("GET", "/", {"timestamp": "1"}, PAGE),
        ("GET", "/index.html", {}, PAGE),
        ("GET", "/stream", {}, STREAM),
        ("GET", "/stream", {"action": "snapshot"}, STREAM),  # an action has a meaning at the root only
        ("GET", "/", {"action": "stream"}, STREAM),
        ("HEAD", "/", {"action": "snapshot"}, SNAPSHOT),
        ("POST", "/save", {}, SAVE),
        ("GET", "/save", {}, LOAD),
        # As users of mjpg-streamer type them.
        ("GET", "/stream/", {}, STREAM),
        ("HEAD", "/snapshot.jpg/", {}, SNAPSHOT),
        ("POST", "/save/", {}, SAVE),
        ("GET", "/items/one/", {}, ITEM),
        ("GET", "/", {"action": "stream_0"}, STREAM),
        ("GET", "/", {"action": "snapshot/"}, SNAPSHOT),
        ("GET", "/", {"action": "snapshot_0/"}, SNAPSHOT),
    ],
)
def test_route_is_found(method: str, path: str, query: Mapping[str, str], route: Route) -> None:
    assert ROUTER.find(method, path, query) is route


@pytest.mark.parametrize("path", ["/nothing", "/stream//", "/Stream", "//stream", "", "*", "/index", "/docs/"])
def test_unknown_path_is_not_found(path: str) -> None:
    with pytest.raises(HttpError) as caught:
        ROUTER.find("GET", path, {})
    assert caught.value.status is HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "query", "allowed"),
    [
        ("POST", "/stream", {}, "GET, HEAD, OPTIONS"),
        ("DELETE", "/save", {}, "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/", {"action": "stream"}, "GET, HEAD, OPTIONS"),
    ],
)
def test_other_method_is_not_allowed(method: str, path: str, query: Mapping[str, str], allowed: str) -> None:
    with pytest.raises(HttpError, match=f"^method: must be one of {allowed} for {path}") as caught:
        ROUTER.find(method, path, query)
    assert caught.value.status is HTTPStatus.METHOD_NOT_ALLOWED
    assert caught.value.headers == {"Allow": allowed}


@pytest.mark.parametrize("action", ["", "/", "_0", "command", "stream_1", "stream//", "x" * 5000])
def test_unknown_action_is_rejected(action: str) -> None:
    with pytest.raises(HttpError, match=r"^action: must be one of snapshot, stream$") as caught:
        ROUTER.find("GET", "/", {"action": action})
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert len(str(caught.value)) < 200


def test_long_path_is_truncated_in_error() -> None:
    with pytest.raises(HttpError) as caught:
        ROUTER.find("GET", "/" + "x" * 60000, {})
    assert len(str(caught.value)) < 200


def test_duplicate_route_is_rejected() -> None:
    with pytest.raises(ValueError, match="two routes for HEAD /stream"):
        Router([STREAM, Route(("/stream",), respond, method="HEAD")])
    with pytest.raises(ValueError, match="two routes for GET /"):
        Router([PAGE, Route(("/",), respond)])


def test_allowed_methods() -> None:
    assert ROUTER.allowed("/save") == "GET, HEAD, OPTIONS, POST"
    assert ROUTER.allowed("/nothing") == "OPTIONS"
