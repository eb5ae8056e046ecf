"""Responses to wrong keys are delayed without a thread, and delay nobody else."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from softcam.net.event_loop import EventLoop
from softcam.net.key_brake import KeyBrake
from softcam.web.http.delayed import DelayedResponses
from tests.support.background import eventually, soon
from tests.support.key_checks import delaying
from tests.support.raw_http import Handlers, Site, request_threads
from tests.support.rtsp_viewers import ManualClock

NoLeaks = Callable[[], AbstractContextManager[None]]
WRONG, RIGHT = {"X-API-Key": "wrong"}, {"X-API-Key": "right"}
DELAY_S = 0.2


@pytest.fixture
def loop(no_leaks: NoLeaks) -> Iterator[EventLoop]:
    crashes: list[str] = []
    with no_leaks():
        loop = EventLoop("test loop", crashes.append)
        yield loop
        loop.stop(soon())
    assert crashes == []


def make_site(loop: EventLoop, handlers: Handlers, delay_s: float = DELAY_S, max_delayed: int = 8) -> Site:
    """A running site with a key, that delays every response to a wrong one."""
    delayed = DelayedResponses(loop, max_delayed)
    loop.start()
    return Site(handlers.routes(), api_key="right", check_key=delaying(lambda _: delay_s), delayed=delayed)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_wrong_key_is_delayed(method: str, loop: EventLoop, handlers: Handlers) -> None:
    with make_site(loop, handlers) as site, site.client() as client:
        began_s = time.monotonic()
        body = {"Content-Length": "2", "Content-Type": "application/json"} if method == "POST" else {}
        reply = client.ask("/post" if method == "POST" else "/hello", method=method, headers={**WRONG, **body})
        assert time.monotonic() - began_s >= DELAY_S
        assert (reply.status, reply.headers["Connection"]) == (401, "close")
        assert "WWW-Authenticate" in reply.headers
        assert client.is_closed()
        assert site.ask("/hello").status == 401  # without a key: at once
    assert handlers.requests == []


def test_no_thread_waits(loop: EventLoop, handlers: Handlers) -> None:
    with make_site(loop, handlers, delay_s=3600) as site:
        clients = [site.client() for _ in range(8)]
        for client in clients:
            client.send(b"GET /hello HTTP/1.1\r\nHost: camera\r\nX-API-Key: wrong\r\n\r\n")
        eventually(lambda: request_threads() == 0)
        assert site.ask("/hello", headers=RIGHT).status == 200
        eventually(lambda: request_threads() == 0)
        assert not site.server.connections.close_oldest()
        with site.client() as client:
            assert client.ask("/hello", headers=WRONG).status == 401  # too many are waiting: at once, and closed
            assert client.is_closed()
        loop.stop(soon())
        assert all(client.is_closed() for client in clients)


def test_guesses_of_one_address(no_leaks: NoLeaks, handlers: Handlers) -> None:
    """By many connections at once: few are compared, and a client of the address with a known key continues."""
    clock = ManualClock()
    with no_leaks():
        loop = EventLoop("test loop", list[str]().append, clock=clock)
        delayed = DelayedResponses(loop)
        loop.start()
        with Site(
            handlers.routes(), api_key="right", view_key="view", check_key=KeyBrake(loop).check, delayed=delayed
        ) as site:
            assert site.ask("/hello", headers={"X-API-Key": "view"}).status == 200
            waiting = [site.client() for _ in range(4)]
            for _ in range(3):
                assert site.ask("/hello", headers=WRONG).status == 401
            for client in waiting:
                client.send(b"GET /hello HTTP/1.1\r\nHost: camera\r\nX-API-Key: wrong\r\n\r\n")
            eventually(lambda: len(delayed._connections) == 4)
            for key in [WRONG] * 50 + [RIGHT]:
                with site.client() as client:
                    reply = client.ask("/hello", headers=key)
                    assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
                    assert client.is_closed()
                assert site.ask("/hello", headers={"X-API-Key": "view"}).status == 200
            clock.now_s += 2
            assert site.ask("/hello", headers=RIGHT).status == 200
            for client in waiting:
                client.socket.close()
        loop.stop(soon())


def test_rejections_have_separate_places(loop: EventLoop) -> None:
    delayed = DelayedResponses(loop, 1)
    loop.start()
    for _ in range(64):
        here, there = socket.socketpair()
        assert delayed.reject(here, b"rejected")
        there.close()
    here, there = socket.socketpair()
    with here, there:
        assert not delayed.reject(here, b"rejected")
    assert delayed.reserve()
    assert not delayed.reserve()


def test_place_is_released(loop: EventLoop, handlers: Handlers) -> None:
    delayed = DelayedResponses(loop, 1)
    loop.start()
    with Site(handlers.routes(), api_key="right", check_key=delaying(lambda _: 0.001), delayed=delayed) as site:
        assert site.ask("/hello", headers=WRONG).status == 401
        assert not delayed.reserve()
        eventually(delayed.reserve)


def test_after_the_end_of_the_loop(loop: EventLoop, handlers: Handlers) -> None:
    with make_site(loop, handlers, max_delayed=1) as site:
        loop.stop(soon())
        for _ in range(2):
            with site.client() as client:
                client.send(b"GET /hello HTTP/1.1\r\nHost: camera\r\nX-API-Key: wrong\r\n\r\n")
                assert client.is_closed()
