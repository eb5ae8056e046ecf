"""The lines of the log: from a record of `logging` to lines of printable text, and their form in files.

A line has no line break and no control character, whatever was logged, so that no text can pass for another line. Pure
functions; any thread.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_MESSAGE: Final = 2000  # characters
MAX_ID: Final = 2**50  # integers of JavaScript are exact up to 2**53
_MAX_RAW: Final = 8 * MAX_MESSAGE  # of a message that is searched for secrets
_TRACEBACK_HEAD: Final = 40  # lines of a long traceback: those of the first exception, and
_TRACEBACK_TAIL: Final = 80  # those of the last one
_CUT: Final = " … (cut)"
CONTINUED: Final = "| "  # in front of each line of a traceback
LEVELS: Final = {
    name: logging.getLevelNamesMapping()[name] for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
}
_MAX_LEVEL: Final = 100
MAX_NAME: Final = 100  # characters of a logger's or a thread's name
_MAX_TIME_S: Final = 2**33


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `id` increases with each line, also from run to run; `run` counts the starts of the portal."""

    id: int
    run: int
    time_s: float  # Unix time
    level: int
    logger: str
    thread: str
    text: str  # `2026-01-31 12:00:00,123 INFO Camera open`, in local time as on a terminal
    message_at: int  # where the message begins in the text

    @property
    def message(self) -> str:
        return self.text[self.message_at :]

    @property
    def level_name(self) -> str:
        return level_name(self.level)


def level_name(level: int) -> str:
    """The name of a level; of one in between, that of the next lower one."""
    return next((name for name, number in reversed(LEVELS.items()) if level >= number), "DEBUG")


def make_line(line_id: int, run: int, time_s: float, level: int, logger: str, thread: str, message: str) -> LogLine:
    """A line whose message is printable already."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))
    begin = f"{stamp},{int(time_s % 1 * 1000):03d} {level_name(level)} "
    return LogLine(line_id, run, time_s, level, logger, thread, begin + message, len(begin))


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """At most `limit` characters, with escapes in place of line breaks, control characters, lone surrogates …

    What was cut is replaced by a mark.
    """
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)
    is_cut = len(text) > limit or len(shown) > limit
    return shown[: limit - len(_CUT)] + _CUT if is_cut else shown


def messages_of(record: logging.LogRecord) -> list[str]:
    """The message of a record, then the lines of its traceback: raw text, except that no part is unboundedly long."""
    messages = [_bounded(_message_of(record))]
    for text in (_traceback_of(record), record.stack_info):
        if text:
            lines = text.split("\n")
            if len(lines) > _TRACEBACK_HEAD + _TRACEBACK_TAIL:
                omitted = len(lines) - _TRACEBACK_HEAD - _TRACEBACK_TAIL
                lines[_TRACEBACK_HEAD:-_TRACEBACK_TAIL] = [f"… ({omitted} lines omitted)"]
            messages += [CONTINUED + _bounded(line) for line in lines]
    return messages


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or that raise when converted
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{text} (cannot be formatted: {type(error).__name__})"


def _traceback_of(record: logging.LogRecord) -> str | None:
    if record.exc_text:  # another handler has formatted it
        return record.exc_text
    if not record.exc_info or record.exc_info[0] is None:
        return None
    try:
        return logging.Formatter().formatException(record.exc_info)
    except Exception as error:  # noqa: BLE001 - an exception that raises when converted
        return f"{record.exc_info[0].__name__} (cannot be formatted: {type(error).__name__})"


def _bounded(text: str) -> str:
    # Far above the limit of a line, so that no secret is cut in two that the line would show.
    return text if len(text) <= _MAX_RAW else text[:_MAX_RAW]


# --- in files: a JSON array per line, in ASCII


def encode(lines: Iterable[LogLine]) -> bytes:
    return b"".join(
        json.dumps([each.id, each.run, each.time_s, each.level, each.logger, each.thread, each.message]).encode()
        + b"\n"
        for each in lines
    )


def decode(content: bytes) -> Iterator[LogLine]:
    """The intact lines of a file, which may contain anything, with increasing numbers."""
    last_id = 0
    for text in content.split(b"\n"):
        try:
            line = _line_of(json.loads(text))
        except (ValueError, TypeError, RecursionError, OverflowError):
            continue
        if line.id > last_id:
            last_id = line.id
            yield line


def _line_of(fields: Any) -> LogLine:
    """Raises ValueError or TypeError unless the fields are those of a line."""
    line_id, run, time_s, level, logger, thread, message = fields
    for number, limit in ((line_id, MAX_ID), (run, MAX_ID), (level, _MAX_LEVEL)):
        if type(number) is not int or not 0 < number <= limit:
            raise ValueError("must be a number in range")
    if not isinstance(time_s, float | int) or not math.isfinite(time_s) or not 0 <= time_s < _MAX_TIME_S:
        raise ValueError("must be a time")
    if not (isinstance(logger, str) and isinstance(thread, str) and isinstance(message, str)):
        raise TypeError("must be text")
    logger, thread = printable(logger, MAX_NAME), printable(thread, MAX_NAME)
    return make_line(line_id, run, float(time_s), level, logger, thread, printable(message))
