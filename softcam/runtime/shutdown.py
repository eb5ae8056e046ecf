"""The reasons to shut down, from signals and from components; the main thread waits here for the first one.

Not a plain queue: a signal that arrives while the process is stopped (SIGSTOP) may be handled by any thread when the
process continues, and does not wake a main thread that waits for a lock. A byte in a pipe does: `signal.set_wakeup_fd`
writes it from whichever thread handles the signal.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Final

from softcam.errors import PortalError

ShutdownReason = PortalError | signal.Signals

_DRAIN_BYTES: Final = 4096


class ShutdownSignal:
    """A queue of shutdown reasons. `request` may be called by any thread and in a signal handler."""

    def __init__(self) -> None:
        self._reasons: SimpleQueue[ShutdownReason] = SimpleQueue()
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def install_handlers(self, signals: Iterable[signal.Signals]) -> None:
        """Make each of these signals a reason to shut down. Only the main thread may call this."""
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda received, _: self.request(signal.Signals(received)))

    def request(self, reason: ShutdownReason) -> None:
        self._reasons.put(reason)
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes the reader, too
            os.write(self._write_fd, b"\0")

    def wait(self, timeout_s: float | None = None) -> ShutdownReason | None:
        """Remove and return the oldest reason; None after `timeout_s` without one."""
        while True:
            try:
                return self._reasons.get_nowait()
            except Empty:
                pass
            if not select.select([self._read_fd], [], [], timeout_s)[0]:
                return None
            os.read(self._read_fd, _DRAIN_BYTES)
