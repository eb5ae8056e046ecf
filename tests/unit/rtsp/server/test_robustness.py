"""Absurd requests, and many viewers that come and go: everything is answered or closed, and nothing remains."""

import gc
import os
import random
import selectors
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softcam.net.sockets import libc
from softcam.rtsp.server.handler import HandlerLimits
from softcam.rtsp.server.server import ServerLimits
from softcam.rtsp.server.sessions import SessionLimits
from tests.conftest import HAS_FRESH_CASES
from tests.support.background import Flow, eventually
from tests.support.key_checks import delaying
from tests.support.rtsp_viewers import Peer, Stage
from tests.support.stream_clients import SMALL_BUFFER
from tests.support.timeouts import PATIENCE_S

SEED = int.from_bytes(os.urandom(4)) if HAS_FRESH_CASES else 15
CASES, BATCH = 4000 if HAS_FRESH_CASES else 800, 100
# Datagrams are sent to the address of the client only: ports of other programs at 127.0.0.1 get none.
FUZZER = "127.0.0.3"
QUICK = ServerLimits(
    HandlerLimits(max_viewers=400, describe_s=5.0, play_s=0.1),
    SessionLimits(timeout_s=0.3, slack_s=0.2, silence_s=PATIENCE_S),
    stall_s=0.5,
    request_s=0.2,
    idle_s=5.0,
    setup_s=0.3,
    tick_s=0.05,
)
WITH_PASSWORD: dict[str, Any] = {"limits": QUICK, "passwords": ("view",), "check_key": delaying(lambda _: 0.001)}
END = b"\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 99\r\n\r\n"
URLS = (b"rtsp://pi/cam0", b"rtsp://pi/cam0/trackID=0", b"*", b"/", b"rtsp://u:p@[::1]:1/?a=b/trackID=0", b"http://pi/")
METHODS = (b"OPTIONS", b"DESCRIBE", b"SETUP", b"PLAY", b"PAUSE", b"GET_PARAMETER", b"SET_PARAMETER", b"TEARDOWN", b"X")
FIELDS = (
    b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1",
    b"Transport: RTP/AVP;unicast;client_port=40000-40001",
    b"Transport: RTP/AVP/TCP;interleaved=254-255, RTP/AVP;multicast",
    b"Session: {session}",
    b"Session: 0123456789abcdef;timeout=60",
    b"Content-Length: 5",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -1",
    b"Require: onvif-replay",
    b"Accept: application/sdp",
    b"Authorization: Basic OnZpZXc=",
    b'Authorization: Digest username="\\", nonce="", uri=, response="' + b"0" * 32 + b'"',
    b"Range: npt=now-",
    b"CSeq: 18446744073709551616",
    b" folded",
    b"X: " + b"y" * 3000,
    b"\xff\xfe: \x00\x01",
)


class Fuzzer:
    """Makes connections' worth of bytes: valid requests, in any order, with some of them damaged."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)
        self.session = b""

    def input(self) -> bytes:
        choice = self._random
        if choice.random() < 0.4:  # an almost valid conversation, so that the states behind SETUP are reached
            parts = [
                self._request(method, field)
                for method, field in zip(
                    (b"DESCRIBE", b"SETUP", b"PLAY", b"GET_PARAMETER", b"PAUSE", b"PLAY", b"TEARDOWN"),
                    (b"", choice.choice(FIELDS[:2]), b"", b"", b"", b"", b""),
                    strict=True,
                )
            ]
        else:
            parts = [self._request(choice.choice(METHODS)) for _ in range(choice.randint(1, 6))]
        for _ in range(choice.choice((0, 0, 1, 1, 2, 5))):
            parts = self._damage(parts)
        return b"".join(parts) + END

    def _request(self, method: bytes, field: bytes | None = None) -> bytes:
        choice = self._random
        url = choice.choice(URLS[:2] if field is not None else URLS)
        fields = [b"CSeq: %d" % choice.randint(0, 99), b"Authorization: Basic OnZpZXc="]
        fields += [field] if field is not None else choice.sample(FIELDS, choice.randint(0, 4))
        end = choice.choice((b"\r\n", b"\r\n", b"\n"))
        head = end.join([b"%s %s RTSP/1.0" % (method, url), *(each for each in fields if each), b"", b""])
        return head.replace(b"{session}", self.session)

    def _damage(self, parts: list[bytes]) -> list[bytes]:
        choice = self._random
        index = choice.randrange(len(parts))
        part = bytearray(parts[index])
        match choice.randrange(9):
            case 0 if part:
                part[choice.randrange(len(part))] ^= 1 << choice.randrange(8)
            case 1:
                del part[choice.randint(0, len(part)) :]
            case 2:
                at = choice.randint(0, len(part))
                part[at:at] = choice.randbytes(choice.choice((1, 4, 100)))
            case 3:
                choice.shuffle(parts)
                return parts
            case 4:
                return parts + parts
            case 5:
                part[:0] = b"$" + choice.randbytes(1) + choice.choice((0, 8, 60000)).to_bytes(2) + bytes(8)
            case 6:
                part *= 20
            case 7:
                del parts[index]
                return parts or [b""]
            case _:
                part[:0] = choice.choice((b"\r\n" * 50, b"\0", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"))
        return [*parts[:index], bytes(part), *parts[index + 1 :]]


def connect(stage: Stage) -> socket.socket:
    connection = socket.socket()
    connection.bind((FUZZER, 0))
    connection.connect(stage.address)
    connection.setblocking(False)
    return connection


def exchange(stage: Stage, inputs: list[bytes]) -> Iterator[bytes]:
    """What is received on each connection, when there was a response or the server has closed it."""
    selector = selectors.DefaultSelector()
    waiting: dict[socket.socket, list[bytes]] = {}  # what is to be sent, and what was received
    for data in inputs:
        connection = connect(stage)
        waiting[connection] = [data, b""]
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
    deadline_s = time.monotonic() + PATIENCE_S
    while waiting:
        assert time.monotonic() < deadline_s, next(iter(waiting.values()))
        for key, events in selector.select(0.1):
            connection = key.data
            state = waiting[connection]
            try:
                if events & selectors.EVENT_WRITE:
                    state[0] = state[0][connection.send(state[0]) :]
                    if not state[0]:
                        selector.modify(connection, selectors.EVENT_READ, connection)
                if events & selectors.EVENT_READ:
                    received = connection.recv(1 << 20)
                    state[1] += received
                    is_over = not received or (b"CSeq: 99\r\n" in state[1])
                else:
                    is_over = False
            except BlockingIOError:
                continue
            except ConnectionError:
                is_over = True
            if is_over:
                selector.unregister(connection)
                del waiting[connection]
                connection.close()
                yield state[1]
    selector.close()


@pytest.mark.parametrize("stage", [{"limits": QUICK}, WITH_PASSWORD], indirect=True)
def test_absurd_requests(stage: Stage) -> None:
    """Thousands, reordered, duplicated, truncated; another viewer receives every frame meanwhile."""
    viewer, fuzzer = stage.connect(), Fuzzer()
    answered = closed = 0
    with stage.flow():
        if stage.passwords:
            viewer.send_request("DESCRIBE", Authorization="Basic OnZpZXc=")
            assert viewer.response().status == 200
        viewer.play()
        numbers = [viewer.unit().number]
        for _ in range(CASES // BATCH // 2):
            victim, ports = Peer(stage.address), stage.ports()  # whose session is named by strangers
            victim.send_request("DESCRIBE", Authorization="Basic OnZpZXc=")
            assert victim.response().status == 200
            victim.set_up(ports.transport)
            fuzzer.session = victim.session.encode()
            for received in exchange(stage, [fuzzer.input() for _ in range(BATCH)]):
                answered += received.startswith((b"RTSP/1.0 ", b"HTTP/1.1 400 "))
                closed += not received
            victim.close()
            ports.close()
            while viewer.has_data():
                numbers.append(viewer.unit().number)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 20
        eventually(lambda: (stage.server.viewer_count, stage.camera.leases) == (1, 1), "that all others have ended")
        assert viewer.request("TEARDOWN").status == 200
        stage.wait_idle()
    assert answered > 0.9 * CASES / 2, (answered, closed)


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class ByteCounter:
    """Counts what a viewer receives and discards it, without a copy and with the interpreter lock kept.

    A hundred viewers' `socket.recv` would wait for the lock most of the time, and be slow viewers.
    """

    def __init__(self, connection: socket.socket, unit_bytes: int) -> None:
        """`unit_bytes` is the size of an access unit as this viewer receives it."""
        self._connection = connection
        self._unit_bytes = unit_bytes
        self._most = 1 << 20 if connection.type == socket.SOCK_STREAM else 0  # of a datagram, nothing is copied
        self._received = 0

    @property
    def units(self) -> float:
        return self._received / self._unit_bytes

    def read(self) -> None:
        flags = socket.MSG_DONTWAIT | socket.MSG_TRUNC
        while (received := libc.recv(self._connection.fileno(), None, self._most, flags)) > 0:
            self._received += received
        assert received < 0, "the connection of a viewer was closed"


def drain(counters: list[ByteCounter]) -> Flow:
    """Read what the counters' viewers receive, also those that are added meanwhile, while the block runs."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(0.05):
            for counter in tuple(counters):
                counter.read()

    return Flow(run, is_over)


def come_and_go(stage: Stage, count: int) -> None:
    """`count` viewers, of which half read nothing; the others miss nothing. All leave, most of them without a word."""
    stage.video.size, packets = 5_000, 4
    stalled: list[Peer] = []
    active: list[Peer] = []
    counters: list[ByteCounter] = []
    with drain(counters):
        with stage.flow(fps=10):
            for index in range(count - count // 2):
                active.append(peer := stage.connect())
                if index % 10 == 9:
                    ports = stage.ports()
                    peer.play(ports.transport)
                    counters.append(ByteCounter(ports.rtp, stage.video.size + 14 * packets))
                else:
                    peer.play()
                    counters.append(ByteCounter(peer.socket, stage.video.size + 18 * packets))
            eventually(lambda: all(counter.units >= 1 for counter in counters), "media for all")
        stage.settle()
        time.sleep(0.2)  # until what has been sent is read
        before, began = [counter.units for counter in counters], stage.video.count
        with stage.flow(fps=10):
            for _ in range(count // 2):
                stalled.append(peer := stage.connect(small_buffers=True))
                peer.play()
            eventually(lambda: stage.server.viewer_count == len(active), "that stalled viewers are dropped")
            eventually(lambda: stage.video.count >= began + 50)
        enough = 0.95 * (stage.video.count - began)

        def fewest() -> float:
            return min(counter.units - then for counter, then in zip(counters, before, strict=True))

        eventually(lambda: fewest() >= enough, f"{enough:.0f} units for each viewer that reads")
    for index, peer in enumerate(active):
        if index % 10 in (0, 9):
            peer.send(f"TEARDOWN {peer.url} RTSP/1.0\r\nSession: {peer.session}\r\nCSeq: 9\r\n\r\n")
    for client in (*stalled, *stage.clients):
        client.close()
    stage.clients.clear()
    stage.wait_idle()


def test_many_viewers_leave_nothing(no_leaks: object) -> None:
    """200, half of them stalled, some by UDP: descriptors, threads and memory as before."""
    limits = ServerLimits(HandlerLimits(), stall_s=3.0, tick_s=0.1)
    stage = Stage(limits=limits)
    descriptors, threads = descriptor_count(), threading.active_count()
    come_and_go(stage, 20)  # what exists once
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    come_and_go(stage, 200)
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 300_000
    assert peak - before < 60_000_000
    eventually(lambda: descriptor_count() == descriptors)
    eventually(lambda: threading.active_count() == threads)
    stage.stop()


def test_connections_without_a_request(stage: Stage) -> None:
    """More than the server accepts, opened and closed: others are served meanwhile."""
    viewer = stage.connect()
    with stage.flow():
        viewer.play()
        for _ in range(3):
            crowd = [socket.create_connection(stage.address) for _ in range(300)]
            for connection in crowd[::2]:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
                connection.sendall(b"OPTIONS")
            another = stage.connect()
            assert another.request("OPTIONS").status == 200
            for connection in crowd:
                connection.close()
        assert viewer.request("GET_PARAMETER").status == 200
