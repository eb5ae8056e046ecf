"""The server over real sockets: requests, errors, streams, start and stop."""

import errno
import gc
import logging
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import pytest

from softcam.web.http.auth import AccessControl
from softcam.web.http.messages import AnyResponse, Request
from softcam.web.http.router import Route, Router
from softcam.web.http.server import PortalServer
from tests.support.background import eventually
from tests.support.raw_http import ERRORS, Client, Handlers, Site, request_threads
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]

JSON = b"Content-Type: application/json\r\n"


# Usual requests


def test_response_and_its_headers(site: Site) -> None:
    reply = site.ask("/hello?a=1")
    assert (reply.status, reply.reason) == (200, "OK")
    assert reply.json == {"path": "/hello", "query": {"a": "1"}, "client": "127.0.0.1"}
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert reply.headers["Server"].startswith("SoftStream/")
    assert "Python" not in reply.headers["Server"]
    assert reply.headers["Date"].endswith(" GMT")
    assert "Connection" not in reply.headers


def test_persistent_connection(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        for number in range(20):
            assert client.ask(f"/hello?n={number}").json["query"] == {"n": str(number)}
        assert request_threads() == 1
    assert len(handlers.requests) == 20


def test_pipelining(site: Site) -> None:
    """Pipelining: answers come in the order of the requests."""
    with site.client() as client:
        client.send(b"".join(b"GET /hello?n=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(10)))
        assert [client.reply().json["query"]["n"] for _ in range(10)] == [str(number) for number in range(10)]


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n", b"\n\r\n\n", b"\r\n" * 8])
def test_empty_line_before_request_is_ignored(site: Site, empty: bytes) -> None:
    """Some clients send one after the body of a request."""
    with site.client() as client:
        for _ in range(2):
            client.send(empty + b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.reply().status == 200


def test_long_line_after_empty_line_is_rejected(site: Site) -> None:
    with site.client() as client:
        client.send(b"\r\nGET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n")
        assert client.reply().status == 414


def test_empty_line_after_body_is_ignored(site: Site) -> None:
    """In the same packet as the body, and later: the connection waits for the next request as if it was not there."""
    with site.client() as client:
        for empty in (b"\r\n", b"\n\n"):
            body = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            client.send(body + empty)
            assert client.reply().status == 200
            client.send(empty)
            assert client.ask("/hello").status == 200


def test_idle_connection_after_empty_line_is_closed_silently(handlers: Handlers) -> None:
    """No request has begun, so there is nothing that a 408 would be the response to."""
    with Site(handlers.routes(), idle_timeout_s=0.05, request_timeout_s=0.05) as site, site.client() as client:
        client.send(b"\r\n")
        assert client.is_closed()


@pytest.mark.parametrize("lines", [b"\r\n" * 9, b" \r\n", b"\r\n\t\r\n"])
def test_request_without_request_line_is_rejected(site: Site, lines: bytes) -> None:
    with site.client() as client:
        client.send(lines)
        reply = client.reply()
        assert (reply.status, reply.detail) == (400, "request line: must be METHOD PATH HTTP/1.1")
        assert client.is_closed()


def test_disconnect_after_empty_line(site: Site) -> None:
    with site.client() as client:
        client.send(b"\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_closed()


def test_request_that_arrives_byte_by_byte(site: Site) -> None:
    with site.client() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
        assert client.reply().status == 200


def test_connection_close(site: Site) -> None:
    with site.client() as client:
        reply = client.ask("/hello", headers={"Connection": "close"})
        assert reply.headers["Connection"] == "close"
        assert client.is_closed()


def test_http_1_0_closes_the_connection(site: Site) -> None:
    with site.client() as client:
        client.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert client.reply().headers["Connection"] == "close"
        assert client.is_closed()


def test_http_1_0_keep_alive(site: Site) -> None:
    """ab and old proxies: without the header they would wait for the end of the connection."""
    with site.client() as client:
        for _ in range(2):
            client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.reply().headers["Connection"] == "keep-alive"


@pytest.mark.parametrize("path", ["/hello", "/bonjour", "/large", "/empty", "/raise/none", "/nothing"])
def test_head_has_no_body(site: Site, path: str) -> None:
    with site.client() as client:
        full, head = client.ask(path), client.ask(path, method="HEAD")
        assert head.status == full.status
        assert head.headers.keys() | {"Content-Length"} == full.headers.keys()
        # An empty body may mean that none was made: then the length is not known, and 0 would be wrong.
        assert head.headers.get("Content-Length") == (full.headers["Content-Length"] if full.body else None)
        assert client.ask("/hello").status == 200  # nothing came behind it


def test_not_modified_has_no_body(site: Site) -> None:
    with site.client() as client:
        reply = client.ask("/unchanged")
        assert reply.status == 304
        assert "Content-Length" not in reply.headers
        assert reply.headers["ETag"] == '"1"'
        assert client.ask("/hello").status == 200


@pytest.mark.parametrize(
    ("target", "allowed"),
    [("/hello", "GET, HEAD, OPTIONS"), ("/post", "OPTIONS, POST"), ("/nothing", "OPTIONS"), ("*", "OPTIONS")],
)
def test_options_lists_the_methods(site: Site, target: str, allowed: str) -> None:
    with site.client() as client:
        reply = client.ask(target, method="OPTIONS")
        assert reply.status == 204
        assert reply.headers["Allow"] == allowed
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert "Content-Length" not in reply.headers
        assert client.ask("/hello").status == 200


def test_unused_body_is_read(site: Site) -> None:
    with site.client() as client:
        for body in (b"", b"{}", b"x" * 65536):
            client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: %d \r\n%s\r\n%s" % (len(body), JSON, body))
            assert client.reply().status == 200
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /")
        assert client.reply().status == 200
        assert client.ask("/hello").status == 200


def test_expect_100_continue(site: Site) -> None:
    with site.client() as client:
        client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n" + JSON + b"\r\n")
        assert client.reply_head()[0] == 100
        client.send(b"{}")
        assert client.reply().status == 200


@pytest.mark.parametrize(
    ("target", "header", "status"),
    [
        ("/post", b"Content-Length: 65537\r\n" + JSON, 413),
        ("/post", b"Content-Length: 2\r\nContent-Type: text/plain\r\n", 415),
        ("/post", b"Content-Length: 2\r\nOrigin: http://evil.example\r\n" + JSON, 403),
        ("/nothing", b"Content-Length: 2\r\n" + JSON, 404),
    ],
)
def test_body_of_a_rejected_request_is_not_requested(site: Site, target: str, header: bytes, status: int) -> None:
    with site.client() as client:
        client.send(b"POST %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n%s\r\n" % (target.encode(), header))
        assert client.reply().status == status  # the first response, not 100
        assert client.is_closed()


def test_body_of_a_request_without_key_is_not_requested(handlers: Handlers) -> None:
    with Site(handlers.routes(), api_key="secret") as site, site.client() as client:
        client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + JSON + b"\r\n")
        assert client.reply().status == 401


@pytest.mark.parametrize("header", ["X-API-Key: secret \t", "X-API-Key:\tsecret", "Authorization: Bearer secret  "])
def test_blanks_around_a_key(handlers: Handlers, header: str) -> None:
    with Site(handlers.routes(), api_key="secret") as site, site.client() as client:
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % header.encode())
        assert client.reply().status == 200


def test_target_in_absolute_form(site: Site) -> None:
    assert site.ask("http://camera.local/hello?x=1").json["path"] == "/hello"


def test_unknown_path_is_404(site: Site) -> None:
    with site.client() as client:
        reply = client.ask("/nothing")
        assert (reply.status, reply.detail) == (404, "no such path: /nothing")
        assert reply.headers["Cache-Control"] == "no-store"
        assert client.ask("/hello").status == 200


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", "/hello", "GET, HEAD, OPTIONS"),
        ("GET", "/post", "OPTIONS, POST"),
        ("PATCH", "/post", "OPTIONS, POST"),
        ("FOO", "/hello", "GET, HEAD, OPTIONS"),
        ("get", "/hello", "GET, HEAD, OPTIONS"),
        ("CONNECT", "/hello", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_method_is_405(site: Site, method: str, target: str, allowed: str) -> None:
    reply = site.ask(target, method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    assert target in reply.detail


# Errors of handlers


@pytest.mark.parametrize("name", ["bug", "value", "reset", "late"])
def test_unexpected_exception_is_500(site: Site, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with site.client() as client:
        reply = client.ask(f"/raise/{name}?key=secret")
        assert (reply.status, reply.detail) == (500, "internal server error")
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.exc_info is not None
        assert record.exc_info[1] is not None
        assert str(record.exc_info[1]) == str(ERRORS[name])
        assert f"/raise/{name}" in record.getMessage()
        assert "secret" not in record.getMessage()
        assert client.ask("/hello").status == 200


@pytest.mark.parametrize(
    ("name", "status", "retry_after"),
    [("busy", 503, "2"), ("none", 503, "2"), ("unable", 409, None), ("http", 409, "7")],
)
def test_portal_error_has_its_status(
    site: Site, caplog: pytest.LogCaptureFixture, name: str, status: int, retry_after: str | None
) -> None:
    reply = site.ask(f"/raise/{name}")
    assert (reply.status, reply.detail) == (status, str(ERRORS[name]))
    assert reply.headers.get("Retry-After") == retry_after
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Streams


def test_stream_is_detached(site: Site, handlers: Handlers) -> None:
    clients = [site.client() for _ in range(20)]
    for client in clients:
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, headers = client.reply_head()
        assert status == 200
        assert headers["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
        assert headers["Connection"] == "close"
        assert headers["X-Test"] == "1"
        assert "Content-Length" not in headers
    eventually(lambda: len(handlers.detached) == 20 and request_threads() == 0)
    gc.collect()  # nothing of the request may close the socket behind our back
    for taken in handlers.detached:
        taken.sendall(b"still here")
    for client in clients:
        assert client.read(10) == b"still here"
    for taken in handlers.detached:
        taken.close()
    assert all(client.is_closed() for client in clients)
    assert handlers.cancelled == 0


def test_stream_http_1_0(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        assert client.reply_head()[2]["Connection"] == "close"
        eventually(lambda: handlers.detached)
        handlers.detached[0].sendall(b"x")
        assert client.read(1) == b"x"


def test_stream_cancelled_on_disconnect(handlers: Handlers) -> None:
    def stream_late(request: Request) -> AnyResponse:
        handlers.inside.release()
        assert handlers.gate.wait(PATIENCE_S)
        return handlers.stream(request)

    with Site([Route(("/late",), stream_late)]) as site:
        with site.client() as client:
            client.send(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
            assert handlers.inside.acquire(timeout=PATIENCE_S)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets on close
        handlers.gate.set()
        eventually(lambda: handlers.cancelled == 1)
    assert handlers.detached == []


# The server's own life


def test_stop_with_open_connections(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks():
        site = Site(handlers.routes())
        idle = site.client()
        assert idle.ask("/hello").status == 200
        busy = site.client()
        busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        began_s = time.monotonic()
        site.stop()  # with both connections open
        assert time.monotonic() - began_s < PATIENCE_S / 2  # far below every limit that could be waited for
        with suppress(OSError), Client(site.server.server_address) as late:
            assert late.is_closed(), "it listens still"
        handlers.gate.set()
        assert busy.reply().status == 200  # who was asking is still answered
        for client in (idle, busy):
            client.socket.close()


def test_stop_before_serve_and_twice(no_leaks: NoLeaks) -> None:
    with no_leaks():
        server = PortalServer("127.0.0.1", 0, Router([]), AccessControl(None), 1, 1)
        server.stop()
        server.serve()  # comes back
        server.stop()
        server.server_close()


def test_accept_has_no_timeout(site: Site) -> None:
    assert site.server.timeout is None
    assert site.server.socket.gettimeout() is None


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_bind_address(handlers: Handlers, host: str, reached: str) -> None:
    with Site(handlers.routes(), host=host) as site:
        port = site.server.server_port
        assert port > 0
        assert site.server.url == f"http://{reached}:{port}/"
        with Client((reached.strip("[]"), port)) as client:
            assert client.ask("/hello").json["client"] == reached.strip("[]")


def test_address_in_use_is_an_error(site: Site, no_leaks: NoLeaks) -> None:
    with no_leaks(), pytest.raises(OSError, match="in use") as caught:
        PortalServer("127.0.0.1", site.server.server_port, Router([]), AccessControl(None), 1, 1)
    assert caught.value.errno == errno.EADDRINUSE


def test_unavailable_address_is_an_error(no_leaks: NoLeaks) -> None:
    with no_leaks(), pytest.raises(OSError, match="assign"):
        PortalServer("192.0.2.1", 0, Router([]), AccessControl(None), 1, 1)


def test_start_and_stop_leak_nothing(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks():
        for _ in range(50):
            with Site(handlers.routes()) as site:
                assert site.ask("/hello").status == 200
