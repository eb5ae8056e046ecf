"""Wakes a thread that waits for a socket or a moment: an eventfd that any thread may signal."""

import math
import os
import select
import socket
import time
import weakref


class Waker:
    """Ends another thread's wait. A `wake` without a waiting thread ends the next wait."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)

    def wake(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def wait(self, deadline_s: float, connection: socket.socket | None = None, events: int = 0) -> bool:
        """Sleep until `wake`, an event of a socket, or the deadline (monotonic clock); whether there was an event."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if connection is not None:
            poll.register(connection, events)
        # poll counts in whole milliseconds: round up, to avoid waking twice.
        ready = dict(poll.poll(math.ceil(max(0.0, deadline_s - time.monotonic()) * 1000)))
        if ready.pop(self._descriptor, 0):
            os.eventfd_read(self._descriptor)
        return bool(ready)
