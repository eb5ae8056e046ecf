"""`EventStream` with real sockets: order, resumption, heartbeats, slow clients, the limit, and the format."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from softcam.net.event_loop import EventLoop
from softcam.streaming.event_stream import EventBatch, EventStream, Read, format_event
from tests.support.background import eventually, soon
from tests.support.stream_clients import connect
from tests.support.timeouts import PATIENCE_S

HEAD = b"retry: 2000\n"


class Source:
    """Numbers its events from 1, and keeps the newest ones."""

    def __init__(self, kept: int = 1000, batch: int = 10) -> None:
        self.kept, self.batch = kept, batch
        self.events: list[str] = []  # all; the memory is simulated

    def read(self, position: int, accept: str = "") -> EventBatch:
        newest = len(self.events)
        first = max(position, newest - self.kept)
        last = min(newest, first + self.batch)
        lost = first - position
        parts = [format_event(f"{lost} events skipped", name="skipped")] if lost else []
        parts += [
            format_event(self.events[at], number=at + 1) for at in range(first, last) if accept in self.events[at]
        ]
        return EventBatch(b"".join(parts), last, last == newest, lost)


class Reader:
    """A client that reads whole events."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def next(self) -> bytes:
        """The next block up to an empty line."""
        while b"\n\n" not in self._buffer:
            received = self.socket.recv(65536)
            assert received, f"the stream ended after {self._buffer[-200:]!r}"
            self._buffer += received
        block, _, self._buffer = self._buffer.partition(b"\n\n")
        return block

    def data(self, count: int) -> list[str]:
        """The data of the next events with a number."""
        found: list[str] = []
        while len(found) < count:
            block = self.next().decode()
            if "\ndata: " in block:
                found.append(block.partition("\ndata: ")[2])
        return found

    def ends(self) -> bool:
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


class Stage:
    """A running loop with one stream."""

    def __init__(
        self, *, max_clients: int = 8, stall_timeout_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.crashes: list[str] = []
        self.loop = EventLoop("fan-out", self.crashes.append, clock=clock)
        self.stream = EventStream(
            self.loop, "Test client", max_clients, gather_s=0.001, stall_timeout_s=stall_timeout_s
        )
        self.source = Source()
        self.readers: list[Reader] = []
        self.loop.start()

    def connect(self, position: int = 0, *, read: Read | None = None, small_buffers: bool = False) -> Reader:
        release = self.stream.reserve()
        assert release is not None
        ours, theirs = connect(small_buffers)
        self.stream.add_client(ours, "192.0.2.1", read or self.source.read, position, release, is_chunked=False)
        self.readers.append(Reader(theirs))
        return self.readers[-1]

    def publish(self, *events: str) -> None:
        self.source.events += events
        self.stream.wake()

    def stop(self) -> None:
        self.loop.stop(soon())
        for reader in self.readers:
            reader.socket.close()
        assert self.crashes == []


Make = Callable[..., Stage]


@pytest.fixture
def make(no_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[Make]:
    stages: list[Stage] = []

    def make_stage(**options: Any) -> Stage:
        stages.append(Stage(**options))
        return stages[-1]

    with no_leaks():
        yield make_stage
        for stage in stages:
            stage.stop()


@pytest.fixture
def stage(make: Make) -> Stage:
    return make()


# Format


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (format_event("one"), b"data: one\n\n"),
        (format_event("one", number=7), b"id: 7\ndata: one\n\n"),
        (format_event("one", number=7, name="motion"), b"event: motion\nid: 7\ndata: one\n\n"),
        (format_event("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (format_event(""), b"data: \n\n"),
        (format_event("ünï"), "data: ünï\n\n".encode()),
    ],
)
def test_format(event: bytes, expected: bytes) -> None:
    assert event == expected


# Events


def test_events_in_order(stage: Stage) -> None:
    reader = stage.connect()
    assert reader.next() == HEAD.rstrip()
    stage.publish("a")
    assert reader.next() == b"id: 1\ndata: a"
    stage.publish("b", "c")
    assert [reader.next(), reader.next()] == [b"id: 2\ndata: b", b"id: 3\ndata: c"]


def test_resumption(stage: Stage) -> None:
    stage.publish(*map(str, range(1, 101)))
    reader = stage.connect(40)
    assert reader.next() == HEAD + b"id: 40", "a client that is disconnected at once continues here"
    assert reader.data(60) == [str(number) for number in range(41, 101)]
    stage.publish("new")
    assert reader.data(1) == ["new"]


def test_event_while_the_client_connects(stage: Stage) -> None:
    """Whatever the order, each event arrives once."""
    is_over = threading.Event()

    def publish() -> None:
        for number in range(1, 301):
            stage.publish(str(number))
        is_over.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    readers = [stage.connect() for _ in range(5)]
    for reader in readers:
        assert reader.data(300) == [str(number) for number in range(1, 301)]
    assert is_over.wait(PATIENCE_S)
    publisher.join()


def test_filter_of_a_client(stage: Stage) -> None:
    stage.publish(*(f"{'even' if number % 2 == 0 else 'odd'} {number}" for number in range(1, 101)))
    even = stage.connect(read=lambda position: stage.source.read(position, "even"))
    everything = stage.connect(90)
    assert even.data(50) == [f"even {number}" for number in range(2, 101, 2)]
    assert everything.data(10)[0] == "odd 91"
    nothing = stage.connect(read=lambda position: stage.source.read(position, "nothing"))
    nothing.next()
    stage.publish("nothing else")
    assert nothing.data(1) == ["nothing else"]


def test_batches_of_one_client_do_not_keep_others_waiting(stage: Stage) -> None:
    """A client that resumes is read for one batch per turn of the loop."""
    reads: list[str] = []

    def noted(name: str) -> Read:
        def read(position: int) -> EventBatch:
            batch = stage.source.read(position, "only this")
            if batch.position > position:
                reads.append(name)
            return batch

        return read

    stage.source.events += ["x"] * 1000
    may_go, is_held = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert may_go.wait(PATIENCE_S)

    stage.loop.call(hold)
    assert is_held.wait(PATIENCE_S)
    stage.connect(read=noted("first"))
    stage.connect(read=noted("second"))
    may_go.set()
    eventually(lambda: len(reads) == 200)
    assert {*reads[:4]} == {"first", "second"}


def test_burst_is_sent_together(make: Make) -> None:
    stage = make()
    reads: list[int] = []

    def read(position: int) -> EventBatch:
        reads.append(position)
        return stage.source.read(position)

    stage.source = Source(kept=10_000, batch=10_000)
    reader = stage.connect(read=read)
    reader.next()
    for number in range(2000):
        stage.publish(str(number))
    assert len(reader.data(2000)) == 2000
    assert len(reads) < 1000


# Slow clients


def test_slow_client_loses_events_and_delays_nobody(stage: Stage) -> None:
    stage.source.kept = 50
    quick, slow = stage.connect(), stage.connect(small_buffers=True)
    sent = 0
    while sent < 5000:
        stage.publish(*(f"{number} {'x' * 1000}" for number in range(sent + 1, sent + 11)))
        sent += 10
        assert [event.partition(" ")[0] for event in quick.data(10)] == [str(sent - 9 + at) for at in range(10)]
    blocks = [slow.next().decode()]
    while not blocks[-1].startswith("id: 5000\n"):
        blocks.append(slow.next().decode())
    skipped = [block for block in blocks if block.startswith("event: skipped\n")]
    lost = sum(int(block.partition("data: ")[2].split()[0]) for block in skipped)
    received = sum(block.startswith("id: ") and "data: " in block for block in blocks)
    assert lost > 1000
    assert lost + received == 5000
    assert "id: " not in "".join(skipped)


def test_drops_are_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.source.kept = 3
    stage.publish(*"abcdefghij")
    with caplog.at_level("INFO"):
        reader = stage.connect(2)
        assert reader.next().endswith(b"id: 2")
        assert reader.next() == b"event: skipped\ndata: 5 events skipped"
        assert reader.data(3) == ["h", "i", "j"]
        reader.socket.close()
        eventually(lambda: "disconnected" in caplog.text)
    assert caplog.messages[0] == "Test client 192.0.2.1 connected; 1 connected"
    assert "messages sent, 5 dropped; 0 connected" in caplog.messages[-1]


def test_client_that_accepts_nothing(make: Make) -> None:
    stage = make(stall_timeout_s=0.2)
    stage.source.batch = 10_000
    reader = stage.connect(small_buffers=True)
    reader.next()
    stage.publish(*("x" * 1000 for _ in range(10_000)))
    eventually(lambda: stage.stream.client_count == 0)
    assert reader.ends()


# Connections


def test_heartbeats(make: Make) -> None:
    """15 s after the last data; the clock is the test's."""
    now_s = [1000.0]
    stage = make(clock=lambda: now_s[0])

    def advance(seconds: int) -> None:
        """Let the time pass in steps of a tick, and let the loop finish what is due at each."""
        for step in range(seconds + 1):
            now_s[0] += 1.0 if step else 0.0
            for _ in range(3):
                done = threading.Event()
                stage.loop.call(done.set)
                assert done.wait(PATIENCE_S)

    stage.source.events += ["a"] * 7
    reader = stage.connect(7)
    fresh = stage.connect(0, read=lambda position: EventBatch(b"", 0, is_last=True))
    assert reader.next() == HEAD + b"id: 7"
    fresh.next()
    advance(10)
    stage.publish("b")
    advance(1)
    assert reader.next() == b"id: 8\ndata: b"
    advance(13)
    assert fresh.next() == b":"
    stage.publish("c")
    advance(1)
    assert reader.next() == b"id: 9\ndata: c", "no heartbeat before"
    advance(16)
    assert reader.next() == b":\nid: 9"


def test_limit_of_clients(make: Make) -> None:
    stage = make(max_clients=2)
    readers = [stage.connect(), stage.connect()]
    assert stage.stream.reserve() is None
    readers[0].next()
    readers[0].socket.close()
    eventually(lambda: stage.stream.client_count == 1)
    eventually(lambda: (release := stage.stream.reserve()) is not None and (release(), True)[1])


def test_machine_without_power_is_noticed(stage: Stage) -> None:
    ours, theirs = connect()
    release = stage.stream.reserve()
    assert release is not None
    number = ours.fileno()
    stage.stream.add_client(ours, "192.0.2.1", stage.source.read, 0, release, is_chunked=False)
    Reader(theirs).next()
    view = socket.socket(fileno=number)
    assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    view.detach()
    theirs.close()


def test_chunks(stage: Stage) -> None:
    """Each part is a chunk, so that clients pass it on at once (RFC 9112, 7.1)."""
    ours, theirs = connect()
    release = stage.stream.reserve()
    assert release is not None
    stage.source.events += ["a", "b"]
    stage.stream.add_client(ours, "192.0.2.1", stage.source.read, 0, release, is_chunked=True)
    expected = b"d\r\nretry: 2000\n\n\r\n" + b"1e\r\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n\r\n"
    received = b""
    while len(received) < len(expected):
        received += theirs.recv(65536)
    assert received == expected
    theirs.close()


def test_events_while_another_thread_wakes_the_loop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source, which may hold locks, does not wait for it."""
    reader = stage.connect()
    reader.next()
    with monkeypatch.context() as patch:
        patch.setattr(stage.loop, "try_call", lambda _: False)
        stage.publish("a")
    assert reader.data(1) == ["a"], "in a second at the latest"
    stage.publish("b")
    assert reader.data(1) == ["b"]


def test_loop_sleeps_without_clients(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(stage.loop, "try_call", calls.append)
    for _ in range(3):
        stage.publish("for no client")
    assert calls == []


def test_end_of_the_loop(stage: Stage) -> None:
    readers = [stage.connect() for _ in range(3)]
    for reader in readers:
        reader.next()
    stage.loop.stop(soon())
    stage.publish("too late")
    assert all(reader.ends() for reader in readers)
    releases = [stage.stream.reserve() for _ in range(8)]
    assert None not in releases, "all places are free again"
