"""`softcam.runtime.log_limit` with a clock that only the test moves."""

import logging
import math

import pytest

from softcam.runtime.log_limit import RateLimitedLogger

LOGGER = logging.getLogger("test.log_limit")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_first_message_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    RateLimitedLogger(LOGGER, clock=Clock()).error("Failed to encode %s: %s", "frame", "broken")
    assert caplog.messages == ["Failed to encode frame: broken"]
    assert caplog.records[0].levelno == logging.ERROR


def test_repeated_messages_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = RateLimitedLogger(LOGGER, 10.0, clock=clock)
    for second in range(22):
        clock.now_s = float(second)
        limited.warning("broken at %d", second)
    assert caplog.messages == ["broken at 0", "broken at 10 (9 more suppressed)", "broken at 20 (9 more suppressed)"]


def test_message_after_a_quiet_interval_has_no_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = RateLimitedLogger(LOGGER, 10.0, clock=clock)
    limited.error("broken")
    clock.now_s = 11.0
    limited.error("broken")
    assert caplog.messages == ["broken", "broken"]


def test_only_the_first_line_has_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = RateLimitedLogger(LOGGER, 10.0, clock=clock)
    limited.error("broken", exc_info=ValueError("x"))
    clock.now_s = 10.0
    limited.error("broken", exc_info=ValueError("y"))
    assert [record.exc_info is not None for record in caplog.records] == [True, False]


def test_reset(caplog: pytest.LogCaptureFixture) -> None:
    limited = RateLimitedLogger(LOGGER, math.inf, clock=Clock())
    limited.error("one")
    limited.error("two")
    limited.reset()
    limited.error("three", exc_info=ValueError("x"))
    assert caplog.messages == ["one", "three"]
    assert caplog.records[1].exc_info is not None


def test_caller_learns_whether_a_message_was_logged() -> None:
    clock = Clock()
    limited = RateLimitedLogger(LOGGER, 10.0, clock=clock)
    assert [limited.warning("broken"), limited.error("broken")] == [True, False]
    clock.now_s = 10.0
    assert limited.warning("broken")
