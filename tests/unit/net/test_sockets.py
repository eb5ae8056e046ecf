"""System calls on real sockets and eventfds."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from softcam.net import sockets

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(("start", "received"), [(0, b"one part"), (4, b"part")])
def test_send_from_a_byte_on(pair: Pair, start: int, received: bytes) -> None:
    assert sockets.send(pair[0].fileno(), b"one part", start) == len(received)
    assert pair[1].recv(100) == received


def test_full_socket_accepts_a_part_and_then_nothing(pair: Pair) -> None:
    large = bytes(1 << 24)
    accepted = sockets.send(pair[0].fileno(), large)
    assert 0 < accepted < len(large)
    assert sockets.send(pair[0].fileno(), large, accepted) == -errno.EAGAIN


def test_closed_peer_is_an_errno_without_a_signal(pair: Pair) -> None:
    pair[1].close()
    assert sockets.send(pair[0].fileno(), b"part") == -errno.EPIPE
    assert sockets.send_to_each([pair[0].fileno()], b"part") == [(0, -errno.EPIPE)]


def test_eventfd_counts_the_signals() -> None:
    fd = os.eventfd(0)
    try:
        sockets.signal_eventfd(fd)
        sockets.signal_eventfd(fd)
        assert os.eventfd_read(fd) == 2
    finally:
        os.close(fd)
