"""Why the process is to end: the main thread waits here for the first reason, a signal's or a part's.

Not a plain queue: a signal that comes while the process is stopped may be taken by any thread when it goes on, and does
not wake a main thread that waits for a lock. A byte in a pipe does: `signal.set_wakeup_fd` writes it from whichever
thread took the signal.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Final

from softcam.errors import PortalError

End = PortalError | signal.Signals

_DRAIN_BYTES: Final = 4096


class ShutdownSignal:
    """The reasons in their order. `put` may be called by any thread and in a signal's handler."""

    def __init__(self) -> None:
        self._reasons: SimpleQueue[End] = SimpleQueue()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def hear(self, signals: Iterable[signal.Signals]) -> None:
        """From now on these signals are reasons. For the main thread alone."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda received, _: self.put(signal.Signals(received)))

    def put(self, end: End) -> None:
        """There is a reason to end."""
        self._reasons.put(end)
        with contextlib.suppress(BlockingIOError):  # full: it wakes whoever waits in any case
            os.write(self._write, b"\0")

    def wait(self, timeout_s: float | None = None) -> End | None:
        """The first reason that nobody took; None when there was none in time."""
        while True:
            try:
                return self._reasons.get_nowait()
            except Empty:
                pass
            if not select.select([self._read], [], [], timeout_s)[0]:
                return None
            os.read(self._read, _DRAIN_BYTES)
