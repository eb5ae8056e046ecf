"""`FanOut`: clients with a limited frame rate, with a clock that only the test moves."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcam.net.io_uring import BatchSender
from tests.support.background import eventually, soon
from tests.support.stream_clients import LARGE, Stage
from tests.unit.streaming.conftest import NoLeaks, check


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stage(no_leaks: NoLeaks, sender: BatchSender, clock: Clock) -> Iterator[Stage]:
    with no_leaks():
        stage = Stage(sender=sender, clock=clock)
        yield stage
        stage.stop()
    check(stage)


def run_at(clock: Clock, limit_fps: float, period_s: float, jitters: list[float], *, alone: bool) -> tuple[float, int]:
    """(simulated seconds, frames that a limited client received), `alone` or beside a client without a limit."""
    clock.now_s = start_s = 1000.0
    stage = Stage(clock=clock)
    limited = stage.connect(interval_s=1 / limit_fps)
    if not alone:
        stage.connect()
    (channel,) = stage.channels
    published = 0
    for number in range(len(jitters)):
        # As the encoders do: frames before `due_s` are dropped.
        clock.now_s = start_s + (number + jitters[number]) * period_s
        if channel.due_s <= clock.now_s:
            published += 1
            stage.publish(b"x", made_s=clock.now_s)
            eventually(lambda: channel.part_number == published)  # noqa: B023 - called at once
    stage.loop.stop(soon())
    frames = limited.read_rest().count(b"X-Timestamp")
    stage.stop()
    assert stage.crashes == []
    return len(jitters) * period_s, frames


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit_fps=st.floats(0.5, 60),
    camera_fps=st.sampled_from([5.0, 20.0, 30.0]),
    jitters=st.lists(st.floats(0, 0.3), min_size=120, max_size=120),
    alone=st.booleans(),
)
def test_average_frame_rate_with_limit(
    clock: Clock, limit_fps: float, camera_fps: float, jitters: list[float], alone: bool
) -> None:
    duration_s, frames = run_at(clock, limit_fps, 1 / camera_fps, jitters, alone=alone)
    expected = min(limit_fps, camera_fps) * duration_s
    # One at the start, and one that makes up for a pause.
    assert frames <= limit_fps * duration_s + 2
    assert frames >= 0.95 * expected - 2


def test_limit_equal_to_camera_rate_drops_no_frames(clock: Clock) -> None:
    jitters = [0.1 * (number % 2) for number in range(200)]
    _, frames = run_at(clock, 20.0, 0.05, jitters, alone=True)
    assert frames >= 198


def test_first_frame_is_sent_at_once(clock: Clock, stage: Stage) -> None:
    reader = stage.connect(interval_s=3600.0)
    stage.publish(b"at once", made_s=clock.now_s)
    assert reader.read_jpeg() == b"at once"


def test_limited_client_that_starts_with_old_jpeg_gets_next_one(clock: Clock, stage: Stage) -> None:
    first = stage.connect(interval_s=10.0)
    stage.publish(b"old", made_s=clock.now_s)
    assert first.read_jpeg() == b"old"
    clock.now_s += 20.0
    second = stage.connect(interval_s=10.0)
    assert second.read_jpeg() == b"old"
    (channel,) = stage.channels
    assert channel.due_s <= clock.now_s
    stage.publish(b"new", made_s=clock.now_s)
    assert second.read_jpeg() == b"new"


def test_slow_limited_client_gets_no_frame_early(clock: Clock, stage: Stage) -> None:
    slow = stage.connect(interval_s=10.0, small_buffers=True)
    fast = stage.connect()
    large = b"x" * LARGE
    for jpeg in (large, b"second", b"third"):
        clock.now_s += 0.1
        stage.publish(jpeg, made_s=clock.now_s)
        assert fast.read_jpeg() == jpeg
    assert slow.read_jpeg() == large
    stage.publish(b"fourth", made_s=clock.now_s)  # when this has arrived, the loop has completed the slow part
    assert fast.read_jpeg() == b"fourth"
    clock.now_s += 10.0
    stage.publish(b"due", made_s=clock.now_s)
    assert slow.read_jpeg() == b"due"


def test_channel_is_due_for_the_most_frequent_client(clock: Clock, stage: Stage) -> None:
    readers = [stage.connect(interval_s=10.0), stage.connect(interval_s=4.0)]
    (channel,) = stage.channels
    assert channel.due_s <= clock.now_s
    stage.publish(b"x", made_s=clock.now_s)
    for reader in readers:
        reader.read_jpeg()
    eventually(lambda: channel.due_s == clock.now_s + 4.0, "that the shorter interval counts")
    stage.connect()
    assert channel.due_s <= clock.now_s
