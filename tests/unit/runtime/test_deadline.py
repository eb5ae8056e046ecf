"""`softcam.runtime.deadline` with a clock that only the test moves."""

import math
import threading
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
    assert (deadline.at_s, deadline.remaining_s, deadline.timeout_s, deadline.is_expired) == (103.0, 3.0, 3.0, False)
    clock.now_s = 102.5
    assert (deadline.remaining_s, deadline.is_expired) == (0.5, False)
    clock.now_s = 103.0
    assert (deadline.remaining_s, deadline.is_expired) == (0.0, True)
    clock.now_s = 110.0
    assert (deadline.remaining_s, deadline.timeout_s, deadline.is_expired) == (0.0, 0.0, True)


def test_deadline_that_never_expires(clock: Clock) -> None:
    deadline = Deadline.after(None, clock)
    assert (deadline.remaining_s, deadline.timeout_s, deadline.is_expired) == (math.inf, None, False)


def test_earlier_of_two(clock: Clock) -> None:
    early, late, never = Deadline.after(1.0, clock), Deadline.after(2.0, clock), Deadline.after(None, clock)
    assert early.earlier(late) is early
    assert late.earlier(early) is early
    assert never.earlier(late) is late


def test_within(clock: Clock) -> None:
    deadline = Deadline.after(5.0, clock)
    assert deadline.within(2.0).at_s == 102.0
    assert deadline.within(9.0) is deadline


def test_default_clock_is_monotonic() -> None:
    before_s = time.monotonic()
    assert before_s + 5 <= Deadline.after(5.0).at_s <= time.monotonic() + 5


def test_wait_for_true_predicate() -> None:
    condition = threading.Condition()
    values = iter([False, False, True])

    def is_done() -> bool:
        # Runs with the condition held, as `Condition.wait_for` does it; wakes the wait that follows.
        threading.Thread(target=notify).start()
        return next(values)

    def notify() -> None:
        with condition:
            condition.notify_all()

    with condition:
        assert Deadline.after(None).wait_for(condition, is_done)


def test_wait_for_until_deadline(clock: Clock) -> None:
    condition = threading.Condition()
    calls = 0

    def is_done() -> bool:
        nonlocal calls
        calls += 1
        return False

    with condition:
        assert not Deadline(clock.now_s + 0.01, clock).wait_for(condition, is_done)
    assert calls == 2  # before the wait and after it


def test_wait_for_evaluates_predicate_after_deadline(clock: Clock) -> None:
    condition = threading.Condition()
    with condition:
        assert Deadline(clock.now_s - 1, clock).wait_for(condition, lambda: True)
        assert not Deadline(clock.now_s - 1, clock).wait_for(condition, lambda: False)
