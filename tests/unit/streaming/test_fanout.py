"""Many viewers, one loop: each gets whole parts, the newest one first, and nobody waits for anybody."""

import contextlib
import logging
import math
import os
import select
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcam.streaming import fanout, sockets
from softcam.streaming.clients import JpegChannel, StreamClient
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import JpegVariant
from tests.support.fakes import PATIENCE_S, eventually, soon_s

KEY = JpegVariant(0, 80)
SMALL_KEY = JpegVariant(320, 80)
BOUNDARY = b"--frame\r\n"
LARGE = 4_000_000  # more than the kernel takes for both ends together
SMALL_BUFFER = 4096  # the kernel doubles it

NoLeaks = Callable[[], AbstractContextManager[None]]


def connect(small_buffers: bool = False) -> tuple[socket.socket, socket.socket]:
    """A TCP connection over loopback: the portal's end and the viewer's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if small_buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        theirs = socket.socket()
        if small_buffers:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        theirs.settimeout(PATIENCE_S)
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
    return ours, theirs


class Watcher:
    """The viewer's end: reads parts, and insists on their form."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            received = self.socket.recv(1 << 20)
            assert received, f"the stream ended within {size} bytes, after {self._buffer!r}"
            self._buffer += received
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def read_header(self) -> dict[str, str]:
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            lines += self.read(1)
        return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)

    def begin(self) -> "Watcher":
        assert self.read(len(BOUNDARY)) == BOUNDARY
        return self

    def picture(self) -> bytes:
        """The next part's JPEG; the boundary behind it was seen too."""
        header = self.read_header()
        assert list(header) == ["Content-Type", "Content-Length", "X-Timestamp"]
        jpeg = self.read(int(header["Content-Length"]))
        assert self.read(2 + len(BOUNDARY)) == b"\r\n" + BOUNDARY
        return jpeg

    def rest(self) -> bytes:
        """Everything until the portal closes, or breaks the connection off."""
        with contextlib.suppress(ConnectionResetError):
            while received := self.socket.recv(1 << 20):
                self._buffer += received
        rest, self._buffer = self._buffer, b""
        return rest

    def is_silent(self) -> bool:
        return not self._buffer and not select.select([self.socket], [], [], 0)[0]

    def close(self, *, rudely: bool = False) -> None:
        if rudely:  # the kernel sends RST
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Stage:
    """A fan-out, and what it told."""

    def __init__(self, stuck_limit_s: float = 30.0) -> None:
        self.channels: tuple[JpegChannel, ...] = ()
        self.ticks = 0
        self.deaths: list[str] = []
        self.left: list[int] = []  # numbers of viewers, in the order in which they left
        self.joined = 0
        self.watchers: list[Watcher] = []
        self.on_channels: Callable[[], None] = lambda: None
        self.on_tick: Callable[[], None] = lambda: None
        self.fan = FanOut(self._take_channels, self._take_tick, self.deaths.append, stuck_limit_s=stuck_limit_s)

    def join(self, key: JpegVariant = KEY, *, interval_s: float = 0.0, small_buffers: bool = False) -> Watcher:
        """A new viewer, who has seen the first boundary."""
        ours, theirs = connect(small_buffers)
        self.add(ours, key, interval_s)
        watcher = Watcher(theirs)
        self.watchers.append(watcher)
        return watcher.begin()

    def add(self, ours: socket.socket, key: JpegVariant = KEY, interval_s: float = 0.0) -> int:
        number = self.joined
        self.joined += 1
        self.fan.add(StreamClient(ours, "192.0.2.1", key, interval_s, lambda: self.left.append(number)))
        return number

    def deliver(self, jpeg: bytes, made_s: float = 1.0, key: JpegVariant = KEY) -> None:
        self.fan.deliver(key, jpeg, timestamp_s=1_700_000_000.25, made_s=made_s)

    def wait_empty(self) -> None:
        eventually(lambda: self.fan.viewers == 0 and self.channels == (), "that everybody left")

    def end(self) -> None:
        self.fan.stop(soon_s())
        for watcher in self.watchers:
            watcher.close()

    def _take_channels(self, channels: tuple[JpegChannel, ...]) -> None:
        self.channels = channels
        self.on_channels()

    def _take_tick(self) -> None:
        self.ticks += 1
        self.on_tick()


@pytest.fixture(params=["ring", "loop"])
def stage(no_leaks: NoLeaks, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Everyone gets pictures through the ring, or each by a system call of its own."""
    monkeypatch.setattr(fanout, "_CROWD", 1 if request.param == "ring" else math.inf)
    with no_leaks():
        stage = Stage()
        yield stage
        stage.end()
    assert stage.deaths == []
    assert sorted(stage.left) == list(range(stage.joined)), "everyone leaves once"


@pytest.fixture
def strict(no_leaks: NoLeaks) -> Iterator[Stage]:
    """Whoever takes nothing for a moment is let go."""
    with no_leaks():
        stage = Stage(stuck_limit_s=0.1)
        yield stage
        stage.end()
    assert stage.deaths == []
    assert sorted(stage.left) == list(range(stage.joined))


# The wire


def test_every_byte_is_as_consumers_need_it(stage: Stage) -> None:
    watcher = stage.join()  # the first boundary came before any picture
    stage.fan.deliver(KEY, b"\xff\xd8one\xff\xd9", timestamp_s=1_700_000_000.25, made_s=1.0)
    stage.fan.deliver(KEY, b"\xff\xd8second\xff\xd9", timestamp_s=1_700_000_001.5, made_s=2.0)
    expected = (
        b"Content-Type: image/jpeg\r\nContent-Length: 7\r\nX-Timestamp: 1700000000.250000\r\n\r\n"
        b"\xff\xd8one\xff\xd9\r\n--frame\r\n"
        b"Content-Type: image/jpeg\r\nContent-Length: 10\r\nX-Timestamp: 1700000001.500000\r\n\r\n"
        b"\xff\xd8second\xff\xd9\r\n--frame\r\n"
    )
    assert watcher.read(len(expected)) == expected
    assert watcher.is_silent()


def test_the_content_type_announces_the_boundary() -> None:
    assert fanout.CONTENT_TYPE == "multipart/x-mixed-replace;boundary=frame"


def test_who_joins_sees_what_the_others_see(stage: Stage) -> None:
    first = stage.join()
    stage.deliver(b"now")
    assert first.picture() == b"now"
    assert stage.join().picture() == b"now"


def test_who_comes_and_goes_between_pictures_changes_who_gets_the_next(stage: Stage) -> None:
    here = [stage.join() for _ in range(3)]
    for number in range(6):
        stage.deliver(b"%d" % number, made_s=number)
        assert [watcher.picture() for watcher in here] == [b"%d" % number] * len(here)
        if number % 2:
            here.pop(0).close()
            eventually(lambda: stage.fan.viewers == len(here))
        else:
            here.append(stage.join())
            assert here[-1].picture() == b"%d" % number


def test_channels_are_told_and_kept_apart(stage: Stage) -> None:
    usual, small = stage.join(), stage.join(SMALL_KEY)
    assert {channel.key for channel in stage.channels} == {KEY, SMALL_KEY}
    stage.deliver(b"usual")
    stage.deliver(b"small", key=SMALL_KEY)
    stage.deliver(b"nobody's", key=JpegVariant(640, 10))
    assert (usual.picture(), small.picture()) == (b"usual", b"small")
    small.close()
    eventually(lambda: [channel.key for channel in stage.channels] == [KEY])
    assert stage.fan.viewers == 1
    assert usual.is_silent()


def test_viewers_with_one_wish_share_a_channel_and_the_bytes(stage: Stage) -> None:
    watchers = [stage.join() for _ in range(3)]
    (channel,) = stage.channels
    assert len(channel.viewers) == 3
    stage.deliver(b"for all")
    assert [watcher.picture() for watcher in watchers] == [b"for all"] * 3


def test_a_picture_that_is_late_is_left_out(stage: Stage) -> None:
    watcher = stage.join()
    for jpeg, made_s in ((b"second", 2.0), (b"first", 1.0), (b"third", 3.0)):
        stage.deliver(jpeg, made_s)
    assert watcher.picture() == b"second"
    assert watcher.picture() == b"third"


def test_what_viewers_say_means_nothing(stage: Stage) -> None:
    watcher = stage.join()
    watcher.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
    stage.deliver(b"still here")
    assert watcher.picture() == b"still here"


def test_who_says_more_than_any_buffer_holds_is_heard_to_the_end(stage: Stage) -> None:
    talker, quiet = stage.join(), stage.join()
    talker.socket.sendall(b"x" * (32 << 20))  # returns only when nearly all was taken
    stage.deliver(b"for both")
    assert (talker.picture(), quiet.picture()) == (b"for both", b"for both")
    talker.close()
    eventually(lambda: stage.left == [0], "that it is heard to leave")


# Slow viewers


def test_a_large_part_goes_out_in_pieces_and_arrives_whole(stage: Stage) -> None:
    watcher = stage.join(small_buffers=True)
    jpeg = os.urandom(LARGE)
    stage.deliver(jpeg)
    assert watcher.picture() == jpeg


def test_a_slow_viewer_finishes_its_part_and_goes_on_with_the_newest(stage: Stage) -> None:
    slow, quick = stage.join(small_buffers=True), stage.join()
    pictures = [bytes([number]) * LARGE for number in range(5)]
    for number, jpeg in enumerate(pictures):
        stage.deliver(jpeg, made_s=number)
        assert quick.picture() == jpeg  # whom the other one does not disturb
    assert slow.picture() == pictures[0]
    assert slow.picture() == pictures[-1]
    assert slow.is_silent()
    (channel,) = stage.channels
    viewers = list(channel.viewers)
    slow.close()
    quick.close()
    stage.wait_empty()
    assert sorted(viewer.skipped for viewer in viewers) == [0, 4]
    assert sorted(viewer.pictures for viewer in viewers) == [2, 5]


def test_a_stuck_viewer_costs_one_part_however_long_it_is_stuck(stage: Stage) -> None:
    stage.join(small_buffers=True)
    quick = stage.join()
    size = 400_000
    tracemalloc.start()
    try:
        for number in range(100):
            stage.deliver(number.to_bytes(2) * (size // 2), made_s=number)
            quick.picture()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 6 * size  # the stuck one's part, the channel's, and what the test holds


def test_who_was_stuck_and_takes_again_goes_on_by_itself(stage: Stage) -> None:
    """The kernel alone tells of room: no new picture comes that would make the loop look."""
    stuck = stage.join(small_buffers=True)
    for number in range(3):
        stage.deliver(bytes([number]) * LARGE, made_s=number)
    eventually(lambda: max(viewer.skipped for channel in stage.channels for viewer in channel.viewers) == 2)
    assert [stuck.picture()[0], stuck.picture()[0]] == [0, 2]
    assert stuck.is_silent()


def test_a_viewer_who_takes_nothing_is_let_go_and_the_others_stay(strict: Stage) -> None:
    idle = strict.join(SMALL_KEY)  # nothing is there for it: that is not its fault
    stuck = strict.join(small_buffers=True)
    strict.deliver(b"x" * LARGE)
    eventually(lambda: strict.left == [1], "that the stuck viewer is let go")
    assert len(stuck.rest()) < LARGE
    strict.deliver(b"hello", key=SMALL_KEY)
    assert idle.picture() == b"hello"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("deliver"), st.integers(0, 300_000)),
            st.tuples(st.just("read"), st.integers(1, 200_000)),
        ),
        max_size=30,
    )
)
def test_whatever_the_pace_parts_are_whole_and_rise(stage: Stage, steps: list[tuple[str, int]]) -> None:
    watcher = stage.join(small_buffers=True)
    received = b""
    number = 0
    for step, size in steps:
        if step == "deliver":
            number += 1
            stage.deliver(number.to_bytes(4) + b"-" * size, made_s=number)
        elif not watcher.is_silent():
            received += watcher.socket.recv(size)
    number += 1
    stage.deliver(number.to_bytes(4), made_s=number)
    watcher._buffer = received
    seen = [0]
    while seen[-1] != number:
        seen.append(int.from_bytes(watcher.picture()[:4]))
    assert all(earlier < later for earlier, later in pairwise(seen))
    watcher.close()
    stage.wait_empty()


# Leaving


@pytest.mark.parametrize("rudely", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("moment", ["before the first picture", "between pictures", "within a part"])
def test_ok_leaving_at_any_moment(stage: Stage, moment: str, rudely: bool) -> None:
    watcher = stage.join(small_buffers=True)
    if moment == "between pictures":
        stage.deliver(b"one")
        watcher.picture()
    elif moment == "within a part":
        stage.deliver(b"x" * LARGE)
        watcher.read(1000)
    watcher.close(rudely=rudely)
    stage.wait_empty()
    assert stage.left == [0]


def test_ok_left_before_it_was_added(stage: Stage) -> None:
    ours, theirs = connect()
    theirs.close()
    stage.add(ours)
    stage.wait_empty()
    assert stage.left == [0]


def test_ok_a_socket_that_is_no_more(stage: Stage) -> None:
    ours, theirs = connect()
    ours.close()
    stage.add(ours)
    eventually(lambda: stage.left == [0])
    assert stage.fan.viewers == 0
    theirs.close()


def test_ok_no_more_to_say(stage: Stage) -> None:
    """A viewer that shuts its writing side has left, as for every other server of streams."""
    watcher = stage.join()
    watcher.socket.shutdown(socket.SHUT_WR)
    assert watcher.rest() == b""


def test_without_rings_a_crowd_is_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(entries: int) -> None:
        raise PermissionError(1, f"no ring of {entries}")

    monkeypatch.setattr(fanout, "IoUringSender", refuse)
    monkeypatch.setattr(fanout, "_CROWD", 1)
    caplog.set_level(logging.INFO, logger="softcam")
    watchers = [stage.join() for _ in range(20)]
    for number in range(3):
        stage.deliver(b"%d" % number, made_s=number)
        assert [watcher.picture() for watcher in watchers] == [b"%d" % number] * 20
    assert [line for line in caplog.messages if "a system call of its own" in line] == [
        "Pictures go to each viewer by a system call of its own: [Errno 1] no ring of 256"
    ]


def test_a_ring_that_fails_is_given_up_and_its_viewers_let_go(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fanout, "_CROWD", 1)
    before = [stage.join() for _ in range(3)]
    stage.deliver(b"well", made_s=1)
    assert [watcher.picture() for watcher in before] == [b"well"] * 3
    with monkeypatch.context() as patched:
        patched.setattr(sockets, "_syscall", lambda _number, _descriptor, count, *_rest: count)
        stage.deliver(b"lost", made_s=2)
        assert [watcher.rest() for watcher in before] == [b""] * 3
        eventually(lambda: "the ring lost some" in caplog.text)
    after = stage.join()
    stage.deliver(b"found", made_s=3)
    assert after.picture() == b"found"


def test_the_ring_is_there_while_somebody_watches(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    def has_ring() -> bool:
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if "io_uring" in str(path.readlink()):
                    return True
        return False

    monkeypatch.setattr(fanout, "_CROWD", 2)
    for _ in range(2):
        watchers = [stage.join() for _ in range(2)]
        assert not has_ring()
        stage.deliver(b"well")
        assert [watcher.picture() for watcher in watchers] == [b"well"] * 2
        assert has_ring()
        for watcher in watchers:
            watcher.close()
        stage.wait_empty()
        eventually(lambda: not has_ring(), "that the ring is given back")


def test_five_hundred_come_and_go(stage: Stage, no_leaks: NoLeaks) -> None:
    stay = stage.join()
    stage.deliver(b"the first", made_s=0.5)
    assert stay.picture() == b"the first"
    with no_leaks():
        for number in range(1, 501):
            ours, theirs = connect()
            stage.add(ours, key=(KEY, SMALL_KEY)[number % 2], interval_s=(0.0, 1.0)[number % 3 == 0])
            watcher = Watcher(theirs)
            if number % 5:
                watcher.begin()
            if number % 4 == 0:
                stage.deliver(b"x" * 100_000, made_s=number)
                stay.picture()
            watcher.close(rudely=number % 7 == 0)
        eventually(lambda: len(stage.left) == 500, "that all left")
    assert stage.fan.viewers == 1
    stage.deliver(b"the last", made_s=501.0)
    assert stay.picture() == b"the last"


def test_a_descriptor_that_is_used_again_belongs_to_the_new_viewer(stage: Stage) -> None:
    may_go_on = threading.Event()
    is_held = threading.Event()
    leavers = [connect() for _ in range(2)]
    watchers: list[Watcher] = []
    reused: list[int] = []

    def hold() -> None:
        is_held.set()
        assert may_go_on.wait(PATIENCE_S)

    def come_at_once() -> None:  # on the loop's thread, between two events of one batch
        ours, theirs = connect()
        reused.append(ours.fileno())
        reused.append(theirs.fileno())
        stage.add(ours)
        watchers.append(Watcher(theirs))

    numbers = {ours.fileno() for ours, _ in leavers}
    for ours, theirs in leavers:
        stage.fan.add(StreamClient(ours, "192.0.2.2", KEY, 0.0, come_at_once))
        Watcher(theirs).begin()
    stage.on_channels = hold
    third = connect()
    stage.add(third[0])
    assert is_held.wait(PATIENCE_S)
    stage.on_channels = lambda: None
    for _, theirs in leavers:
        theirs.close()
    may_go_on.set()  # the loop now finds both departures in one batch
    eventually(lambda: len(watchers) == 2 and stage.fan.viewers == 3)
    assert numbers & set(reused), "a number was to be used again"
    stage.deliver(b"well")
    for watcher in (*watchers, Watcher(third[1])):
        assert watcher.begin().picture() == b"well"
        watcher.close()
    stage.wait_empty()


# Fewer pictures per second


class Clock:
    """Stands in for the module `time` in the fan-out."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fanout, "time", clock)
    return clock


def run_at(clock: Clock, limit_fps: float, period_s: float, jitters: list[float], *, alone: bool) -> tuple[float, int]:
    """Simulated seconds, and how many pictures a viewer with a limit got of a camera's, `alone` or with another one."""
    clock.now_s = start_s = 1000.0
    stage = Stage()
    limited = stage.join(interval_s=1 / limit_fps)
    if not alone:
        stage.join()
    (channel,) = stage.channels
    delivered = 0
    for number in range(len(jitters)):
        # What the encoders do: frames before `due_s` are left out.
        clock.now_s = start_s + (number + jitters[number]) * period_s
        if channel.due_s <= clock.now_s:
            delivered += 1
            stage.deliver(b"x", made_s=clock.now_s)
            eventually(lambda: channel.part_number == delivered)  # noqa: B023 - called at once
    stage.fan.stop(1000.0 + PATIENCE_S + len(jitters) * period_s)
    pictures = limited.rest().count(b"X-Timestamp")
    stage.end()
    assert stage.deaths == []
    return len(jitters) * period_s, pictures


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit_fps=st.floats(0.5, 60),
    camera_fps=st.sampled_from([5.0, 20.0, 30.0]),
    jitters=st.lists(st.floats(0, 0.3), min_size=120, max_size=120),
    alone=st.booleans(),
)
def test_a_limit_holds_on_average(
    clock: Clock, limit_fps: float, camera_fps: float, jitters: list[float], alone: bool
) -> None:
    duration_s, pictures = run_at(clock, limit_fps, 1 / camera_fps, jitters, alone=alone)
    expected = min(limit_fps, camera_fps) * duration_s
    # One at the start, and one that is made up for after a pause.
    assert pictures <= limit_fps * duration_s + 2
    assert pictures >= 0.95 * expected - 2


def test_the_camera_s_own_rate_as_the_limit_loses_no_pictures(clock: Clock) -> None:
    jitters = [0.1 * (number % 2) for number in range(200)]
    _, pictures = run_at(clock, 20.0, 0.05, jitters, alone=True)
    assert pictures >= 198


def test_the_first_picture_waits_for_no_interval(stage: Stage) -> None:
    watcher = stage.join(interval_s=3600.0)
    stage.deliver(b"at once", made_s=fanout.time.monotonic())
    assert watcher.picture() == b"at once"


def test_a_limited_viewer_who_joins_on_an_old_picture_gets_the_next_one(clock: Clock, stage: Stage) -> None:
    first = stage.join(interval_s=10.0)
    stage.deliver(b"old", made_s=clock.now_s)
    assert first.picture() == b"old"
    clock.now_s += 20.0
    second = stage.join(interval_s=10.0)
    assert second.picture() == b"old"
    (channel,) = stage.channels
    assert channel.due_s <= clock.now_s
    stage.deliver(b"new", made_s=clock.now_s)
    assert second.picture() == b"new"


def test_a_limited_viewer_who_is_slow_gets_no_more_than_its_due(clock: Clock, stage: Stage) -> None:
    slow = stage.join(interval_s=10.0, small_buffers=True)
    quick = stage.join()
    large = b"x" * LARGE
    for jpeg in (large, b"second", b"third"):
        clock.now_s += 0.1
        stage.deliver(jpeg, made_s=clock.now_s)
        assert quick.picture() == jpeg
    assert slow.picture() == large
    stage.deliver(b"fourth", made_s=clock.now_s)  # the loop has seen the end of the slow part when this is through
    assert quick.picture() == b"fourth"
    clock.now_s += 10.0
    stage.deliver(b"due", made_s=clock.now_s)
    assert slow.picture() == b"due"


def test_encoders_are_told_when_the_next_picture_is_wanted(clock: Clock, stage: Stage) -> None:
    watchers = [stage.join(interval_s=10.0), stage.join(interval_s=4.0)]
    (channel,) = stage.channels
    assert channel.due_s <= clock.now_s
    stage.deliver(b"x", made_s=clock.now_s)
    for watcher in watchers:
        watcher.picture()
    eventually(lambda: channel.due_s == clock.now_s + 4.0, "that the more frequent wish counts")
    stage.join()
    assert channel.due_s <= clock.now_s


# The loop's own life


def test_ticks_come_while_somebody_watches_and_else_the_loop_sleeps(strict: Stage) -> None:
    assert strict.ticks == 0
    assert strict.fan._timeout_s() is None
    watcher = strict.join()
    eventually(lambda: strict.ticks > 2, "some ticks")
    watcher.close()
    strict.wait_empty()
    assert strict.fan._timeout_s() is None


def test_the_first_tick_comes_with_the_first_viewer(stage: Stage) -> None:
    """Who comes while the camera is being brought back sees the placeholder at once."""
    stage.on_tick = lambda: stage.deliver(b"placeholder", made_s=2.0)
    assert stage.join().picture() == b"placeholder"


def test_stopping_with_two_hundred_viewers(no_leaks: NoLeaks) -> None:
    with no_leaks():
        stage = Stage()
        stage.deliver(b"nobody's")
        watchers = [stage.join(small_buffers=number % 10 == 0) for number in range(200)]
        stage.deliver(b"x" * LARGE)
        watchers[1].picture()
        stage.fan.stop(soon_s())
        assert stage.fan.viewers == 0
        assert sorted(stage.left) == list(range(200))
        for watcher in watchers:
            watcher.rest()
        stage.end()
    assert stage.deaths == []


def test_after_the_end_nothing_is_kept_and_nobody_is_poked(no_leaks: NoLeaks) -> None:
    with no_leaks():
        stage = Stage()
        number = stage.fan._wake
        assert number is not None
        reader, writer = os.pipe()
        stage.fan.stop(soon_s())
        os.dup2(writer, number)  # somebody else's descriptor now
        stage.deliver(b"too late")
        stage.fan.stop(soon_s())
        ours, theirs = connect()
        stage.add(ours)
        assert stage.left == [0]
        assert theirs.recv(1) == b""
        assert select.select([reader], [], [], 0)[0] == []
        for descriptor in (reader, writer, number):
            os.close(descriptor)
        theirs.close()


@pytest.mark.parametrize("trouble", ["on_channels", "on_tick"])
def test_what_a_callback_raises_ends_the_loop_loudly(no_leaks: NoLeaks, trouble: str) -> None:
    def fail() -> None:
        raise RuntimeError("a fault in the test")

    with no_leaks():
        stage = Stage(stuck_limit_s=0.05)
        watchers = [stage.join() for _ in range(3)]
        setattr(stage, trouble, fail)
        watchers[0].close()  # changes the channels; ticks come by themselves
        eventually(lambda: stage.deaths, "that the death is told")
        assert stage.deaths == ["thread fan-out crashed: RuntimeError: a fault in the test"]
        for watcher in watchers[1:]:
            assert watcher.rest() == b""
        stage.end()
    assert sorted(stage.left) == [0, 1, 2]
