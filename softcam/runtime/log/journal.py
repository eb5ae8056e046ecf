"""The log in systemd's journal: priorities of lines, and messages with a MESSAGE_ID. Any thread; nothing here waits.

A line on standard error can have a priority, but no MESSAGE_ID. So records of events are sent in the journal's native
protocol instead: one datagram each, with fields as lines (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
"""

import contextlib
import logging
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, TextIO

from softcam.runtime.log.events import event_of

SOCKET: Final = "/run/systemd/journal/socket"
_SOCKET_TYPE: Final = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_MAX_TEXT: Final = 16 * 1024  # characters of a message; a datagram has room for more than 64 KiB

# The priorities of syslog(3), which the journal reads from a <N> at the start of a line.
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class JournalFormatter(logging.Formatter):
    """Prefixes each line, including those of a traceback, with its priority; the journal adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _priority(record)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


class JournalHandler(logging.Handler):
    """Sends the records of events to the journal; passes on all others, and what it does not accept at once."""

    def __init__(self, otherwise: logging.Handler, identifier: str | None = None, path: str = SOCKET) -> None:
        """`otherwise` writes lines to standard error.

        `identifier` is the SyslogIdentifier= of the unit, under which the journal shows these lines.
        """
        super().__init__()
        self._otherwise = otherwise
        self._identifier = identifier
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        is_sent = False
        with contextlib.suppress(Exception):  # arguments that do not fit: the other handler reports that, too
            is_sent = self._send(record)
        if not is_sent:
            self._otherwise.handle(record)

    def _send(self, record: logging.LogRecord) -> bool:
        if (event := event_of(record)) is None:
            return False
        fields = {
            "MESSAGE": self.format(record)[:_MAX_TEXT],
            "MESSAGE_ID": event.value,
            "PRIORITY": str(_priority(record)),
            "SOFT_STREAM_EVENT": event.name,
        }
        if self._identifier is not None:
            fields["SYSLOG_IDENTIFIER"] = self._identifier
        data = b"".join(_encode(name, value) for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, _SOCKET_TYPE) as sender:
                sender.sendto(data, self._path)
        except OSError:  # there is no journal, it is stopped or busy, or this process has no descriptor left
            return False
        return True


def is_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is connected to the journal: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).

    A stream is None where its file descriptor was closed before the process started.
    """
    if stream is None:
        return False
    try:
        found: Any = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file descriptor, or a closed one
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _priority(record: logging.LogRecord) -> int:
    return next(number for level, number in _PRIORITIES if record.levelno >= level)


def _encode(name: str, value: str) -> bytes:
    """A field; one with a line break has its length in front."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
