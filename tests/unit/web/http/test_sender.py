"""Responses of known length on real sockets: files, clients that stall, and slow ones."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcam.web.http.messages import FileResponse
from softcam.web.http.sender import ResponseWriter
from tests.support.background import Background
from tests.support.stream_clients import connect
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

HEADER = b"HTTP/1.1 200 OK\r\n\r\n"
LARGE = bytes(range(256)) * 400  # more than the small buffers of both ends
SHORT_S = 0.2 * TIMEOUT_FACTOR
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = connect(small_buffers=True)
    with ours, theirs:
        yield ours, theirs


def received(theirs: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = theirs.recv(1 << 20)
        assert part, "the connection was closed"
        content += part
    return content


def test_header_and_body(pair: Pair) -> None:
    ours, theirs = pair
    sending = Background(lambda: ResponseWriter(ours, PATIENCE_S).send(HEADER, LARGE))
    assert received(theirs, len(HEADER) + len(LARGE)) == HEADER + LARGE
    sending.result()


def test_part_of_a_file_between_replaced_ends(pair: Pair, tmp_path: Path) -> None:
    ours, theirs = pair
    path = tmp_path / "a.mp4"
    path.write_bytes(LARGE)
    with path.open("rb") as file:
        length = len(LARGE) - 7
        body = FileResponse(file, 2, length, "video/mp4", head=b"head", tail=b"tail", tail_at=len(LARGE) - 5)
        sending = Background(lambda: ResponseWriter(ours, PATIENCE_S).send(HEADER, body))
        expected = HEADER + (b"head" + LARGE[4:-5] + b"tail")[2 : 2 + length]
        assert received(theirs, len(expected)) == expected
        sending.result()


def test_file_that_became_shorter_aborts_the_response(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"short")
    with path.open("rb") as file, pytest.raises(ConnectionAbortedError, match="became shorter"):
        ResponseWriter(pair[0], PATIENCE_S).send(HEADER, FileResponse(file, 0, 100, "video/mp4"))


def test_client_that_acknowledges_nothing_times_out(pair: Pair) -> None:
    with pytest.raises(TimeoutError, match="acknowledged") as caught:
        ResponseWriter(pair[0], SHORT_S).send(HEADER, LARGE)
    assert caught.value.errno == errno.ETIMEDOUT


def test_slow_client_may_take_longer_than_the_timeout(pair: Pair) -> None:
    ours, theirs = pair
    sending = Background(lambda: ResponseWriter(ours, SHORT_S).send(HEADER, LARGE))
    content = bytearray()
    began_s = time.monotonic()
    while len(content) < len(HEADER) + len(LARGE):
        content += theirs.recv(1 << 13)
        time.sleep(SHORT_S / 8)
    sending.result()
    assert time.monotonic() - began_s > SHORT_S
    assert bytes(content) == HEADER + LARGE
