"""`sockets` and `io_uring` send one part to many sockets, with the same results."""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.net import io_uring, sockets
from softcam.net.io_uring import IoUringSender
from softcam.net.sockets import FdArray

NoLeaks = Callable[[], AbstractContextManager[None]]
Pair = tuple[socket.socket, socket.socket]
SendToEach = Callable[[FdArray, bytes], list[tuple[int, int]]]
ENTRIES = 8
LARGE = 1_000_000  # more than a socket takes at once


@contextlib.contextmanager
def pairs(count: int) -> Iterator[list[Pair]]:
    open_pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in open_pairs:
        ours.setblocking(False)
    yield open_pairs
    for ours, theirs in open_pairs:
        ours.close()
        theirs.close()


def fds_of(open_pairs: list[Pair]) -> FdArray:
    return np.array([ours.fileno() for ours, _ in open_pairs], np.int32)


@pytest.fixture(params=["ring", "loop"])
def send_to_each(request: pytest.FixtureRequest, no_leaks: NoLeaks) -> Iterator[SendToEach]:
    with no_leaks():
        if request.param == "loop":
            yield lambda fds, part: sockets.send_to_each(fds.tolist(), part)
            return
        ring = IoUringSender(ENTRIES)
        yield ring.send_to_each
        ring.close()


@pytest.mark.parametrize("count", [0, 1, ENTRIES - 1, ENTRIES, ENTRIES + 1, 5 * ENTRIES + 3])
def test_every_socket_gets_every_part(send_to_each: SendToEach, count: int) -> None:
    with pairs(count) as open_pairs:
        for number in range(20):  # several rounds of the ring
            part = b"part %d" % number
            assert send_to_each(fds_of(open_pairs), part) == []
            assert [theirs.recv(100) for _, theirs in open_pairs] == [part] * count


def test_partial_sends_are_reported(send_to_each: SendToEach) -> None:
    with pairs(ENTRIES + 4) as open_pairs:
        full, gone, closed = 2, ENTRIES, ENTRIES + 2  # full is one that still has something unread
        with contextlib.suppress(BlockingIOError):
            while True:
                open_pairs[full][0].send(b"x" * LARGE)
        open_pairs[gone][1].close()
        fds = fds_of(open_pairs)
        open_pairs[closed][0].close()
        assert send_to_each(fds, b"hello") == [
            (full, -errno.EAGAIN),
            (gone, -errno.EPIPE),
            (closed, -errno.EBADF),
        ]
        for index, (_, theirs) in enumerate(open_pairs):
            if index not in (full, gone, closed):
                assert theirs.recv(100) == b"hello"


def test_large_part_is_continued_after_partial_send(send_to_each: SendToEach) -> None:
    part = os.urandom(LARGE)
    with pairs(3) as open_pairs:
        partial = dict(send_to_each(fds_of(open_pairs), part))
        assert sorted(partial) == [0, 1, 2]
        for index, (ours, theirs) in enumerate(open_pairs):
            sent, got = partial[index], b""
            assert 0 < sent < LARGE
            while len(got) < LARGE:
                got += theirs.recv(LARGE)
                if sent < LARGE:
                    sent += sockets.send(ours.fileno(), part, sent)
            assert got == part


def test_epoll_reports_room_after_partial_send(send_to_each: SendToEach) -> None:
    """As the fan-out expects it: it registers each socket once."""
    with pairs(1) as [(ours, theirs)], contextlib.closing(select.epoll()) as poller:
        poller.register(ours.fileno(), select.EPOLLOUT | select.EPOLLET)
        assert poller.poll(0) == [(ours.fileno(), select.EPOLLOUT)]
        send_to_each(fds_of([(ours, theirs)]), b"x" * LARGE)
        assert poller.poll(0) == []
        while not poller.poll(0):
            assert theirs.recv(LARGE)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 3 * ENTRIES), max_size=12))
def test_a_ring_goes_round_with_any_fds_of(counts: list[int]) -> None:
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(3 * ENTRIES) as open_pairs:
            for number, count in enumerate(counts):
                part = b"%d." % number
                assert ring.send_to_each(fds_of(open_pairs[:count]), part) == []
                assert all(theirs.recv(100) == part for _, theirs in open_pairs[:count])
    finally:
        ring.close()


def test_closed_peers_are_reported_at_any_ring_position() -> None:
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(5) as open_pairs:  # with five per batch, some results wrap around the end of the ring
            for _, theirs in open_pairs:
                theirs.close()
            for _ in range(4 * ENTRIES):
                assert ring.send_to_each(fds_of(open_pairs), b"hello") == [(index, -errno.EPIPE) for index in range(5)]
    finally:
        ring.close()


def test_sends_that_the_kernel_does_not_accept_use_send() -> None:
    """Without memory the kernel accepts fewer sends than queued, or none; each socket gets the part exactly once."""
    limit = ENTRIES

    def accept_some(number: int, fd: int, count: int, *rest: Any) -> int:
        return io_uring.syscall(number, fd, min(count, limit), *rest) if limit else -1

    ring = IoUringSender(
        ENTRIES,
        syscall=lambda number, *rest: (
            accept_some(number, *rest) if number == io_uring.ENTER else io_uring.syscall(number, *rest)
        ),
    )
    try:
        with pairs(6) as open_pairs:
            for limit in (0, 4, 6, 0, 3):
                assert ring.send_to_each(fds_of(open_pairs), b"%d" % limit) == []
                assert [theirs.recv(100) for _, theirs in open_pairs] == [b"%d" % limit] * 6
    finally:
        ring.close()


def test_send_without_result_is_reported_as_failed() -> None:
    """Should not happen; if it did, how much of the part was sent would be unknown."""
    is_silent = False

    def drop(number: int, fd: int, count: int, *rest: Any) -> int:
        return count if is_silent else io_uring.syscall(number, fd, count, *rest)

    ring = IoUringSender(ENTRIES, syscall=drop)
    try:
        with pairs(3) as open_pairs:
            assert ring.send_to_each(fds_of(open_pairs), b"well") == []
            assert not ring.has_failed
            is_silent = True
            assert ring.send_to_each(fds_of(open_pairs), b"lost") == [(index, -errno.EIO) for index in range(3)]
            assert ring.has_failed
    finally:
        ring.close()


def without(call: int) -> Callable[..., int]:
    """System calls of a kernel, or a sandbox, that does not know `call`."""
    return lambda number, *rest: io_uring.syscall(100_000 if number == call else number, *rest)


def test_kernel_without_io_uring() -> None:
    with pytest.raises(OSError, match="io_uring_setup: Function not implemented"):
        IoUringSender(ENTRIES, syscall=without(io_uring.SETUP))


def test_ring_that_does_not_send(no_leaks: NoLeaks) -> None:
    """As before Linux 5.6: otherwise each frame would fail for its clients, which would be disconnected."""
    with no_leaks(), pytest.raises(OSError, match="does not send"):
        IoUringSender(ENTRIES, send_opcode=250)  # not the number of an operation


def test_ring_that_must_not_be_entered(no_leaks: NoLeaks) -> None:
    """A sandbox may allow one of the two calls only."""
    with no_leaks(), pytest.raises(OSError, match="does not send"):
        IoUringSender(ENTRIES, syscall=without(io_uring.ENTER))
