"""The death of a long thread is told, its end is not."""

import logging
import threading

import pytest

from softcam.runtime.threads import spawn


def ended(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


def test_end_is_no_death() -> None:
    deaths: list[str] = []
    seen: list[str] = []
    thread = spawn("scribe", lambda: seen.append(threading.current_thread().name), deaths.append)
    assert ended(thread)
    assert thread.daemon
    assert seen == ["scribe"]
    assert deaths == []


@pytest.mark.parametrize("trouble", [ValueError("no such frame"), SystemExit("a hook left")])
def test_death_is_told_with_its_traceback(trouble: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    deaths: list[str] = []

    def run() -> None:
        raise trouble

    with caplog.at_level(logging.ERROR):
        assert ended(spawn("scribe", run, deaths.append))
    assert deaths == [f"thread scribe died: {type(trouble).__name__}: {trouble}"]
    assert "Thread scribe died" in caplog.text
    assert "in run" in caplog.text
