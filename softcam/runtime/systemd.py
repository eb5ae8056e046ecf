"""What a service tells systemd: that it is ready, how it is, that it is well, and how grave a line of its log is.

The protocol is a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)); without one nothing is done.
`Watch` has the thread `systemd`, which looks once a second at most. What "well" means is for its owner to say.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO

from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0  # how often the status line is looked at; each look wakes the processor of a battery's owner
_PINGS: Final = 3  # in the time that systemd allows between two: one may come late and one get lost
_SEND_LIMIT_S: Final = 1.0  # systemd's queue is full only while it is busy with itself

# The priorities of syslog(3), which the journal takes from a <N> at the beginning of a line.
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class Notifier:
    """Sends states to systemd; any thread may. A state that cannot be sent is lost, and said in the log."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with an at sign in place of the zero byte.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._is_usable = name.startswith(("@", "/"))
        if name and not self._is_usable:
            log.warning("NOTIFY_SOCKET is neither a path nor abstract: systemd is told nothing")
        self.watchdog_s = _watchdog_s(environ) if self._is_usable else None

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return self._is_usable

    def send(self, **states: object) -> None:
        """`send(READY=1, STATUS="closed")`; values are one line each."""
        if not self._is_usable:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in states.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(_SEND_LIMIT_S)
                connection.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", " and ".join(states), error)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long systemd waits between two pings; None where it does not. `WATCHDOG_PID` may name another process."""
    text, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if process and process != str(os.getpid()):
        return None
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


class Watch:
    """Keeps systemd's view of a running service up to date, from `start` until `stop`."""

    def __init__(self, notifier: Notifier, status: Callable[[], str], trouble: Callable[[], str | None]) -> None:
        """`status` gives the line that `systemctl status` shows. `trouble` says what is wrong, None where all is well.

        Both are called on the watch's own thread. Where one of them hangs, pings stop, as they should.
        """
        self._notifier = notifier
        self._status = status
        self._trouble = trouble
        self._stopping = threading.Event()

    def start(self, on_crash: Callable[[str], None]) -> None:
        """Say READY, and watch from now on."""
        if not self._notifier:
            return
        self._notifier.send(READY=1, STATUS=self._status())
        spawn("systemd", self._run, on_crash)

    def stop(self, status: str) -> None:
        """Say STOPPING, and with what status; does not wait."""
        self._stopping.set()
        self._notifier.send(STOPPING=1, STATUS=status)

    def _run(self) -> None:
        watchdog_s = self._notifier.watchdog_s
        ping_every_s = None if watchdog_s is None else watchdog_s / _PINGS
        look_s = _LOOK_S if ping_every_s is None else min(_LOOK_S, ping_every_s)
        said = ""
        complaint: str | None = None
        ping_at_s = time.monotonic()
        while not self._stopping.wait(look_s):
            status = self._status()
            if status != said and not self._stopping.is_set():
                self._notifier.send(STATUS=status)
                said = status
            if ping_every_s is None or time.monotonic() < ping_at_s:
                continue
            ping_at_s = time.monotonic() + ping_every_s
            before, complaint = complaint, self._trouble()
            if complaint is None:
                self._notifier.send(WATCHDOG=1)
                if before is not None:
                    log.info("All is well again")
            elif before is None and not self._stopping.is_set():
                log.error("Not well, and systemd is not told otherwise: %s", complaint)


class JournalFormatter(logging.Formatter):
    """Puts the priority at the beginning of each line, of a traceback's lines too; the journal adds the time."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


def is_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether `stream` leads to the journal, by the device and inode that `JOURNAL_STREAM` names (systemd.exec(5)).

    None is what Python has for a stream that was closed when it started.
    """
    if stream is None:
        return False
    try:
        seen: Any = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it, or a closed one
        return False
    return environ.get("JOURNAL_STREAM") == f"{seen.st_dev}:{seen.st_ino}"
