"""The API key is accepted in its three forms and is never revealed."""

import base64
import hmac
import logging
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from urllib.parse import quote, quote_plus

import pytest

from softcam.net.key_brake import Verdict, key_digest
from softcam.web.http.auth import AccessControl, TooManyWrongKeys, WrongKey
from softcam.web.http.messages import HttpError, Request, Response, json_response
from softcam.web.http.router import Route
from tests.support.key_checks import delaying
from tests.support.raw_http import Site

KEY = "correct horse:battery"
VIEW_KEY = "staple & more"


def make_headers(headers: Mapping[str, str]) -> Message:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return message


def basic(credentials: str | bytes) -> dict[str, str]:
    raw = credentials if isinstance(credentials, bytes) else credentials.encode()
    return {"Authorization": "Basic " + base64.b64encode(raw).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY} "},
        basic(f"anyone:{KEY}"),
        basic(f":{KEY}"),
        {"Authorization": basic(f"pi:{KEY}")["Authorization"].replace("Basic", "BASIC")},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer wrong"},
    ],
)
def test_key_grants_access(headers: Mapping[str, str]) -> None:
    AccessControl(KEY).authorize(make_headers(headers), "client")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": "schl\xfcssel"},
        {"X-API-Key": f"Bearer {KEY}"},
        {"Authorization": ""},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": f"Digest {KEY}"},
        {"Authorization": f"Bearer\t{KEY}"},
        {"Authorization": "Basic"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Basic !!!!"},
        {"Authorization": "Basic YQ"},  # truncated
        {"Authorization": "Basic schl\xfcssel"},
        basic(KEY.replace(":", "")),  # no colon: no password
        basic(f"{KEY}:"),
        basic(f"pi:{KEY} "),
        basic(b"pi:\xff\xfe"),
        {"Cookie": f"X-API-Key={KEY}"},
    ],
)
def test_wrong_key_is_rejected(headers: Mapping[str, str]) -> None:
    with pytest.raises(HttpError) as caught:
        AccessControl(KEY).authorize(make_headers(headers), "client")
    assert caught.value.status is HTTPStatus.UNAUTHORIZED
    assert caught.value.headers == {"WWW-Authenticate": 'Basic realm="camera", charset="UTF-8"'}
    assert KEY not in str(caught.value)


def test_wrong_key_is_counted_and_named() -> None:
    counted = list[str]()

    def note(client: str) -> float:
        counted.append(client)
        return 0.5

    access = AccessControl(KEY, check_key=delaying(note))
    for headers in ({}, {"X-API-Key": ""}, {"Authorization": "Token x"}):
        with pytest.raises(HttpError, match="an API key is required"):
            access.authorize(make_headers(headers), "192.168.1.7")
    assert counted == []
    with pytest.raises(WrongKey, match="the API key is wrong") as caught:
        access.authorize(make_headers({"X-API-Key": "guess"}), "192.168.1.7")
    assert (counted, caught.value.delay_s) == (["192.168.1.7"], 0.5)


def test_key_that_is_not_compared() -> None:
    access = AccessControl(KEY, VIEW_KEY, check_key=lambda _, compare: Verdict(compare([key_digest(VIEW_KEY)]), 0.0, 2))
    access.authorize(make_headers({"X-API-Key": VIEW_KEY}), "client")
    for headers in ({"X-API-Key": KEY}, {"X-API-Key": "wrong"}):
        with pytest.raises(TooManyWrongKeys) as caught:
            access.authorize(make_headers(headers), "client")
        assert (caught.value.status, caught.value.headers) == (HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "2"})


def test_view_key_in_query() -> None:
    access = AccessControl(KEY, VIEW_KEY)
    access.authorize(make_headers({}), "client", query_key=VIEW_KEY)
    access.authorize(make_headers({"X-API-Key": "wrong"}), "client", query_key=VIEW_KEY)
    access.authorize(make_headers({"X-API-Key": KEY}), "client", query_key="wrong")
    with pytest.raises(HttpError, match="read-only"):
        access.authorize(make_headers({}), "client", is_change=True, query_key=VIEW_KEY)


@pytest.mark.parametrize("view_key", [VIEW_KEY, None])
@pytest.mark.parametrize("offered", [KEY, "guess"])
def test_wrong_key_in_query_is_rejected(view_key: str | None, offered: str) -> None:
    with pytest.raises(
        WrongKey, match=r"^key: must be the value of CAMERA_VIEW_KEY; that of CAMERA_API_KEY is not"
    ) as caught:
        AccessControl(KEY, view_key).authorize(make_headers({}), "192.168.1.7", query_key=offered)
    assert caught.value.status is HTTPStatus.UNAUTHORIZED


def test_empty_key_in_query_is_rejected() -> None:
    with pytest.raises(HttpError, match="an API key is required"):
        AccessControl(KEY, VIEW_KEY).authorize(make_headers({}), "client", query_key="")


@pytest.mark.parametrize(
    ("api_key", "detail"),
    [
        (KEY, "this key is read-only: changes require the key of CAMERA_API_KEY"),
        (None, "this key is read-only: changes require CAMERA_API_KEY, which is not set"),
    ],
)
def test_view_key_changes_nothing(api_key: str | None, detail: str) -> None:
    access = AccessControl(api_key, VIEW_KEY)
    access.authorize(make_headers({"X-API-Key": VIEW_KEY}), "client")
    with pytest.raises(HttpError, match=f"^{detail}$") as caught:
        access.authorize(make_headers({"X-API-Key": VIEW_KEY}), "client", is_change=True)
    assert caught.value.status is HTTPStatus.FORBIDDEN


def test_no_key_configured() -> None:
    AccessControl(None).authorize(make_headers({}), "client")
    AccessControl(None).authorize(make_headers({"X-API-Key": "whatever"}), "client")


def test_constant_time_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    access = AccessControl(KEY)
    with pytest.raises(HttpError):
        access.authorize(make_headers({"X-API-Key": "x", "Authorization": "Bearer " + "x" * 1000}), "client")
    access.authorize(make_headers({"X-API-Key": KEY, "Authorization": "Bearer wrong"}), "client")
    # Digests of equal length, and every pair, whichever matches.
    assert compared == [(32, 32)] * 4
    compared.clear()
    with pytest.raises(HttpError):
        AccessControl(KEY, VIEW_KEY).authorize(make_headers({}), "client", query_key="x")
    assert compared == [(32, 32)]


def test_key_not_in_repr() -> None:
    access = AccessControl(KEY)
    assert KEY not in repr(access)
    assert KEY not in repr(vars(access))


# Over the wire


def respond(request: Request) -> Response:
    return json_response({"path": request.path})


ROUTES = (
    Route(("/secret", "/?action=secret"), respond),
    Route(("/picture", "/?action=picture"), respond, accepts_query_key=True),
    Route(("/health",), respond, is_public=True),
)
RIGHT = {"X-API-Key": KEY}


@pytest.mark.parametrize(
    ("method", "target", "without", "with_key"),
    [
        ("GET", "/secret", 401, 200),
        ("HEAD", "/secret", 401, 200),
        ("GET", "/?action=secret", 401, 200),
        ("GET", "/health", 200, 200),
        ("HEAD", "/health", 200, 200),
        # Without the key a client does not learn which paths exist.
        ("GET", "/nothing", 401, 404),
        ("POST", "/secret", 401, 405),
        ("GET", "/?action=nothing", 401, 400),
        ("POST", "/health", 401, 405),
    ],
)
def test_key_required_except_for_health(method: str, target: str, without: int, with_key: int) -> None:
    with Site(ROUTES, api_key=KEY) as site:
        rejected = site.ask(target, method=method)
        assert rejected.status == without
        if without == 401:
            assert rejected.headers["WWW-Authenticate"].startswith("Basic ")
        assert site.ask(target, method=method, headers={"X-API-Key": "wrong"}).status == without
        assert site.ask(target, method=method, headers=RIGHT).status == with_key


def test_preflight_without_key() -> None:
    with Site(ROUTES, api_key=KEY) as site:
        reply = site.ask("/secret", method="OPTIONS", headers={"Origin": "http://mainsail.local"})
        assert reply.status == 204
        assert reply.headers["Access-Control-Allow-Headers"] == "Authorization, X-API-Key, Cache-Control, Pragma"
        assert reply.headers["Access-Control-Allow-Methods"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"/picture?key={quote(VIEW_KEY)}", 200),
        (f"/picture/?quality=5&key={quote_plus(VIEW_KEY)}", 200),
        (f"/?action=picture&key={quote(VIEW_KEY)}", 200),
        (f"/?action=picture?key={quote(VIEW_KEY)}", 200),
        (f"/webcam/?action=picture&key={quote(VIEW_KEY)}", 200),
        (f"/picture?key={quote(KEY)}", 401),
        (f"/picture?Key={quote(VIEW_KEY)}", 401),
        (f"/picture?key=wrong&key={quote(VIEW_KEY)}", 401),
        (f"/secret?key={quote(VIEW_KEY)}", 401),
        (f"/nothing?key={quote(VIEW_KEY)}", 401),
    ],
)
def test_query_key_over_the_wire(target: str, status: int) -> None:
    with Site(ROUTES, api_key=KEY, view_key=VIEW_KEY) as site:
        assert site.ask(target).status == status
        assert site.ask(target, method="HEAD").status == status


def test_key_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Site(ROUTES, api_key=KEY, view_key=VIEW_KEY) as site:
        for headers in (RIGHT, {"Authorization": f"Bearer {KEY}"}, basic(f"pi:{KEY}"), {"X-API-Key": KEY + "!"}):
            site.ask("/secret", headers=headers)
        for target in ("/secret?key=", "/picture?key=", "/?action=picture&key=", "/nothing?key="):
            for key in (KEY, VIEW_KEY, KEY + "!"):
                site.ask(target + quote(key))
        with site.client() as client:
            client.send(f"GET /picture?key={quote(VIEW_KEY)} HTTP/9.9\r\n\r\n".encode())
            assert client.reply().status == 505
    assert caplog.records
    assert "battery" not in caplog.text
    assert "staple" not in caplog.text
    assert base64.b64encode(f"pi:{KEY}".encode()).decode() not in caplog.text


def test_html_error_for_browsers() -> None:
    with Site(ROUTES, api_key=KEY) as site:
        reply = site.ask("/secret", headers={"Accept": "text/html,application/xhtml+xml"})
        assert (reply.status, reply.headers["Content-Type"]) == (401, "text/html; charset=utf-8")
        assert b"Authentication required" in reply.body
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert reply.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


def test_private_address_requires_the_full_key() -> None:
    routes = [Route(("/private",), lambda _: json_response({}), is_private=True)]
    with Site(routes, api_key=KEY, view_key=VIEW_KEY) as site:
        assert site.ask("/private", headers={"X-API-Key": KEY}).status == HTTPStatus.OK
        answer = site.ask("/private", headers={"X-API-Key": VIEW_KEY})
        assert (answer.status, answer.detail) == (
            HTTPStatus.FORBIDDEN,
            "this key is read-only: this address requires the key of CAMERA_API_KEY",
        )
        assert site.ask("/private").status == HTTPStatus.UNAUTHORIZED
    with Site(routes) as site:
        assert site.ask("/private").status == HTTPStatus.OK
