"""A connection of the server with real sockets: order of responses and media, its clocks, its end."""

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from softcam.net.event_loop import EventLoop
from softcam.rtsp.messages import InterleavedPacket
from softcam.rtsp.server.connection import ClientConnection, Received
from softcam.rtsp.server.requests import Request
from tests.support.background import eventually, soon
from tests.support.stream_clients import connect
from tests.support.timeouts import PATIENCE_S

NoLeaks = Callable[[], AbstractContextManager[None]]
REQUEST = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"


class Client:
    """One connection, both its ends, and what the server's owner was notified of."""

    def __init__(self) -> None:
        self.crashes: list[str] = []
        self.now_s = 1000.0
        self.received: list[Received] = []
        self.ended: list[str] = []
        self.closed: list[str] = []  # with the reason of the end
        self.on_request: Callable[[ClientConnection, Request], None] = lambda connection, _: connection.respond(b"ok")
        self.loop = EventLoop("connection test", self.crashes.append, clock=lambda: self.now_s)
        ours, self.socket = connect(small_buffers=True)
        self.connection: ClientConnection
        self.loop.start()
        self.run(lambda: setattr(self, "connection", self._open(ours)))

    def _open(self, ours: socket.socket) -> ClientConnection:
        address = ours.getpeername()
        return ClientConnection(
            ours,
            address,
            self.loop,
            self._on_received,
            lambda _, reason: self.ended.append(reason),
            lambda _: self.closed.append(self.ended[-1]),
        )

    def _on_received(self, connection: ClientConnection, received: Received) -> None:
        self.received.append(received)
        if isinstance(received, Request):
            self.on_request(connection, received)

    def run(self, function: Callable[[], None]) -> None:
        """On the loop's thread; returns when it is done."""
        done: list[bool] = []
        assert self.loop.call(function)
        assert self.loop.call(lambda: done.append(True))
        eventually(lambda: done)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, data
            data += part
        return data

    def has_nothing(self) -> bool:
        return not select.select([self.socket], [], [], 0.05)[0]

    def stop(self) -> None:
        self.run(lambda: self.connection.close("end of the test"))
        self.loop.stop(soon())
        self.socket.close()
        assert self.crashes == []
        assert len(self.ended) == len(self.closed) == 1


@pytest.fixture
def client(no_leaks: NoLeaks) -> Iterator[Client]:
    with no_leaks():
        client = Client()
        yield client
        client.stop()


def test_requests_wait_for_a_response(client: Client) -> None:
    client.on_request = lambda connection, _: connection.defer_response()
    client.socket.sendall(REQUEST * 3)
    eventually(lambda: client.received)
    assert client.has_nothing()
    for count in range(1, 4):
        assert len(client.received) == count
        client.run(lambda: client.connection.respond(b"later"))
        assert client.read(5) == b"later"
    assert not client.connection.is_waiting


def test_packets_between_requests(client: Client) -> None:
    client.socket.sendall(b"$\x01\0\x02ab" + REQUEST + b"$\0\0\0")
    assert client.read(2) == b"ok"
    eventually(lambda: len(client.received) == 3)
    assert [type(each) for each in client.received] == [InterleavedPacket, Request, InterleavedPacket]


def test_response_between_parts_of_media(client: Client) -> None:
    """Never within a part, and before the next one."""
    parts = iter([b"a" * 400_000, b"b" * 1000])
    client.run(lambda: client.connection.start_media(lambda: next(parts, b"")))
    client.run(client.connection.flush)
    assert client.connection.has_unsent
    client.socket.sendall(REQUEST)
    eventually(lambda: client.received)
    assert not client.connection.is_idle
    assert client.read(401_002) == b"a" * 400_000 + b"ok" + b"b" * 1000
    client.run(lambda: None)
    assert client.connection.is_idle


def test_stall_counts_from_the_beginning_of_a_part(client: Client) -> None:
    """A viewer that had no room at the first attempt is not one that has accepted nothing since its last short send."""
    before_s = client.connection.progress_s
    client.now_s += 1000
    client.run(lambda: client.connection.continue_part(b"x" * 100, -errno.EAGAIN))
    assert client.connection.has_unsent
    assert client.connection.progress_s == before_s + 1000
    client.run(client.connection.flush)
    assert client.read(100) == b"x" * 100
    client.now_s += 1000
    part = b"y" * 4_000_000
    parts = iter([part])
    client.run(lambda: client.connection.start_media(lambda: next(parts, b"")))
    client.run(client.connection.flush)
    assert client.connection.progress_s == client.now_s
    client.now_s += 10
    client.run(client.connection.flush)
    assert client.connection.progress_s == client.now_s - 10, "nothing was accepted"
    assert client.read(len(part)) == part


def test_clock_of_a_request(client: Client) -> None:
    """From its first byte to its end; the next one has a new one."""
    assert client.connection.request_s is None
    client.socket.sendall(REQUEST[:5])
    eventually(lambda: client.connection.request_s == client.now_s)
    client.now_s += 5
    client.socket.sendall(REQUEST[5:10])
    eventually(lambda: client.connection.heard_s == client.now_s)
    assert client.connection.request_s == client.now_s - 5
    client.socket.sendall(REQUEST[10:] + REQUEST[:5])
    assert client.read(2) == b"ok"
    client.run(lambda: None)
    assert client.connection.request_s == client.now_s
    client.socket.sendall(REQUEST[5:])
    assert client.read(2) == b"ok"
    client.run(lambda: None)
    assert client.connection.request_s is None


def test_end_after_everything_was_sent(client: Client) -> None:
    """The client gets the part that was begun, and the last response; what it still sends does not destroy them."""
    parts = iter([b"a" * 400_000, b"b" * 1000])
    client.run(lambda: client.connection.start_media(lambda: next(parts, b"")))
    client.run(client.connection.flush)
    client.run(lambda: client.connection.end("done", b"bye"))
    client.socket.sendall(REQUEST * 10)
    assert client.read(400_003) == b"a" * 400_000 + b"bye"
    assert client.socket.recv(10) == b""
    assert client.received == []
    assert (client.ended, client.closed) == (["done"], [])
    client.now_s += 1.0
    client.run(lambda: None)
    eventually(lambda: client.closed)


def test_end_without_a_reader(client: Client) -> None:
    """It is closed soon, whatever the client does."""
    client.run(lambda: client.connection.end("a reason", b"a" * 4_000_000))
    assert client.closed == []
    client.now_s += 1.0
    client.run(lambda: None)
    eventually(lambda: client.closed == ["a reason"])


@pytest.mark.parametrize("how", ["shutdown", "close", "reset"])
def test_closed_by_the_client(client: Client, how: str) -> None:
    if how == "shutdown":
        client.socket.shutdown(socket.SHUT_WR)
    elif how == "reset":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if how != "shutdown":
        client.socket.close()
    eventually(lambda: client.closed)
    client.run(lambda: client.connection.respond(b"too late"))
    client.run(client.connection.flush)
    assert len(client.closed) == 1


def test_closed_by_a_handler(client: Client) -> None:
    """The requests behind are not handled."""
    client.on_request = lambda connection, _: connection.close("no")
    client.socket.sendall(REQUEST * 3)
    eventually(lambda: client.closed == ["no"])
    assert len(client.received) == 1


def test_too_many_waiting_requests(client: Client) -> None:
    client.on_request = lambda connection, _: connection.defer_response()
    client.socket.settimeout(PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S

    def flood() -> None:
        while time.monotonic() < deadline_s:
            client.socket.sendall(REQUEST * 100)

    with pytest.raises(ConnectionError):
        flood()
    eventually(lambda: client.closed == ["requests do not wait for responses"])


def test_others_have_their_turn(client: Client) -> None:
    """A flood of requests is handled in portions: a call of another thread, as media are, does not wait for its end."""
    handled: list[int] = []

    def respond(connection: ClientConnection, _: Request) -> None:
        if len(client.received) == 1:
            client.loop.call(lambda: handled.append(len(client.received)))
        connection.respond(b"")

    client.on_request = respond
    client.socket.setblocking(False)
    sent = client.socket.send(REQUEST * 5000)
    count = sent // len(REQUEST)
    eventually(lambda: len(client.received) == count)
    assert handled[0] <= 8192 // len(REQUEST) + 1
