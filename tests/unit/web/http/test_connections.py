"""Timeouts of clients, eviction of waiting connections, and the limit on threads and requests."""

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import pytest

from softcam.net.event_loop import EventLoop
from softcam.runtime.deadline import Deadline
from softcam.web.http.delayed import DelayedResponses
from softcam.web.http.messages import AnyResponse, Request
from softcam.web.http.router import Route
from tests.support.background import eventually, soon
from tests.support.raw_http import Client, Handlers, Site, request_threads
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]

JSON = b"Content-Type: application/json\r\n"


STALLED = b"POST /post HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 9\r\n\r\nx"


@pytest.mark.parametrize("said", [b"GET /hel", b"GET /hello HTTP/1.1\r\nHost: x\r\n", STALLED])
def test_request_timeout(handlers: Handlers, no_leaks: NoLeaks, said: bytes) -> None:
    with no_leaks(), Site(handlers.routes(), request_timeout_s=0.05) as site, site.client() as client:
        client.send(said)
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (408, "close")
        assert "timed out" in reply.detail
        assert client.is_closed()
        assert handlers.requests == []


def test_connection_without_a_request_is_closed(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), request_timeout_s=0.05) as site, site.client() as client:
        assert client.is_closed()
        eventually(lambda: request_threads() == 0, "its thread ends")
        assert handlers.requests == []


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
def test_rejected_before_body(handlers: Handlers, start: bytes, header: bytes, status: int) -> None:
    with Site(handlers.routes(), api_key="secret", request_timeout_s=600.0) as site, site.client() as client:
        client.send(start + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n" + header + b"\r\nx")
        reply = client.reply()
        assert (reply.status, reply.headers["Connection"]) == (status, "close")
        assert client.is_closed()
    assert handlers.requests == []


def test_truncated_body(site: Site, handlers: Handlers) -> None:
    with site.client() as client:
        client.send(STALLED)
        client.socket.shutdown(socket.SHUT_WR)
        reply = client.reply()
        assert reply.status == 400
        assert "Content-Length" in reply.detail
        assert client.is_closed()
    assert handlers.requests == []


def test_idle_timeout(handlers: Handlers) -> None:
    with Site(handlers.routes(), idle_timeout_s=0.05) as site, site.client() as client:
        assert client.ask("/hello").status == 200
        assert client.is_closed()


@pytest.mark.parametrize("said", [b"", b"GET /hel", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 5, STALLED])
def test_disconnect_mid_request(site: Site, caplog: pytest.LogCaptureFixture, said: bytes) -> None:
    for _ in range(20):
        with site.client() as client:
            client.send(said)
    eventually(lambda: request_threads() == 0, "the threads end")
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
def test_request_timeout_is_not_extended(handlers: Handlers, no_leaks: NoLeaks, begin: bytes) -> None:
    """The limit is one for the whole request, from its first byte to its last."""
    with no_leaks(), Site(handlers.routes(), request_timeout_s=0.3) as site, site.client() as client:
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
        assert said.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() < ends_s
        eventually(lambda: request_threads() == 0, "its thread ends")
        assert handlers.requests == []


def test_idle_longer_than_request_timeout(handlers: Handlers) -> None:
    with Site(handlers.routes(), request_timeout_s=0.5) as site, site.client() as client, site.client() as other:
        assert client.ask("/hello").status == 200
        assert other.is_closed()  # by now the request timeout has passed
        assert client.ask("/hello").status == 200


def test_response_longer_than_request_timeout(handlers: Handlers) -> None:
    with Site(handlers.routes(), request_timeout_s=0.5) as site, site.client() as client, site.client() as other:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        assert other.is_closed()
        handlers.gate.set()
        assert client.reply().status == 200


HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
CAP, RESERVE = 65, 8  # requests at once for one viewer, and the threads beyond them


@pytest.mark.parametrize("said", [b"", b"GET /hel", HELLO], ids=["unasked", "half", "idle"])
def test_evict_longest_waiting(handlers: Handlers, no_leaks: NoLeaks, said: bytes) -> None:
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


def test_500_incomplete_requests(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), max_clients=1) as site:
        for _ in range(500):
            site.client().send(b"GET /hello HTTP/1.1\r\nHost: x\r\nX: ")
        assert site.ask("/public").status == 200
        assert site.ask("/hello").status == 200
        assert request_threads() <= CAP + RESERVE


def test_only_public_routes_beyond_limit(handlers: Handlers, no_leaks: NoLeaks) -> None:
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
        assert {client.reply().status for client in busy} == {200}  # requests being answered are not evicted
        assert site.ask("/hello").status == 200


def test_reject_when_all_threads_are_busy(handlers: Handlers, no_leaks: NoLeaks) -> None:
    def wait(request: Request) -> AnyResponse:
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


def connect_from(site: Site, address: str) -> Client:
    """A connection of a client at that address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname())
        site.server.process_request(listener.accept()[0], (address, 50_000))
    return client


def test_share_of_an_address(handlers: Handlers, no_leaks: NoLeaks, caplog: pytest.LogCaptureFixture) -> None:
    """Clients of one address hold their share, and nothing of that of others."""
    with no_leaks(), Site(handlers.routes(), max_clients=1, max_per_address=3) as site:
        busy = [connect_from(site, "192.0.2.1") for _ in range(3)]
        for client in busy:
            client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert handlers.inside.acquire(timeout=PATIENCE_S)
        for _ in range(2):
            with connect_from(site, "192.0.2.1") as rejected:
                reply = rejected.reply()  # unasked
                assert (reply.status, reply.headers["Retry-After"], reply.headers["Connection"]) == (503, "2", "close")
                rule = "must be at most 3; disconnect one, or raise --max-clients-per-address"
                assert reply.detail == f"connections of this address: {rule}"
        assert caplog.messages == ["Client 192.0.2.1 rejected: it has 3 connections"]  # at a limited rate
        with connect_from(site, "192.0.2.2") as other:
            assert other.ask("/hello").status == 200
        assert site.ask("/hello").status == 200
        handlers.gate.set()
        for client in busy:
            with client:
                assert client.reply().status == 200
                assert client.is_closed()
        eventually(lambda: request_threads() == 0)
        with connect_from(site, "192.0.2.1") as another:
            assert another.ask("/hello").status == 200


def test_rejected_client_can_read_the_response(handlers: Handlers, no_leaks: NoLeaks) -> None:
    """Although its request was not read: the connection is closed a moment later."""
    crashes = list[str]()
    with no_leaks():
        loop = EventLoop("test loop", crashes.append)
        delayed = DelayedResponses(loop)
        loop.start()
        site = Site(handlers.routes(), max_per_address=1, delayed=delayed)
        with site, connect_from(site, "192.0.2.1") as busy:
            busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            assert handlers.inside.acquire(timeout=PATIENCE_S)
            with connect_from(site, "192.0.2.1") as rejected:
                assert rejected.ask("/hello").status == 503
                assert rejected.is_closed()
            handlers.gate.set()
            assert busy.reply().status == 200
        loop.stop(soon())
    assert crashes == []


def test_address_evicts_its_own_connection(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), max_clients=1, max_per_address=2) as site, ExitStack() as stack:
        waiting = site.server.connections._waiting
        addresses = "192.0.2.2", "192.0.2.1", "192.0.2.1"
        other, oldest, newer = (stack.enter_context(connect_from(site, address)) for address in addresses)
        for client in (other, oldest, newer):
            assert client.ask("/hello").status == 200
            eventually(lambda: len(waiting) == 3)
        newest = stack.enter_context(connect_from(site, "192.0.2.1"))
        assert oldest.is_closed()
        for client in (other, newer, newest):
            assert client.ask("/hello").status == 200


def test_share_behind_a_proxy(handlers: Handlers, no_leaks: NoLeaks) -> None:
    with no_leaks(), Site(handlers.routes(), max_per_address=2) as site:
        busy = [site.client() for _ in range(2)]
        for client in busy:
            client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.1\r\n\r\n")
            assert handlers.inside.acquire(timeout=PATIENCE_S)
        with site.client() as proxy:
            reply = proxy.ask("/hello", headers={"X-Real-IP": "192.0.2.1"})
            assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
            assert reply.detail.startswith("requests of this address: must be at most 2")
            both = {"X-Real-IP": "127.0.0.1", "X-Forwarded-For": "198.51.100.9, 192.0.2.1"}
            assert proxy.ask("/hello", headers=both).status == 503
            assert proxy.ask("/public", headers={"X-Real-IP": "192.0.2.1"}).status == 200
            assert proxy.ask("/hello", headers={"X-Real-IP": "192.0.2.2"}).status == 200
            assert proxy.ask("/hello").status == 200
        handlers.gate.set()
        for client in busy:
            assert client.reply().status == 200
            assert client.ask("/hello", headers={"X-Real-IP": "192.0.2.1"}).status == 200


def test_reported_loopback_address_has_a_limit(handlers: Handlers, no_leaks: NoLeaks) -> None:
    """Otherwise a client could evade its limit by a header that a proxy passes on."""
    header = {"X-Real-IP": "127.0.0.1"}
    with no_leaks(), Site(handlers.routes(), max_per_address=1) as site, site.client() as busy:
        busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\nX-Real-IP: 127.0.0.1\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        assert site.ask("/hello", headers=header).status == 503
        assert site.ask("/hello").status == 200
        handlers.gate.set()
        assert busy.reply().status == 200


def test_wait_answered(site: Site, handlers: Handlers) -> None:
    assert site.server.connections.wait_answered(Deadline.after(0.0))
    with site.client() as client:
        client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert handlers.inside.acquire(timeout=PATIENCE_S)
        assert not site.server.connections.wait_answered(Deadline.after(0.01))
        handlers.gate.set()
        assert site.server.connections.wait_answered(soon())
        assert client.reply().status == 200


def test_thread_start_fails(site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for _ in range(80):  # more than the cap: every refusal gives its place back
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with site.client() as client:
                assert client.is_closed()
    assert "can't start new thread" in caplog.text
    assert site.ask("/hello").status == 200


def test_no_file_descriptors_left(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []
    accept = socket.socket.accept

    def refuse(listening: socket.socket) -> tuple[socket.socket, object]:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", refuse)
    with Site(handlers.routes(), exhausted_pause_s=0.05) as site:
        assert site.ask("/hello").status == 200
    assert tries[2] - tries[0] >= 0.1
    assert caplog.text.count("Cannot accept connections: Too many open files") == 2
