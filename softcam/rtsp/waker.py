"""Wakes a thread that waits in `poll`: an eventfd that any thread may signal."""

import contextlib
import os
import select
import threading
import time


class Waker:
    """Ends another thread's wait. A `wake` without a waiting thread ends the next wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _descriptor
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def wake(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> None:
        """Discard earlier wakes."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, deadline_s: float) -> None:
        """Sleep until `wake` or until the deadline (monotonic clock)."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
        self.drain()

    def close(self) -> None:
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1
