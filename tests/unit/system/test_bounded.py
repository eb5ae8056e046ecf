"""A read that hangs costs its caller no more than the deadline, and one thread."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from softcam.runtime.deadline import Deadline
from softcam.system.bounded import BoundedRead
from tests.support.background import soon
from tests.support.timeouts import PATIENCE_S


def test_value(no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    with no_leaks():
        values = iter((1, None, 3))
        bounded = BoundedRead("test read", values.__next__)
        assert bounded.value(soon()) is None
        for expected in (1, None, 3):
            bounded.start_read()
            assert bounded.value(soon()) == expected


def test_hanging_read() -> None:
    may_return = threading.Event()
    calls = []

    def read() -> int:
        calls.append(threading.current_thread())
        assert may_return.wait(PATIENCE_S)
        return len(calls)

    bounded = BoundedRead("test read", read)
    for _ in range(3):
        bounded.start_read()
        assert bounded.value(Deadline.after(0.001)) is None
    may_return.set()
    calls[0].join(PATIENCE_S)
    assert len(calls) == 1
    bounded.start_read()
    assert bounded.value(soon()) == 2


def test_absent() -> None:
    bounded = BoundedRead("test read", lambda: 1, is_present=lambda: False)
    bounded.start_read()
    assert bounded.value(soon()) is None


def test_crash_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> int:
        raise ZeroDivisionError

    bounded = BoundedRead("test read", read)
    bounded.start_read()
    assert bounded.value(soon()) is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
