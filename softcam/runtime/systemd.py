"""The service protocol of systemd: READY, STATUS, STOPPING, and watchdog pings.

A notification is a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)); without that variable nothing is
sent. `Watch` owns the thread `systemd`, which wakes at most once a second. Whether the process is healthy is decided by
a callback.
"""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from softcam.runtime.log.events import Event
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_POLL_S: Final = 1.0  # between two checks of the status line; each one wakes a processor that may run on a battery
_PINGS_PER_TIMEOUT: Final = 3  # one ping may be late and one may be lost
_SEND_TIMEOUT_S: Final = 1.0  # the queue of systemd is full only while systemd itself is busy


class Notifier:
    """Sends states to systemd. Any thread may use it. A state that cannot be sent is dropped and logged."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = ""  # where notifications are not sent
        if name.startswith(("@", "/")):
            # The name of an abstract socket starts with an at sign in place of the zero byte.
            self._address = f"\0{name[1:]}" if name.startswith("@") else name
        elif name:
            log.warning("NOTIFY_SOCKET must be a path or an abstract socket; systemd notifications are disabled")
        self.watchdog_s = _read_watchdog_s(environ) if self._address else None

    def __bool__(self) -> bool:
        """Whether notifications are sent."""
        return bool(self._address)

    def send(self, **states: object) -> None:
        """Send states, as in `send(READY=1, STATUS="closed")`. Line breaks in values are replaced by blanks."""
        if not self:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in states.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(_SEND_TIMEOUT_S)
                connection.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            log.warning("Failed to notify systemd (%s): %s", ", ".join(states), error)


def runtime_folder(environ: Mapping[str, str]) -> Path | None:
    """The first folder of `RUNTIME_DIRECTORY` (systemd.exec(5)).

    With `RuntimeDirectoryPreserve=yes`, as in our unit, it survives restarts and stops of the service, but no boot.
    """
    name = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(name) if name.startswith("/") else None


def _read_watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The watchdog timeout; None where systemd expects no pings. `WATCHDOG_PID` may name another process."""
    text, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if process and process != str(os.getpid()):
        return None
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


class Watch:
    """Reports the status and the health of a running service to systemd, from `start` until `stop`."""

    def __init__(self, notifier: Notifier, status: Callable[[], str], health_error: Callable[[], str | None]) -> None:
        """`status` returns the line that `systemctl status` shows; `health_error` returns None while healthy.

        Both are called on the thread of the watch. While one of them hangs no pings are sent, as intended.
        """
        self._notifier = notifier
        self._status = status
        self._health_error = health_error
        self._stopping = threading.Event()

    def start(self, on_crash: Callable[[str], None]) -> None:
        """Send READY and start the thread; does nothing without a notification socket."""
        if not self._notifier:
            return
        self._notifier.send(READY=1, STATUS=self._status())
        spawn("systemd", self._run, on_crash)

    def stop(self, status: str) -> None:
        """Send STOPPING with a last status; does not wait for the thread."""
        self._stopping.set()
        self._notifier.send(STOPPING=1, STATUS=status)

    def _run(self) -> None:
        ping_interval_s = (self._notifier.watchdog_s or math.inf) / _PINGS_PER_TIMEOUT
        poll_s = min(_POLL_S, ping_interval_s)
        next_ping_s = math.inf if self._notifier.watchdog_s is None else time.monotonic()
        sent_status = ""
        error: str | None = None
        while not self._stopping.wait(poll_s):
            status = self._status()
            if status != sent_status and not self._stopping.is_set():
                self._notifier.send(STATUS=status)
                sent_status = status
            if time.monotonic() < next_ping_s:
                continue
            next_ping_s = time.monotonic() + ping_interval_s
            previous, error = error, self._health_error()
            if error is None:
                self._notifier.send(WATCHDOG=1)
                if previous is not None:
                    log.info("Health check passed again")
            elif previous is None and not self._stopping.is_set():
                log.error("Health check failed, withholding watchdog ping: %s", error, extra=Event.STUCK.extra)
