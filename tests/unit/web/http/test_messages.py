"""Parsing of request targets, and JSON responses."""

import json
from email.message import Message
from http import HTTPStatus

import pytest

from softcam.web.http.messages import HttpError, Request, find_client, json_response, parse_target
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
        # Some clients append a query to the configured address.
        ("/?action=stream?nonce=1", "/", {"action": "stream", "nonce": "1"}),
        ("/?action=snapshot&cacheBust=1?timestamp=2", "/", {"action": "snapshot", "cacheBust": "1", "timestamp": "2"}),
        # Absolute form, as sent to proxies.
        ("http://camera:8080/stream?fps=5", "/stream", {"fps": "5"}),
        ("http://camera", "/", {}),
        # Under the prefix of images for printers.
        ("/webcam/?action=stream", "/", {"action": "stream"}),
        ("/webcam?action=stream", "/", {"action": "stream"}),
        ("/webcam/stream.mjpg?fps=5", "/stream.mjpg", {"fps": "5"}),
        ("/webcam/", "/", {}),
        ("/webcam", "/webcam", {}),  # the page's links are relative
        ("/webcam2/?action=stream", "/webcam2/", {"action": "stream"}),
        ("/webcams", "/webcams", {}),
        ("http://camera?action=stream", "/", {"action": "stream"}),
        # A path that contains an URL stays unchanged.
        ("/elsewhere/http://camera/stream", "/elsewhere/http://camera/stream", {}),
        ("*", "*", {}),
        ("", "", {}),
    ],
)
def test_target_is_split_into_path_and_query(target: str, path: str, query: dict[str, str]) -> None:
    assert parse_target(target) == (path, query)


def test_json_response() -> None:
    response = json_response({"name": "Küche", "none": None})
    assert response.body == '{"name":"Küche","none":null}\n'.encode()
    assert response.status is HTTPStatus.OK
    assert response.content_type == "application/json"
    assert response.headers == {
        "Cache-Control": "no-store",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def test_json_response_headers() -> None:
    response = json_response({}, HTTPStatus.CONFLICT, {"Retry-After": "5", "Cache-Control": "private"})
    assert response.status is HTTPStatus.CONFLICT
    assert response.headers["Retry-After"] == "5"
    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_number_that_json_does_not_have_is_an_error(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_response({"lux": number})


def test_http_error() -> None:
    error = HttpError(HTTPStatus.BAD_REQUEST, "quality 0: must be larger")
    assert (str(error), error.status, error.headers) == ("quality 0: must be larger", HTTPStatus.BAD_REQUEST, {})


@pytest.mark.parametrize(("method", "expects_body"), [("GET", True), ("POST", True), ("HEAD", False)])
def test_head_expects_no_body(method: str, expects_body: bool) -> None:
    request: Request = make_request("/", method=method)
    assert request.expects_body is expects_body
    assert json.loads(json_response({"method": request.method}).body) == {"method": method}


@pytest.mark.parametrize(
    ("headers", "is_local", "scheme", "host"),
    [
        ({"Host": "pi.local:8081"}, True, "http", "pi.local:8081"),
        ({"Host": "127.0.0.1:18081", "X-Forwarded-Host": "pi.local"}, True, "http", "pi.local"),
        ({"Host": "pi.local", "X-Forwarded-Proto": "https"}, True, "https", "pi.local"),
        ({"Host": "pi.local", "X-Forwarded-Proto": "HTTPS, http", "X-Forwarded-Host": "a, b"}, True, "https", "a"),
        ({"Host": "pi.local", "X-Forwarded-Proto": "javascript"}, True, "http", "pi.local"),
        ({"Host": "pi.local", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "a"}, False, "http", "pi.local"),
        ({}, True, "http", ""),
    ],
)
def test_address_as_the_client_used_it(headers: dict[str, str], is_local: bool, scheme: str, host: str) -> None:
    request = make_request("/", headers=headers, is_local=is_local)
    assert (request.scheme, request.host) == (scheme, host)


@pytest.mark.parametrize(
    ("peer", "reported", "client", "is_local"),
    [
        ("127.0.0.1", "192.0.2.7", "192.0.2.7", True),
        ("::1", "2001:db8::7", "2001:db8::7", True),
        ("::ffff:127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7", True),
        ("127.0.0.1", "", "127.0.0.1", True),
        ("127.0.0.1", "nobody", "127.0.0.1 (proxy)", True),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1 (proxy)", True),  # without the limits' exemption
        ("127.0.0.1", "::1", "::1 (proxy)", True),
        ("::ffff:192.0.2.1", "192.0.2.7", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.7", "192.0.2.1", False),
    ],
)
def test_find_client(peer: str, reported: str, client: str, is_local: bool) -> None:
    headers = make_request("/", headers={"X-Real-IP": reported}).headers
    assert find_client(peer, headers) == (client, is_local)


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("127.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", ["198.51.100.9, 192.0.2.7"], "192.0.2.7"),  # the first one was sent by the client
        ("::1", ["198.51.100.9", "192.0.2.6, 2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["192.0.2.7, unknown"], "127.0.0.1 (proxy)"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("192.0.2.1", ["192.0.2.7"], "192.0.2.1"),
    ],
)
def test_find_client_by_forwarded_addresses(peer: str, fields: list[str], client: str) -> None:
    headers = Message()
    for value in fields:
        headers["X-Forwarded-For"] = value
    assert find_client(peer, headers)[0] == client
    headers["X-Real-IP"] = "203.0.113.5"  # of the client, passed on by the proxy
    assert find_client(peer, headers)[0] == ("203.0.113.5" if fields == [""] else client)
