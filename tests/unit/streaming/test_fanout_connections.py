"""`FanOut`: clients that disconnect, the life of the loop, and the fallback where io_uring is unavailable."""

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from softcam.net import io_uring
from softcam.net.io_uring import BatchSender, IoUringSender
from softcam.streaming.clients import JpegChannel, StreamClient
from tests.support.background import eventually, soon
from tests.support.stream_clients import LARGE, SMALL_VARIANT, VARIANT, Stage, StreamReader, connect
from tests.support.timeouts import PATIENCE_S
from tests.unit.streaming.conftest import NoLeaks, check


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("moment", ["before the first JPEG", "between JPEGs", "within a part"])
def test_disconnect_at_any_moment(stage: Stage, moment: str, reset: bool) -> None:
    reader = stage.connect(small_buffers=True)
    if moment == "between JPEGs":
        stage.publish(b"one")
        reader.read_jpeg()
    elif moment == "within a part":
        stage.publish(b"x" * LARGE)
        reader.read(1000)
    reader.close(reset=reset)
    stage.wait_empty()
    assert stage.disconnected == [0]


def test_client_disconnected_before_it_was_added(stage: Stage) -> None:
    ours, theirs = connect()
    theirs.close()
    stage.add(ours)
    stage.wait_empty()
    assert stage.disconnected == [0]


def test_closed_socket_is_added(stage: Stage) -> None:
    ours, theirs = connect()
    ours.close()
    stage.add(ours)
    eventually(lambda: stage.disconnected == [0])
    assert stage.fan.client_count == 0
    theirs.close()


def test_half_closed_connection_is_disconnected(stage: Stage) -> None:
    """A client that shuts down its sending side is disconnected, as by other streaming servers."""
    reader = stage.connect()
    reader.socket.shutdown(socket.SHUT_WR)
    assert reader.read_rest() == b""


def test_five_hundred_clients_connect_and_disconnect(stage: Stage, no_leaks: NoLeaks) -> None:
    permanent = stage.connect()
    stage.publish(b"the first", made_s=0.5)
    assert permanent.read_jpeg() == b"the first"
    with no_leaks():
        for number in range(1, 501):
            ours, theirs = connect()
            stage.add(ours, variant=(VARIANT, SMALL_VARIANT)[number % 2], interval_s=(0.0, 1.0)[number % 3 == 0])
            reader = StreamReader(theirs)
            if number % 5:
                reader.read_boundary()
            if number % 4 == 0:
                stage.publish(b"x" * 100_000, made_s=number)
                permanent.read_jpeg()
            reader.close(reset=number % 7 == 0)
        eventually(lambda: len(stage.disconnected) == 500, "that all disconnected")
    assert stage.fan.client_count == 1
    stage.publish(b"the last", made_s=501.0)
    assert permanent.read_jpeg() == b"the last"


def test_reused_file_descriptor_belongs_to_new_client(stage: Stage) -> None:
    may_continue = threading.Event()
    is_held = threading.Event()
    leaving = [connect() for _ in range(2)]
    readers: list[StreamReader] = []
    reused: list[int] = []

    def hold() -> None:
        is_held.set()
        assert may_continue.wait(PATIENCE_S)

    def connect_at_once() -> None:  # on the loop's thread, between two events of one batch
        ours, theirs = connect()
        reused.append(ours.fileno())
        reused.append(theirs.fileno())
        stage.add(ours)
        readers.append(StreamReader(theirs))

    numbers = {ours.fileno() for ours, _ in leaving}
    for ours, theirs in leaving:
        stage.fan.add_client(StreamClient(ours, "192.0.2.2", VARIANT, 0.0, connect_at_once))
        StreamReader(theirs).read_boundary()
    stage.on_channels = hold
    third = connect()
    stage.add(third[0])
    assert is_held.wait(PATIENCE_S)
    stage.on_channels = lambda: None
    for _, theirs in leaving:
        theirs.close()
    may_continue.set()  # the loop now gets both disconnections in one batch
    eventually(lambda: len(readers) == 2 and stage.fan.client_count == 3)
    assert numbers & set(reused), "a file descriptor was to be reused"
    stage.publish(b"well")
    for reader in (*readers, StreamReader(third[1])):
        assert reader.read_boundary().read_jpeg() == b"well"
        reader.close()
    stage.wait_empty()


# io_uring


@pytest.fixture
def make_stage(no_leaks: NoLeaks) -> Iterator[Callable[[BatchSender], Stage]]:
    with contextlib.ExitStack() as stack:

        def make(sender: BatchSender) -> Stage:
            stack.enter_context(no_leaks())
            stage = Stage(sender=sender)
            stack.callback(check, stage)
            stack.callback(stage.stop)
            return stage

        yield make


def test_plain_sends_without_io_uring(
    make_stage: Callable[[BatchSender], Stage], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(entries: int) -> IoUringSender:
        raise PermissionError(1, f"no ring of {entries}")

    stage = make_stage(BatchSender(1, refuse))
    caplog.set_level(logging.INFO, logger="softcam")
    readers = [stage.connect() for _ in range(20)]
    for number in range(3):
        stage.publish(b"%d" % number, made_s=number)
        assert [reader.read_jpeg() for reader in readers] == [b"%d" % number] * 20
    assert [line for line in caplog.messages if "io_uring" in line] == [
        "io_uring unavailable, using send(): [Errno 1] no ring of 256"
    ]


def test_failed_ring_is_replaced_by_plain_sends(
    make_stage: Callable[[BatchSender], Stage], caplog: pytest.LogCaptureFixture
) -> None:
    has_failed = threading.Event()

    def fail(number: int, fd: int, count: int, *rest: Any) -> int:
        return count if has_failed.is_set() else io_uring.syscall(number, fd, count, *rest)

    stage = make_stage(BatchSender(1, partial(IoUringSender, syscall=fail)))
    before = [stage.connect() for _ in range(3)]
    stage.publish(b"well", made_s=1)
    assert [reader.read_jpeg() for reader in before] == [b"well"] * 3
    has_failed.set()
    stage.publish(b"lost", made_s=2)
    assert [reader.read_rest() for reader in before] == [b""] * 3
    eventually(lambda: "io_uring failed, using send()" in caplog.text)
    after = stage.connect()
    stage.publish(b"found", made_s=3)
    assert after.read_jpeg() == b"found"


def test_ring_exists_while_there_are_clients(make_stage: Callable[[BatchSender], Stage]) -> None:
    def has_ring() -> bool:
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed in the meantime
                if "io_uring" in str(path.readlink()):
                    return True
        return False

    stage = make_stage(BatchSender(2))
    for _ in range(2):
        readers = [stage.connect() for _ in range(2)]
        assert not has_ring()
        stage.publish(b"well")
        assert [reader.read_jpeg() for reader in readers] == [b"well"] * 2
        assert has_ring()
        for reader in readers:
            reader.close()
        stage.wait_empty()
        eventually(lambda: not has_ring(), "that the ring is released")


# The loop


def run_loop(stage: Stage) -> None:
    """Return after a whole turn of the loop."""
    for _ in range(2):
        done = threading.Event()
        stage.fan.notify(JpegChannel(VARIANT), done.set)
        assert done.wait(PATIENCE_S)


def test_ticks_only_while_there_are_clients(no_leaks: NoLeaks) -> None:
    clock = [1000.0]
    with no_leaks():
        stage = Stage(clock=lambda: clock[0])
        run_loop(stage)
        assert stage.ticks == 0
        reader = stage.connect()
        run_loop(stage)
        assert stage.ticks == 1
        clock[0] += 0.9
        run_loop(stage)
        assert stage.ticks == 1
        clock[0] += 0.2
        run_loop(stage)
        assert stage.ticks == 2
        reader.close()
        stage.wait_empty()
        clock[0] += 60.0
        run_loop(stage)
        assert stage.ticks == 2
        stage.stop()


def test_first_tick_with_first_client(stage: Stage) -> None:
    """A client that connects while the camera is recovering gets the placeholder at once."""
    stage.on_tick = lambda: stage.publish(b"placeholder", made_s=2.0)
    assert stage.connect().read_jpeg() == b"placeholder"


def test_stop_is_logged_for_each_client(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        stage.connect()
    with caplog.at_level(logging.INFO):
        stage.loop.stop(soon())
    lines = [message for message in caplog.messages if "disconnected (the portal stops)" in message]
    assert [line.rpartition("; ")[2] for line in lines] == ["1 connected", "0 connected"]


def test_stop_with_two_hundred_clients(no_leaks: NoLeaks) -> None:
    with no_leaks():
        stage = Stage()
        stage.publish(b"for no client")
        readers = [stage.connect(small_buffers=number % 10 == 0) for number in range(200)]
        stage.publish(b"x" * LARGE)
        readers[1].read_jpeg()
        stage.loop.stop(soon())
        assert stage.fan.client_count == 0
        assert sorted(stage.disconnected) == list(range(200))
        for reader in readers:
            reader.read_rest()
        stage.stop()
    assert stage.crashes == []


def eventfds() -> set[int]:
    """The descriptors of this process that are eventfds."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if str(path.readlink()) == "anon_inode:[eventfd]":
                found.add(int(path.name))
    return found


def test_no_wake_up_after_stop(no_leaks: NoLeaks) -> None:
    with no_leaks():
        before = eventfds()
        stage = Stage()
        (number,) = eventfds() - before
        reader, writer = os.pipe()
        stage.loop.stop(soon())
        os.dup2(writer, number)  # now the descriptor of another file
        stage.publish(b"too late")
        stage.loop.stop(soon())
        ours, theirs = connect()
        stage.add(ours)
        assert stage.disconnected == [0]
        assert theirs.recv(1) == b""
        assert select.select([reader], [], [], 0)[0] == []
        for descriptor in (reader, writer, number):
            os.close(descriptor)
        theirs.close()


@pytest.mark.parametrize("callback", ["on_channels", "on_tick"])
def test_exception_in_callback_is_reported(no_leaks: NoLeaks, callback: str) -> None:
    def fail() -> None:
        raise RuntimeError("a fault in the test")

    with no_leaks():
        stage = Stage(stall_timeout_s=0.05)
        readers = [stage.connect() for _ in range(3)]
        setattr(stage, callback, fail)
        readers[0].close()  # changes the channels; ticks need no cause
        eventually(lambda: stage.crashes, "that the crash is reported")
        assert stage.crashes == ["thread event-loop crashed: RuntimeError: a fault in the test"]
        for reader in readers[1:]:
            assert reader.read_rest() == b""
        stage.stop()
    assert sorted(stage.disconnected) == [0, 1, 2]
