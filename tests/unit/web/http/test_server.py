"""What goes over real sockets: HTTP as clients really speak it, and as they should not."""

import errno
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus

import pytest

from softcam.errors import CameraBusy, NoPicture, NotSupported
from softcam.web.http.auth import Access
from softcam.web.http.messages import Answer, HttpError, Request, Response, StreamingResponse, json_response
from softcam.web.http.router import Route, Routes
from softcam.web.http.server import PortalServer
from tests.support.fakes import PATIENCE_S, eventually
from tests.support.raw_http import Client, Site

NoLeaks = Callable[[], AbstractContextManager[None]]


class Handlers:
    """Routes of a test: what was asked, and streams whose sockets were handed over."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.taken: list[socket.socket] = []
        self.given_up = 0
        self.gate = threading.Event()
        self.inside = threading.Semaphore(0)

    def routes(self) -> list[Route]:
        return [
            Route(("/hello", "/bonjour"), self.hello),
            Route(("/large",), lambda _: Response(b"x" * 3_000_000, "text/plain")),
            Route(("/empty",), lambda _: Response(b"", "text/plain")),
            Route(("/unchanged",), lambda _: Response(b"", "text/html", HTTPStatus.NOT_MODIFIED, {"ETag": '"1"'})),
            Route(("/stream",), self.stream),
            Route(("/wait",), self.wait),
            Route(("/public",), self.hello, is_public=True),
            Route(("/post",), self.hello, method="POST"),
            *(Route((f"/raise/{name}",), self.fail(error)) for name, error in ERRORS.items()),
        ]

    def hello(self, request: Request) -> Answer:
        self.asked.append(request)
        return json_response({"path": request.path, "query": request.query, "client": request.client})

    def stream(self, request: Request) -> Answer:
        self.asked.append(request)
        return StreamingResponse(
            self.taken.append, self.give_up, "multipart/x-mixed-replace;boundary=frame", {"X-Test": "1"}
        )

    def wait(self, request: Request) -> Answer:
        self.inside.release()
        assert self.gate.wait(PATIENCE_S)
        return self.hello(request)

    def give_up(self) -> None:
        self.given_up += 1

    @staticmethod
    def fail(error: Exception) -> Callable[[Request], Answer]:
        def handle(_request: Request) -> Answer:
            raise type(error)(*error.args) if not isinstance(error, HttpError) else error

        return handle


ERRORS = {
    "bug": ZeroDivisionError("a secret of ours"),
    "value": ValueError("not for the world"),
    "busy": CameraBusy("another program has the camera"),
    "none": NoPicture("no picture from the camera in time"),
    "unable": NotSupported("this camera has no autofocus"),
    "http": HttpError(HTTPStatus.CONFLICT, "hdr: wants a closed camera", {"Retry-After": "7"}),
}


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def site(handlers: Handlers, no_leaks: NoLeaks) -> Iterator[Site]:
    with no_leaks():
        with Site(handlers.routes()) as site:
            yield site
            handlers.gate.set()
        for taken in handlers.taken:
            taken.close()
        handlers.taken.clear()


def request_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


# Usual requests


def test_ok_a_whole_answer(site: Site) -> None:
    reply = site.ask("/hello?a=1")
    assert (reply.status, reply.reason) == (200, "OK")
    assert reply.json == {"path": "/hello", "query": {"a": "1"}, "client": "127.0.0.1"}
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert reply.headers["Server"].startswith("SoftStream/")
    assert "Python" not in reply.headers["Server"]
    assert reply.headers["Date"].endswith(" GMT")
    assert "Connection" not in reply.headers


def test_ok_one_connection_for_many_requests(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        for number in range(20):
            assert client.ask(f"/hello?n={number}").json["query"] == {"n": str(number)}
        assert request_threads() == 1
    assert len(handlers.asked) == 20


def test_ok_requests_one_behind_the_other(site: Site) -> None:
    """Pipelining: answers come in the order of the requests."""
    with site.client() as client:
        client.send(b"".join(b"GET /hello?n=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(10)))
        assert [client.reply().json["query"]["n"] for _ in range(10)] == [str(number) for number in range(10)]


def test_ok_a_request_in_crumbs(site: Site) -> None:
    with site.client() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
        assert client.reply().status == 200


def test_ok_close_when_asked_to(site: Site) -> None:
    with site.client() as client:
        reply = client.ask("/hello", headers={"Connection": "close"})
        assert reply.headers["Connection"] == "close"
        assert client.is_closed()


def test_ok_http_1_0(site: Site) -> None:
    with site.client() as client:
        client.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert client.reply().headers["Connection"] == "close"
        assert client.is_closed()


def test_ok_http_1_0_that_stays(site: Site) -> None:
    """ab and old proxies: without the header they would wait for the end of the connection."""
    with site.client() as client:
        for _ in range(2):
            client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.reply().headers["Connection"] == "keep-alive"


@pytest.mark.parametrize("path", ["/hello", "/bonjour", "/large", "/empty", "/raise/none", "/nothing"])
def test_ok_head_is_get_without_the_body(site: Site, path: str) -> None:
    with site.client() as client:
        full, head = client.ask(path), client.ask(path, method="HEAD")
        assert head.status == full.status
        assert head.headers.keys() | {"Content-Length"} == full.headers.keys()
        # An empty body may mean that none was made: then the length is not known, and 0 would be wrong.
        assert head.headers.get("Content-Length") == (full.headers["Content-Length"] if full.body else None)
        assert client.ask("/hello").status == 200  # nothing came behind it


def test_ok_304_has_neither_body_nor_length(site: Site) -> None:
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
def test_ok_options(site: Site, target: str, allowed: str) -> None:
    with site.client() as client:
        reply = client.ask(target, method="OPTIONS")
        assert reply.status == 204
        assert reply.headers["Allow"] == allowed
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert "Content-Length" not in reply.headers
        assert client.ask("/hello").status == 200


JSON = b"Content-Type: application/json\r\n"


def test_ok_a_body_is_read_over(site: Site) -> None:
    with site.client() as client:
        for body in (b"", b"{}", b"x" * 65536):
            client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: %d \r\n%s\r\n%s" % (len(body), JSON, body))
            assert client.reply().status == 200
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /")
        assert client.reply().status == 200
        assert client.ask("/hello").status == 200


def test_ok_who_waits_for_100_is_told_to_go_on(site: Site) -> None:
    with site.client() as client:
        client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n" + JSON + b"\r\n")
        assert client.reply_head()[0] == 100
        client.send(b"{}")
        assert client.reply().status == 200


def test_ok_the_absolute_form(site: Site) -> None:
    assert site.ask("http://camera.local/hello?x=1").json["path"] == "/hello"


# Requests that cannot be answered


def test_fail_not_found(site: Site) -> None:
    with site.client() as client:
        reply = client.ask("/nothing")
        assert (reply.status, reply.detail) == (404, "nothing is at /nothing")
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
def test_fail_not_allowed(site: Site, method: str, target: str, allowed: str) -> None:
    reply = site.ask(target, method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    assert target in reply.detail


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1 more\r\n\r\n", 400),
        (b"GET / HTTP/one\r\n\r\n", 400),
        (b"GET / HTTP/1.1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),  # TLS
        (b"G\xc3T /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"B" * 33 + b" /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
def test_fail_bad_requests(site: Site, handlers: Handlers, request_: bytes, status: int) -> None:
    with site.client() as client:
        client.send(request_)
        reply = client.reply()
        assert reply.status == status
        assert 0 < len(reply.detail) <= 200
        assert reply.headers["Connection"] == "close"
        assert client.is_closed()
    assert handlers.asked == []


# Where two readers of one request might see two different ends of it, the connection ends (RFC 9112, 11.2).
SMUGGLED = b"GET /hello?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "status", "detail"),
    [
        (b"Transfer-Encoding: chunked\r\n", 411, "Transfer-Encoding"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 411, "Transfer-Encoding"),
        (b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", 411, "Transfer-Encoding"),
        (b"Transfer-Encoding:\r\n chunked\r\n", 411, "Transfer-Encoding"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "once"),
        (b"Content-Length: 5\r\ncontent-length: 5\r\n", 400, "once"),
        (b"Content-Length: 5, 5\r\n", 400, "number of bytes"),
        (b"Content-Length: -1\r\n", 400, "number of bytes"),
        (b"Content-Length: +5\r\n", 400, "number of bytes"),
        (b"Content-Length: 0x5\r\n", 400, "number of bytes"),
        (b"Content-Length: 5 5\r\n", 400, "number of bytes"),
        (b"Content-Length: 5\r\n 5\r\n", 400, "number of bytes"),
        (b"Content-Length: 1_0\r\n", 400, "number of bytes"),
        (b"Content-Length: \xb2\r\n", 400, "number of bytes"),
        (b"Content-Length: five\r\n", 400, "number of bytes"),
        (b"Content-Length:\r\n", 400, "number of bytes"),
        (b"Content-Length: 65537\r\n", 413, "at most 65536"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", 413, "at most 65536"),
        (b"Content-Length : 5\r\n", 400, "NAME: VALUE"),
        (b"X\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
        (b" X: 1\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
        (b": x\r\nContent-Length: 5\r\n", 400, "NAME: VALUE"),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
def test_fail_requests_without_one_clear_end(
    site: Site, handlers: Handlers, header: bytes, status: int, detail: str
) -> None:
    with site.client() as client:
        client.send(b"GET /hello HTTP/1.1\r\n" + header + b"Host: x\r\n\r\n" + SMUGGLED)
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (status, "close")
        assert detail in reply.detail
        assert client.is_closed()
    assert handlers.asked == []


def test_fail_a_large_body_hears_why(site: Site) -> None:
    """Closed at once, the connection would be reset under the client's hands, and the answer lost for many."""
    with site.client() as client:
        client.send(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        assert client.reply().status == 413
        for _ in range(10):
            client.send(b"x" * 50_000)
        assert client.socket.recv(1) == b""  # an end, no reset


# Errors of handlers


@pytest.mark.parametrize("name", ["bug", "value"])
def test_fail_a_bug_is_500_and_in_the_log(site: Site, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with site.client() as client:
        reply = client.ask(f"/raise/{name}?key=secret")
        assert (reply.status, reply.detail) == (500, "the portal failed; its log says how")
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
def test_fail_errors_of_the_camera_have_an_answer(
    site: Site, caplog: pytest.LogCaptureFixture, name: str, status: int, retry_after: str | None
) -> None:
    reply = site.ask(f"/raise/{name}")
    assert (reply.status, reply.detail) == (status, str(ERRORS[name]))
    assert reply.headers.get("Retry-After") == retry_after
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Clients that say nothing, or leave


STALLED = b"POST /post HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 9\r\n\r\nx"


@pytest.mark.parametrize("said", [b"", b"GET /hel", b"GET /hello HTTP/1.1\r\nHost: x\r\n"])
def test_who_says_nothing_more_is_let_go(handlers: Handlers, no_leaks: NoLeaks, said: bytes) -> None:
    with no_leaks(), Site(handlers.routes(), request_limit_s=0.05) as site, site.client() as client:
        client.send(said)
        assert client.is_closed()
        eventually(lambda: request_threads() == 0, "that its thread ends")
        assert handlers.asked == []


def test_a_body_that_does_not_come_is_told(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), request_limit_s=0.05) as site, site.client() as client:
        client.send(STALLED)
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (408, "close")
        assert "body" in reply.detail
        assert client.is_closed()
        assert handlers.asked == []


@pytest.mark.parametrize(
    ("start", "header", "status"),
    [
        (b"POST /post", b"", 401),
        (b"POST /none", b"", 401),
        (b"POST /post", b"X-API-Key: secret\r\nOrigin: http://elsewhere\r\n" + JSON, 403),
        (b"POST /none", b"X-API-Key: secret\r\n" + JSON, 404),
        (b"POST /hello", b"X-API-Key: secret\r\n" + JSON, 405),
        (b"POST /post", b"X-API-Key: secret\r\nContent-Type: text/plain\r\n", 415),
    ],
)
def test_who_is_refused_by_the_header_is_not_waited_for(
    handlers: Handlers, start: bytes, header: bytes, status: int
) -> None:
    with Site(handlers.routes(), api_key="secret", request_limit_s=600.0) as site, site.client() as client:
        client.send(start + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n" + header + b"\r\nx")
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (status, "close")
        assert client.is_closed()
    assert handlers.asked == []


def test_a_body_that_ends_early_is_told(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        client.send(STALLED)
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.reply()
        assert reply.status == 400
        assert "Content-Length" in reply.detail
        assert client.is_closed()
    assert handlers.asked == []


def test_who_is_let_go_was_answered_before(handlers: Handlers) -> None:
    with Site(handlers.routes(), idle_limit_s=0.05) as site, site.client() as client:
        assert client.ask("/hello").status == 200
        assert client.is_closed()


@pytest.mark.parametrize("said", [b"", b"GET /hel", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 5, STALLED])
def test_who_leaves_in_the_middle_leaves_nothing(site: Site, caplog: pytest.LogCaptureFixture, said: bytes) -> None:
    for _ in range(20):
        with site.client() as client:
            client.send(said)
    eventually(lambda: request_threads() == 0, "that the threads end")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert site.ask("/hello").status == 200


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /hel",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n" + JSON + b"\r\n",
    ],
)
def test_a_byte_now_and_then_does_not_keep_a_connection(handlers: Handlers, no_leaks: NoLeaks, begin: bytes) -> None:
    """The limit is one for the whole request, from its first byte to its last."""
    with no_leaks(), Site(handlers.routes(), request_limit_s=0.3) as site, site.client() as client:
        client.send(begin)
        client.socket.settimeout(0.05)
        ends_s = time.monotonic() + PATIENCE_S / 2  # each wait of the server's begins anew with a byte, the limit not
        said = b""
        with suppress(ConnectionError):
            while time.monotonic() < ends_s:
                with suppress(TimeoutError):
                    if not (received := client.socket.recv(4096)):
                        break
                    said += received
                client.send(b"x")
        # With a whole header there is somebody to answer to.
        assert said.startswith(b"HTTP/1.1 408 ") if begin.startswith(b"POST") else said == b""
        assert time.monotonic() < ends_s
        eventually(lambda: request_threads() == 0, "that its thread ends")
        assert handlers.asked == []


def test_a_connection_may_be_idle_longer_than_a_request_may_take(handlers: Handlers) -> None:
    with Site(handlers.routes(), request_limit_s=0.5) as site, site.client() as client, site.client() as other:
        assert client.ask("/hello").status == 200
        assert other.is_closed()  # by now the limit of a request is over
        assert client.ask("/hello").status == 200


def test_an_answer_may_take_longer_than_a_request(handlers: Handlers) -> None:
    with Site(handlers.routes(), request_limit_s=0.5) as site, site.client() as client, site.client() as other:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        assert other.is_closed()
        handlers.gate.set()
        assert client.reply().status == 200


HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
CAP, RESERVE = 65, 8  # requests at once for one viewer, and the threads beyond them


@pytest.mark.parametrize("said", [b"", b"GET /hel", HELLO], ids=["unasked", "half", "idle"])
def test_who_waits_longest_makes_room(handlers: Handlers, no_leaks: NoLeaks, said: bytes) -> None:
    with no_leaks(), Site(handlers.routes(), max_clients=1) as site:
        clients = [site.client() for _ in range(CAP + RESERVE)]
        for client in clients:
            client.send(said)
            if said.endswith(b"\r\n"):
                client.reply()
        eventually(lambda: request_threads() == CAP + RESERVE)
        for _ in range(20):
            assert site.ask("/hello").status == 200
        assert clients[0].is_closed()
        clients[-1].send(HELLO.removeprefix(said) if said == b"GET /hel" else HELLO)
        assert clients[-1].reply().status == 200


def test_five_hundred_half_open_requests_keep_nobody_out(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), max_clients=1) as site:
        for _ in range(500):
            site.client().send(b"GET /hello HTTP/1.1\r\nHost: x\r\nX: ")
        assert site.ask("/public").status == 200
        assert site.ask("/hello").status == 200
        assert request_threads() <= CAP + RESERVE


def test_beyond_the_cap_only_the_public_is_answered(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), max_clients=1) as site:
        busy = [site.client() for _ in range(CAP)]
        for client in busy:
            client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in busy:
            assert handlers.inside.acquire(timeout=PATIENCE_S)
        for _ in range(2 * RESERVE):
            reply = site.ask("/hello")
            assert (reply.status, reply.detail) == (503, "too many requests at once")
            assert reply.headers["Retry-After"] == "2"
            assert reply.headers["Connection"] == "close"
            assert site.ask("/public").status == 200
        handlers.gate.set()
        assert {client.reply().status for client in busy} == {200}  # who is being answered is left alone
        assert site.ask("/hello").status == 200


def test_when_every_thread_is_busy_one_is_sent_away(handlers: Handlers, no_leaks: NoLeaks) -> None:
    def wait(request: Request) -> Answer:
        return handlers.wait(request)

    routes = [*handlers.routes(), Route(("/hang",), wait, is_public=True)]
    with no_leaks(), Site(routes, max_clients=1) as site:
        for _ in range(CAP + RESERVE):
            site.client().send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
            assert handlers.inside.acquire(timeout=PATIENCE_S)
        reply = site.client().reply()  # unasked
        assert (reply.status, reply.detail) == (503, "too many connections at once")
        assert reply.headers["Retry-After"] == "2"
        assert reply.headers["Connection"] == "close"
        handlers.gate.set()
        eventually(lambda: site.server.connections.answering == 0)
        assert site.ask("/hello").status == 200


def test_the_end_of_all_answers_can_be_waited_for(site: Site, handlers: Handlers) -> None:
    assert site.server.wait_answered(time.monotonic())
    with site.client() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        assert not site.server.wait_answered(time.monotonic() + 0.01)
        handlers.gate.set()
        assert site.server.wait_answered(time.monotonic() + PATIENCE_S)
        assert client.reply().status == 200


def test_no_more_threads_is_no_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for _ in range(80):  # more than the cap: every refusal gives its place back
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with site.client() as client:
                assert client.is_closed()
    assert "can't start new thread" in caplog.text
    assert site.ask("/hello").status == 200


def test_no_more_descriptors_is_no_busy_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []
    accept = socket.socket.accept

    def refuse(listening: socket.socket) -> tuple[socket.socket, object]:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr("softcam.web.http.server._EXHAUSTED_PAUSE_S", 0.05)
    monkeypatch.setattr(socket.socket, "accept", refuse)
    assert site.ask("/hello").status == 200
    assert tries[2] - tries[0] >= 0.1
    assert caplog.text.count("No connection can be taken: Too many open files") == 2


# Streams


def test_a_stream_outlives_its_request_and_needs_no_thread(site: Site, handlers: Handlers) -> None:
    clients = [site.client() for _ in range(20)]
    for client in clients:
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, headers = client.reply_head()
        assert status == 200
        assert headers["Content-Type"] == "multipart/x-mixed-replace;boundary=frame"
        assert headers["Connection"] == "close"
        assert headers["X-Test"] == "1"
        assert "Content-Length" not in headers
    eventually(lambda: len(handlers.taken) == 20 and request_threads() == 0)
    gc.collect()  # nothing of the request may close the socket behind our back
    for taken in handlers.taken:
        taken.sendall(b"still here")
    for client in clients:
        assert client.read(10) == b"still here"
    for taken in handlers.taken:
        taken.close()
    assert all(client.is_closed() for client in clients)
    assert handlers.given_up == 0


def test_a_stream_over_http_1_0(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        assert client.reply_head()[2]["Connection"] == "close"
        eventually(lambda: handlers.taken)
        handlers.taken[0].sendall(b"x")
        assert client.read(1) == b"x"


def test_who_left_before_the_header_was_sent_is_given_up(
    site: Site, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with site.client() as client, monkeypatch.context() as patch:
        patch.setattr("socketserver._SocketWriter.write", fail)
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.is_closed()
        eventually(lambda: handlers.given_up == 1)
    assert handlers.taken == []


# The server's own life


def test_stop_returns_at_once_and_nobody_polls(handlers: Handlers, no_leaks: NoLeaks) -> None:
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


def test_stop_before_serving_and_twice(no_leaks: NoLeaks) -> None:
    with no_leaks():
        server = PortalServer("127.0.0.1", 0, Routes([]), Access(None), 1)
        server.stop()
        server.serve()  # comes back
        server.stop()
        server.server_close()


def test_waiting_for_connections_has_no_timeout(site: Site) -> None:
    assert site.server.timeout is None
    assert site.server.socket.gettimeout() is None


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_ok_addresses(handlers: Handlers, host: str, reached: str) -> None:
    with Site(handlers.routes(), host=host) as site:
        port = site.server.server_port
        assert port > 0
        assert site.server.url == f"http://{reached}:{port}/"
        with Client((reached.strip("[]"), port)) as client:
            assert client.ask("/hello").json["client"] == reached.strip("[]")


def test_fail_an_address_in_use(site: Site, no_leaks: NoLeaks) -> None:
    with no_leaks(), pytest.raises(OSError, match="in use") as caught:
        PortalServer("127.0.0.1", site.server.server_port, Routes([]), Access(None), 1)
    assert caught.value.errno == errno.EADDRINUSE


def test_fail_an_address_that_is_not_ours(no_leaks: NoLeaks) -> None:
    with no_leaks(), pytest.raises(OSError, match="assign"):
        PortalServer("192.0.2.1", 0, Routes([]), Access(None), 1)


def test_many_rounds_leak_nothing(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks():
        for _ in range(50):
            with Site(handlers.routes()) as site:
                assert site.ask("/hello").status == 200
