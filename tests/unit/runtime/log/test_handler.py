"""`LogHandler`: never raises, never blocks, keeps secrets out, also of tracebacks."""

import logging
import sys
import threading
from typing import Any

import pytest

from softcam.runtime.log.handler import LogHandler
from softcam.runtime.redact import Redactor

KEY = "a-key-that-nobody-guesses"


class Lines:
    """What the handler passes on. Records are passed to it directly: handlers of pytest raise."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.records: list[tuple[int, str, str]] = []
        self.handler = LogHandler(self._on_lines)

    def log(self, message: object, *args: object, level: int = logging.INFO, exc_info: Any = None) -> None:
        self.handler.handle(logging.LogRecord("test.log_handler", level, __file__, 1, message, args, exc_info))

    def _on_lines(self, time_s: float, level: int, logger: str, thread: str, messages: list[str]) -> None:
        self.messages += messages
        self.records.append((level, logger, thread))


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_record(lines: Lines) -> None:
    lines.log("Camera %s", "open", level=logging.WARNING)
    assert lines.messages == ["Camera open"]
    assert lines.records == [(logging.WARNING, "test.log_handler", threading.current_thread().name)]


def test_line_breaks_are_escaped(lines: Lines) -> None:
    lines.log("%s", "one\n2026-01-31 12:00:00,000 ERROR two\0\udcff")
    assert lines.messages == ["one\\n2026-01-31 12:00:00,000 ERROR two\\x00\\udcff"]


@pytest.mark.parametrize(
    "text",
    [
        f"key {KEY} in words",
        f"GET /stream.mjpg?key={KEY} HTTP/1.1",
        f"/stream.mjpg?fps=5&key={KEY}",
        f"X-API-Key: {KEY}",
        f"Authorization: Bearer {KEY}",
        f"Publishing to rtsp://user:{KEY}@10.0.0.2/cam failed",
        f"'rtsp://user:{KEY}/with@sign@10.0.0.2/cam': Server returned 401 Unauthorized",
        f"http://10.0.0.2/user=admin&password={KEY}&channel=1",
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_secrets_are_removed(lines: Lines, text: str, is_known: bool) -> None:
    if is_known:
        lines.handler.hide(Redactor([KEY]))
    elif text.startswith("key"):
        return  # a key in the middle of words has to be known
    lines.log("%s", text)
    try:
        raise RuntimeError(text) from ValueError(text)
    except RuntimeError:
        lines.log("Failed", exc_info=sys.exc_info())
    assert len(lines.messages) > 6
    assert [message for message in lines.messages if KEY in message or KEY[:-2] in message] == []
    assert "***" in lines.messages[0]
    assert "***" in lines.messages[-1]


def test_secret_at_the_end_of_a_long_line(lines: Lines) -> None:
    lines.handler.hide(Redactor([KEY]))
    for length in range(1970, 2010):
        lines.log("x" * length + f" {KEY} " + "y" * 5000)
    assert [message for message in lines.messages if KEY[:4] in message] == []


def test_unprintable_argument(lines: Lines) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ZeroDivisionError

        __repr__ = __str__

    lines.log("%s", Bad())
    lines.log(Bad())
    lines.log("%d", "x")
    assert lines.messages == [
        "%s (cannot be formatted: ZeroDivisionError)",
        "Bad (cannot be formatted: ZeroDivisionError)",
        "%d (cannot be formatted: TypeError)",
    ]


@pytest.mark.parametrize("field", ["name", "threadName", "created", "levelno"])
def test_damaged_record(lines: Lines, field: str) -> None:
    record = logging.LogRecord("test", 20, __file__, 1, "text", (), None)
    setattr(record, field, None)
    lines.handler.handle(record)  # does not raise
    lines.log("next")
    assert lines.messages[-1] == "next"


def test_receiver_that_fails() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    handler = LogHandler(fail)
    for _ in range(2):
        handler.handle(logging.LogRecord("test", 20, __file__, 1, "text", (), None))


def test_line_that_is_logged_within_a_line(lines: Lines) -> None:
    """As by a destructor, which the garbage collector may run anywhere: afterwards, and in order."""

    class Logs:
        def __init__(self, depth: int) -> None:
            self.depth = depth

        def __str__(self) -> str:
            if self.depth:
                lines.log("within %s", Logs(self.depth - 1))
            return f"depth {self.depth}"

    lines.log("outer %s", Logs(2))
    assert lines.messages == ["outer depth 2", "within depth 1", "within depth 0"]
