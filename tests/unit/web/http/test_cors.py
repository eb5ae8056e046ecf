"""Pages of listed origins may read and change everything; those of other origins may read what is open to all."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from softcam.web.http.messages import ALLOW_ANY_ORIGIN, Response
from softcam.web.http.router import Route
from tests.support.raw_http import ERRORS, Handlers, Site

DASHBOARD, OTHER = "http://localhost:3000", "http://localhost:3001"
KEY = "your-secret-key"
# What browsers send with a request of a script at another port.
FETCH = {"Connection": "keep-alive", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}
WANTED = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type,x-api-key"}


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    def private(_request: object) -> Response:
        return Response(b"of this machine", "text/plain", headers={"Vary": "Accept-Encoding"})

    def picture(_request: object) -> Response:
        headers = {**ALLOW_ANY_ORIGIN, "Access-Control-Expose-Headers": "X-Zero"}
        return Response(b"FFD8", "image/jpeg", headers=headers)

    handlers = Handlers()
    return [
        *handlers.routes(),
        Route(("/private",), private),
        Route(("/picture",), picture),
        Route(("/own",), picture, is_same_origin=True),
        Route(("/own/change",), handlers.hello, "POST", is_same_origin=True),
        *(Route((f"/own/{name}",), handlers.fail(error), is_same_origin=True) for name, error in ERRORS.items()),
    ]


@pytest.fixture(scope="module")
def site(routes: list[Route]) -> Iterator[Site]:
    with Site(routes, allowed_origins=[DASHBOARD, "https://dash.example"]) as site:
        yield site


@pytest.fixture(scope="module")
def locked(routes: list[Route]) -> Iterator[Site]:
    with Site(routes, api_key=KEY, allowed_origins=[DASHBOARD]) as site:
        yield site


def page(origin: str, **more: str) -> dict[str, str]:
    return {"Origin": origin, **FETCH} | {name.replace("_", "-"): value for name, value in more.items()}


def check_readable(headers: object, origin: str = DASHBOARD) -> None:
    assert isinstance(headers, dict)
    assert headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in headers["Vary"].split(", ")
    assert "Retry-After" in headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize("target", ["/post", "/hello", "/stream", "/nothing", "/presets/x"])
def test_preflight(site: Site, locked: Site, target: str) -> None:
    for each in (site, locked):
        reply = each.ask(target, method="OPTIONS", headers={**page(DASHBOARD), **WANTED})
        assert reply.status == HTTPStatus.NO_CONTENT
        check_readable(reply.headers)
        assert reply.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, PUT, DELETE"
        names = reply.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"content-type", "x-api-key", "authorization", "last-event-id"} <= set(names)
        assert reply.headers["Access-Control-Max-Age"] == "600"


@pytest.mark.parametrize("origin", [OTHER, "http://localhost", "https://localhost:3000", "null", "", f"{DASHBOARD}/"])
def test_preflight_of_another_origin(site: Site, origin: str) -> None:
    reply = site.ask("/post", method="OPTIONS", headers={**page(origin), **WANTED})
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert reply.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert "Access-Control-Allow-Credentials" not in reply.headers
    assert "Access-Control-Max-Age" not in reply.headers
    assert reply.headers["Vary"] == "Origin"


@pytest.mark.parametrize("site_header", ["same-site", "cross-site"])
def test_change(site: Site, site_header: str) -> None:
    reply = site.ask("/post", method="POST", headers=page(DASHBOARD, Sec_Fetch_Site=site_header))
    assert reply.status == HTTPStatus.OK
    check_readable(reply.headers)


def test_change_by_a_page_with_a_public_name(routes: list[Route]) -> None:
    """A listed origin is trusted by its name, whatever it resolves to; without TLS, browsers send no Sec-Fetch-Site."""
    with Site(routes, allowed_origins=["http://dash.example"]) as site:
        headers = {"Origin": "http://dash.example", "Connection": "keep-alive"}
        assert site.ask("/post", method="POST", headers=headers).status == HTTPStatus.OK
        for origin in ("http://evil.example", "http://x.dash.example", "http://dash.example:80"):
            assert site.ask("/post", method="POST", headers=page(origin)).status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("origin", [OTHER, "null", "http://localhost", "https://localhost:3000"])
def test_change_by_another_origin(site: Site, locked: Site, origin: str) -> None:
    for each in (site, locked):
        reply = each.ask("/post", method="POST", headers=page(origin, X_API_Key=KEY))
        assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (HTTPStatus.FORBIDDEN, "*")
        assert reply.detail.endswith("; CAMERA_ALLOWED_ORIGINS lists other origins that may change things")
        assert "Access-Control-Allow-Credentials" not in reply.headers


def test_rebound_name_is_rejected(site: Site) -> None:
    headers = {"Host": "evil.example", "Origin": "http://evil.example", "Connection": "keep-alive"}
    with site.client() as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.send(f"POST /post HTTP/1.1\r\n{lines}\r\n".encode())
        assert "DNS rebinding" in client.reply("POST").detail


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/hello", 200),
        ("HEAD", "/hello", 200),
        ("GET", "/unchanged", 304),
        ("GET", "/nothing", 404),
        ("PUT", "/hello", 405),
        ("GET", "/raise/http", 409),
        ("GET", "/raise/none", 503),
        ("GET", "/raise/bug", 500),
        ("get it", "/hello", 400),
    ],
)
def test_every_response_is_readable(site: Site, method: str, target: str, status: int) -> None:
    reply = site.ask(target, method=method, headers=page(DASHBOARD))
    assert reply.status == status
    if status != 400:  # the request line was invalid: nothing after it was read
        check_readable(reply.headers)


def test_rejected_bodies_are_readable(site: Site) -> None:
    for headers, status in (
        ({"Content-Length": "3", "Content-Type": "text/plain"}, 415),
        ({"Content-Length": "99999999"}, 413),
        ({"Transfer-Encoding": "chunked"}, 411),
    ):
        reply = site.ask("/post", method="POST", headers={**page(DASHBOARD), **headers})
        assert reply.status == status
        check_readable(reply.headers)


def test_key_is_still_required(locked: Site) -> None:
    for key, status in (({}, 401), ({"X_API_Key": "wrong"}, 401), ({"X_API_Key": KEY}, 200)):
        for method, target in (("POST", "/post"), ("GET", "/private")):
            reply = locked.ask(target, method=method, headers=page(DASHBOARD, **key))
            assert reply.status == status
            check_readable(reply.headers)


def test_stream_and_its_header(site: Site) -> None:
    with site.client() as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in page(DASHBOARD).items())
        client.send(f"GET /stream HTTP/1.1\r\nHost: camera\r\n{lines}\r\n".encode())
        status, _, headers = client.reply_head()
        assert (status, headers["X-Test"]) == (200, "1")
        check_readable(headers)


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/own", "GET", 200),
        ("/own", "HEAD", 200),
        ("/own/change", "POST", 200),
        ("/own/http", "GET", 409),
        ("/own/none", "GET", 503),
        ("/own/bug", "GET", 500),
    ],
)
def test_same_origin(target: str, method: str, status: int, site: Site, routes: list[Route]) -> None:
    """Pages of other origins can neither read nor embed the responses, also not errors; allowed ones can read them."""
    with Site(routes) as plain, plain.client() as client:
        reply = client.ask(target, method=method)
        assert reply.status == status
        assert not any(name.startswith("Access-Control-") for name in reply.headers)
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert client.ask("/picture").headers["Access-Control-Allow-Origin"] == "*"  # on the same connection
    check_readable(site.ask(target, method=method, headers=page(DASHBOARD)).headers)


def test_same_origin_without_key(locked: Site) -> None:
    for target in ("/own", "/own/http"):
        reply = locked.ask(target, headers=page(OTHER))
        assert reply.status == 401
        assert "Access-Control-Allow-Origin" not in reply.headers


def test_other_headers_are_kept(site: Site) -> None:
    assert site.ask("/private", headers=page(DASHBOARD)).headers["Vary"] == "Accept-Encoding, Origin"
    exposed = site.ask("/picture", headers=page(DASHBOARD)).headers["Access-Control-Expose-Headers"]
    assert exposed.startswith("X-Zero, ")


@pytest.mark.parametrize("headers", [{}, page(OTHER)])
def test_others_read_what_they_could_before(site: Site, headers: dict[str, str]) -> None:
    picture = site.ask("/picture", headers=headers)
    assert picture.headers["Access-Control-Allow-Origin"] == "*"
    assert picture.headers["Access-Control-Expose-Headers"] == "X-Zero"
    private = site.ask("/private", headers=headers)
    assert "Access-Control-Allow-Origin" not in private.headers
    for reply in (picture, private):
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert "Origin" in reply.headers["Vary"]


def test_an_origin_counts_for_its_request_only(site: Site) -> None:
    with site.client() as client:
        check_readable(client.ask("/private", headers=page(DASHBOARD)).headers)
        assert "Access-Control-Allow-Origin" not in client.ask("/private").headers
        check_readable(client.ask("/private", headers=page("https://dash.example")).headers, "https://dash.example")
        client.send(b" \r\n")
        headers = client.reply().headers
        assert (headers["Access-Control-Allow-Origin"], headers["Vary"]) == ("*", "Origin")


def test_without_the_setting(routes: list[Route]) -> None:
    with Site(routes) as site:
        for target in ("/hello", "/picture"):
            headers = site.ask(target, headers=page(DASHBOARD)).headers
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert "Vary" not in headers
            assert "Access-Control-Allow-Credentials" not in headers
        assert site.ask("/post", method="POST", headers=page(DASHBOARD)).status == HTTPStatus.FORBIDDEN
