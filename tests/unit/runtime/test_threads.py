"""A crash of a thread is reported, a normal end is not."""

import logging
import threading

import pytest

from softcam.runtime.threads import spawn
from tests.support.timeouts import PATIENCE_S


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_normal_end_is_not_reported() -> None:
    crashes: list[str] = []
    seen: list[str] = []
    thread = spawn("worker", lambda: seen.append(threading.current_thread().name), crashes.append)
    assert ended(thread)
    assert thread.daemon
    assert seen == ["worker"]
    assert crashes == []


@pytest.mark.parametrize("error", [ValueError("no such frame"), SystemExit("a hook left")])
def test_crash_is_reported_and_logged_with_traceback(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[str] = []

    def run() -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        assert ended(spawn("worker", run, crashes.append))
    assert crashes == [f"thread worker crashed: {type(error).__name__}: {error}"]
    assert "Thread worker crashed" in caplog.text
    assert "in run" in caplog.text
