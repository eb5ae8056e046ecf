"""The event loop: sockets, timers, calls of other threads, and its end."""

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from softcam.net.event_loop import DISCONNECTED, EventLoop
from tests.support.background import eventually, soon
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]


class Loop:
    """A running loop, and what its functions reported."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.crashes: list[str] = []
        self.reports: list[object] = []
        self.loop = EventLoop("test loop", self.crashes.append, clock=clock)
        self.loop.on_stop(lambda: self.reports.append("stopped"))

    def settle(self) -> None:
        is_done = threading.Event()
        assert self.loop.call(is_done.set)
        assert is_done.wait(PATIENCE_S)


@pytest.fixture
def fixture(no_leaks: NoLeaks) -> Iterator[Loop]:
    with no_leaks():
        loop = Loop()
        loop.loop.start()
        yield loop
        loop.loop.stop(soon())
    assert loop.crashes == []
    assert loop.reports[-1] == "stopped"


def test_calls_of_many_threads_in_order(fixture: Loop) -> None:
    threads = [
        threading.Thread(
            target=lambda name=name: [
                fixture.loop.call(lambda number=number: fixture.reports.append((name, number)))  # type: ignore[misc]
                for number in range(200)
            ]
        )
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    fixture.settle()
    assert len(fixture.reports) == 800
    for name in range(4):
        assert [report for report in fixture.reports if report[0] == name] == [(name, n) for n in range(200)]  # type: ignore[index]
    fixture.reports.clear()


def test_calls_before_the_start(no_leaks: NoLeaks) -> None:
    with no_leaks():
        loop = Loop()
        loop.loop.call(lambda: loop.reports.append("call"))
        loop.loop.start()
        loop.settle()
        loop.loop.stop(soon())
    assert loop.reports == ["call", "stopped"]


def test_stop_without_start(no_leaks: NoLeaks) -> None:
    with no_leaks():
        loop = Loop()
        loop.loop.call(lambda: loop.reports.append("call"))
        loop.loop.stop(soon())
        loop.loop.stop(soon())
    assert loop.reports == ["call", "stopped"]
    assert not loop.loop.call(lambda: None)


def test_socket_events(fixture: Loop) -> None:
    """Data, room after a short send, and the end, each reported once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        events: list[int] = []
        fixture.loop.call(lambda: fixture.loop.register(ours.fileno(), events.append))
        fixture.settle()
        eventually(lambda: events == [select.EPOLLOUT])
        theirs.sendall(b"a")
        eventually(lambda: len(events) == 2)
        assert events[1] & select.EPOLLIN
        fixture.settle()
        assert len(events) == 2, "edge-triggered: what was left in the socket is not reported again"
        fixture.loop.call(lambda: fixture.loop.report_again(ours.fileno()))
        eventually(lambda: len(events) == 3)
        assert events[2] & select.EPOLLIN
        assert ours.recv(10) == b"a"
        with contextlib.suppress(BlockingIOError):
            while ours.send(bytes(65536)):
                pass
        fixture.settle()
        count = len(events)
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while theirs.recv(65536):
                pass
        eventually(lambda: any(event & select.EPOLLOUT for event in events[count:]))
        theirs.shutdown(socket.SHUT_WR)
        eventually(lambda: events[-1] & DISCONNECTED)
        fixture.loop.call(lambda: fixture.loop.unregister(ours.fileno()))
        fixture.settle()
        count = len(events)
        theirs.close()
        fixture.settle()
        assert len(events) == count, "no handler after unregister"


def test_closed_in_the_turn_of_its_event(fixture: Loop) -> None:
    """Two sockets are ready in one turn; the first one's handler closes the second one, whose event is dropped."""
    pairs = [socket.socketpair() for _ in range(2)]
    calls: list[int] = []

    def handler(number: int) -> Callable[[int], None]:
        def handle(_: int) -> None:
            calls.append(number)
            other = pairs[1 - number][0]
            fixture.loop.unregister(other.fileno())
            other.close()

        return handle

    def register() -> None:
        for number, (ours, _) in enumerate(pairs):
            fixture.loop.register(ours.fileno(), handler(number))

    fixture.loop.call(register)
    eventually(lambda: calls)
    fixture.settle()
    assert len(calls) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_register_the_same_socket_twice(fixture: Loop) -> None:
    errors: list[OSError] = []
    ours, theirs = socket.socketpair()

    def register() -> None:
        fixture.loop.register(ours.fileno(), lambda _: None)
        try:
            fixture.loop.register(ours.fileno(), lambda _: None)
        except OSError as error:
            errors.append(error)

    with ours, theirs:
        fixture.loop.call(register)
        fixture.settle()
        assert isinstance(errors[0], FileExistsError)
        fixture.loop.call(lambda: fixture.loop.unregister(ours.fileno()))
        fixture.settle()


def test_timers_in_order(fixture: Loop) -> None:
    reports: list[str] = []

    def begin() -> None:
        loop = fixture.loop
        loop.call_later(0.02, lambda: reports.append("later"))
        loop.call_later(0.01, lambda: reports.append("first"))
        loop.call_later(0.01, lambda: reports.append("second"))
        cancelled = loop.call_later(0.005, lambda: reports.append("cancelled"))
        assert cancelled.is_pending
        cancelled.cancel()
        cancelled.cancel()
        assert not cancelled.is_pending

    fixture.loop.call(begin)
    eventually(lambda: reports == ["first", "second", "later"])


def test_timer_that_starts_a_timer(fixture: Loop) -> None:
    moments: list[float] = []

    def tick() -> None:
        moments.append(time.monotonic())
        if len(moments) < 4:
            timers.append(fixture.loop.call_later(0.01, tick))

    timers = []
    fixture.loop.call(lambda: timers.append(fixture.loop.call_later(0, tick)))
    eventually(lambda: len(moments) == 4)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert min(gaps) >= 0.0099
    assert not any(timer.is_pending for timer in timers)


def test_timer_by_the_given_clock(no_leaks: NoLeaks) -> None:
    now_s = 1000.0
    with no_leaks():
        loop = Loop(clock=lambda: now_s)
        loop.loop.start()
        fired = threading.Event()
        timers = []
        loop.loop.call(lambda: timers.append(loop.loop.call_later(5, fired.set)))
        loop.settle()
        assert not fired.is_set()
        now_s = 1005.0
        loop.settle()
        assert fired.wait(PATIENCE_S)
        loop.loop.stop(soon())


def test_busy_time(fixture: Loop) -> None:
    assert fixture.loop.busy_s < PATIENCE_S
    is_in, is_over = threading.Event(), threading.Event()

    def block() -> None:
        is_in.set()
        is_over.wait(PATIENCE_S)

    fixture.loop.call(block)
    assert is_in.wait(PATIENCE_S)
    time.sleep(0.02)
    assert fixture.loop.busy_s >= 0.02
    is_over.set()
    eventually(lambda: fixture.loop.busy_s == 0)


@pytest.mark.parametrize("where", ["call", "handler", "timer"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_crash(where: str, no_leaks: NoLeaks) -> None:
    """The owner is notified; everything that was passed is still released, and nothing is accepted any more."""
    with no_leaks():
        loop = Loop()
        ours, theirs = socket.socketpair()

        def fail(_: int = 0) -> None:
            loop.loop.call(lambda: loop.reports.append("queued"))
            raise LookupError("broken on purpose")

        def begin() -> None:
            if where == "handler":
                loop.loop.register(ours.fileno(), fail)
            elif where == "timer":
                loop.loop.call_later(0, fail)
            else:
                fail()

        loop.loop.call(begin)
        loop.loop.start()
        eventually(lambda: loop.crashes)
        loop.loop.stop(soon())
        ours.close()
        theirs.close()
    assert loop.reports == ["queued", "stopped"]
    assert not loop.loop.call(lambda: None)


def test_call_that_does_not_wait(no_leaks: NoLeaks) -> None:
    """Also not for a thread that is just calling, as a caller in that thread could be within its call."""
    with no_leaks():
        loop = EventLoop("test loop", lambda _: None)
        done: list[int] = []
        assert loop.try_call(lambda: done.append(1))
        with loop._wake_lock:
            assert not loop.try_call(lambda: done.append(2))
        assert loop.try_call(lambda: done.append(3))
        loop.start()
        loop.stop(soon())
        assert not loop.try_call(lambda: done.append(4))
    assert done == [1, 3]


def test_error_while_it_ends(no_leaks: NoLeaks, caplog: pytest.LogCaptureFixture) -> None:
    """One owner's error does not keep the others from releasing theirs."""
    with no_leaks():
        loop = EventLoop("test loop", lambda _: None)
        done: list[int] = []
        loop.on_stop(lambda: done.append(1))
        loop.on_stop(lambda: os.close(-1))
        loop.on_stop(lambda: done.append(2))
        loop.start()
        loop.stop(soon())
    assert done == [1, 2]
    assert "Call failed while the event loop was ending" in caplog.text
