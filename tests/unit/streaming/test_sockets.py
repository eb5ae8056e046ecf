"""One part to many sockets: by a loop or by a ring, with the same outcome, on real sockets."""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.streaming import sockets
from softcam.streaming.sockets import Descriptors, IoUringSender

NoLeaks = Callable[[], AbstractContextManager[None]]
Pair = tuple[socket.socket, socket.socket]
SendToEach = Callable[[Descriptors, bytes], list[tuple[int, int]]]
ENTRIES = 8
LARGE = 1_000_000  # more than a socket takes at once


@contextlib.contextmanager
def pairs(count: int) -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(count)]
    for ours, _ in made:
        ours.setblocking(False)
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


def numbers(made: list[Pair]) -> Descriptors:
    return np.array([ours.fileno() for ours, _ in made], np.int32)


@pytest.fixture(params=["ring", "loop"])
def send_to_each(request: pytest.FixtureRequest, no_leaks: NoLeaks) -> Iterator[SendToEach]:
    with no_leaks():
        if request.param == "loop":
            yield lambda descriptors, part: sockets.send_to_each(descriptors.tolist(), part)
            return
        ring = IoUringSender(ENTRIES)
        yield ring.send_to_each
        ring.close()


@pytest.mark.parametrize("count", [0, 1, ENTRIES - 1, ENTRIES, ENTRIES + 1, 5 * ENTRIES + 3])
def test_everyone_gets_every_part(send_to_each: SendToEach, count: int) -> None:
    with pairs(count) as made:
        for number in range(20):  # several times around the ring
            part = b"part %d" % number
            assert send_to_each(numbers(made), part) == []
            assert [theirs.recv(100) for _, theirs in made] == [part] * count


def test_who_falls_short_is_told_and_the_others_get_all(send_to_each: SendToEach) -> None:
    with pairs(ENTRIES + 4) as made:
        full, gone, closed = 2, ENTRIES, ENTRIES + 2  # full is one that still has something unread
        with contextlib.suppress(BlockingIOError):
            while True:
                made[full][0].send(b"x" * LARGE)
        made[gone][1].close()
        descriptors = numbers(made)
        made[closed][0].close()
        assert send_to_each(descriptors, b"hello") == [
            (full, -errno.EAGAIN),
            (gone, -errno.EPIPE),
            (closed, -errno.EBADF),
        ]
        for place, (_, theirs) in enumerate(made):
            if place not in (full, gone, closed):
                assert theirs.recv(100) == b"hello"


def test_what_is_taken_of_a_large_part_is_told_and_the_rest_can_follow(send_to_each: SendToEach) -> None:
    part = os.urandom(LARGE)
    with pairs(3) as made:
        short = dict(send_to_each(numbers(made), part))
        assert sorted(short) == [0, 1, 2]
        for place, (ours, theirs) in enumerate(made):
            sent, got = short[place], b""
            assert 0 < sent < LARGE
            while len(got) < LARGE:
                got += theirs.recv(LARGE)
                if sent < LARGE:
                    sent += sockets.send(ours.fileno(), part, sent)
            assert got == part


def test_room_after_a_short_send_is_told_by_an_edge(send_to_each: SendToEach) -> None:
    """As the loop needs it: it registers once, and asks for nothing after a send that fell short."""
    with pairs(1) as [(ours, theirs)], contextlib.closing(select.epoll()) as poller:
        poller.register(ours.fileno(), select.EPOLLOUT | select.EPOLLET)
        assert poller.poll(0) == [(ours.fileno(), select.EPOLLOUT)]
        send_to_each(numbers([(ours, theirs)]), b"x" * LARGE)
        assert poller.poll(0) == []
        while not poller.poll(0):
            assert theirs.recv(LARGE)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 3 * ENTRIES), max_size=12))
def test_a_ring_goes_round_with_any_numbers(counts: list[int]) -> None:
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(3 * ENTRIES) as made:
            for number, count in enumerate(counts):
                part = b"%d." % number
                assert ring.send_to_each(numbers(made[:count]), part) == []
                assert all(theirs.recv(100) == part for _, theirs in made[:count])
    finally:
        ring.close()


def test_who_has_left_is_told_wherever_the_ring_stands() -> None:
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(5) as made:  # by five at once, the answers lie across the end of their ring now and then
            for _, theirs in made:
                theirs.close()
            for _ in range(4 * ENTRIES):
                assert ring.send_to_each(numbers(made), b"hello") == [(place, -errno.EPIPE) for place in range(5)]
    finally:
        ring.close()


def test_what_the_kernel_does_not_take_goes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory the kernel takes fewer than are in the queue, or none; nobody is left out, nobody served twice."""
    real = sockets._syscall
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(6) as made:
            for most in (0, 4, 6, 0, 3):
                monkeypatch.setattr(
                    sockets,
                    "_syscall",
                    lambda number, descriptor, count, *rest, most=most: (
                        real(number, descriptor, min(count, most), *rest) if most else -1
                    ),
                )
                assert ring.send_to_each(numbers(made), b"%d" % most) == []
                assert [theirs.recv(100) for _, theirs in made] == [b"%d" % most] * 6
    finally:
        ring.close()


def test_a_send_that_the_kernel_keeps_silent_on_is_told_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never does; if it did, nobody could know how much of the part went out."""
    ring = IoUringSender(ENTRIES)
    try:
        with pairs(3) as made:
            assert ring.send_to_each(numbers(made), b"well") == []
            assert not ring.has_failed
            monkeypatch.setattr(sockets, "_syscall", lambda _number, _descriptor, count, *_rest: count)
            assert ring.send_to_each(numbers(made), b"lost") == [(place, -errno.EIO) for place in range(3)]
            assert ring.has_failed
    finally:
        ring.close()


def test_a_kernel_without_rings_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_SETUP", 100_000)  # a number that no system call has
    with pytest.raises(OSError, match="io_uring_setup: Function not implemented"):
        IoUringSender(ENTRIES)


def test_a_ring_that_does_not_send_is_an_error(monkeypatch: pytest.MonkeyPatch, no_leaks: NoLeaks) -> None:
    """As before Linux 5.6: it would fail each frame's first viewer, which would be let go for that."""
    monkeypatch.setattr(sockets, "_OP_SEND", 250)  # a number that no operation has
    with no_leaks(), pytest.raises(OSError, match="does not send"):
        IoUringSender(ENTRIES)


def test_a_ring_that_may_not_be_entered_is_an_error(monkeypatch: pytest.MonkeyPatch, no_leaks: NoLeaks) -> None:
    """A filter may know one of the two calls and not the other: every frame would be tried in vain."""
    monkeypatch.setattr(sockets, "_ENTER", 100_000)  # a number that no system call has
    with no_leaks(), pytest.raises(OSError, match="does not send"):
        IoUringSender(ENTRIES)
