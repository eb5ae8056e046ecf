"""Which connections wait for a request and for how long they may, and how many requests are being answered.

Every connection costs a thread, so there is a cap. A connection that only waits, idle or in the middle of a request
that does not come to its end, is closed when another one needs its place, the one that waits longest first; one that
is being answered is left alone. Nothing here knows HTTP; the threads are those of the server.
"""

import contextlib
import io
import socket
import threading
import time
from typing import Any


class Connections:
    """Called by the threads of requests, each for its own connection, and by the one that takes connections."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the fields below
        self._waiting: dict[socket.socket, None] = {}  # in the order in which they began to wait
        self._answering = 0

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        with self._changed:
            return self._answering

    def wait(self, connection: socket.socket) -> None:
        """From now on it waits for a request."""
        with self._changed:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def begin(self, connection: socket.socket) -> bool:
        """A whole request was read and is answered until `end`; False where the connection was closed before that."""
        with self._changed:
            if connection not in self._waiting:
                return False
            del self._waiting[connection]
            self._answering += 1
            return True

    def end(self) -> None:
        """A request was answered."""
        with self._changed:
            self._answering -= 1
            self._changed.notify_all()

    def forget(self, connection: socket.socket) -> None:
        """It is about to be closed by its own thread."""
        with self._changed:
            self._waiting.pop(connection, None)

    def close_oldest(self) -> bool:
        """End the connection that waits longest, whose thread then ends; False where none waits."""
        with self._changed:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            del self._waiting[oldest]
            # Under the lock, and it does not block: outside of it the descriptor could be another connection's by now.
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
            return True

    def wait_answered(self, deadline_s: float) -> bool:
        """Sleep until no request is being answered; False when the deadline (monotonic clock) came first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._answering, max(0.0, deadline_s - time.monotonic()))


class RequestReader(io.RawIOBase):
    """What a client sends, under one deadline for each whole request: a byte now and then does not put it off."""

    def __init__(self, connection: socket.socket, idle_limit_s: float, request_limit_s: float) -> None:
        self._connection = connection
        self._idle_limit_s = idle_limit_s
        self._request_limit_s = request_limit_s
        self._deadline_s: float | None = time.monotonic() + request_limit_s

    def expect_next(self) -> None:
        """The next byte begins another request."""
        self._deadline_s = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError past the deadline."""
        left_s = self._idle_limit_s
        if self._deadline_s is not None and (left_s := self._deadline_s - time.monotonic()) <= 0:
            raise TimeoutError("the request did not come to its end")
        self._connection.settimeout(left_s)
        received = self._connection.recv_into(buffer)
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._request_limit_s
        return received
