"""`softcam.runtime.deadline` with a clock that only the test moves."""

import math
import time

import pytest

from softcam.runtime.deadline import Deadline


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_remaining_time(clock: Clock) -> None:
    deadline = Deadline.after(3.0, clock)
    assert (deadline.at_s, deadline.remaining_s, deadline.is_expired) == (103.0, 3.0, False)
    clock.now_s = 102.5
    assert (deadline.remaining_s, deadline.is_expired) == (0.5, False)
    clock.now_s = 103.0
    assert (deadline.remaining_s, deadline.is_expired) == (0.0, True)
    clock.now_s = 110.0
    assert (deadline.remaining_s, deadline.is_expired) == (0.0, True)


def test_deadline_that_never_expires(clock: Clock) -> None:
    deadline = Deadline(math.inf, clock)
    assert (deadline.remaining_s, deadline.is_expired) == (math.inf, False)


def test_within(clock: Clock) -> None:
    deadline = Deadline.after(5.0, clock)
    assert deadline.within(2.0).at_s == 102.0
    assert deadline.within(9.0) == deadline.within(math.inf) == deadline


def test_default_clock_is_monotonic() -> None:
    before_s = time.monotonic()
    assert before_s + 5 <= Deadline.after(5.0).at_s <= time.monotonic() + 5
