"""Tracks which connections are waiting for a request, and how many requests are being answered.

Every connection costs a thread, so their number is limited. A connection that is waiting, idle or in the middle of an
incomplete request, may be evicted when another one needs its thread, the longest waiting first. A connection whose
request is being answered is never evicted. Nothing here knows HTTP; the threads are the server's.
"""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from softcam.runtime.address import client_network
from softcam.runtime.deadline import Deadline

QUIET_S: Final = 1.0


class Connections:
    """Called by the request threads, each for its own connection, and by the accepting thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the fields below
        self._waiting: dict[socket.socket, str] = {}  # with the address of the client; the longest waiting first
        self._answering = 0

    @property
    def answering(self) -> int:
        with self._changed:
            return self._answering

    def mark_waiting(self, connection: socket.socket, address: str) -> None:
        """The connection of a client at this address waits for a request from now on."""
        with self._changed:
            self._waiting.pop(connection, None)
            self._waiting[connection] = client_network(address)

    def start_response(self, connection: socket.socket) -> bool:
        """A request was read completely and is answered until `finish_response`; False if it was evicted before."""
        with self._changed:
            if connection not in self._waiting:
                return False
            del self._waiting[connection]
            self._answering += 1
            return True

    def finish_response(self) -> None:
        with self._changed:
            self._answering -= 1
            self._changed.notify_all()

    def remove(self, connection: socket.socket) -> None:
        """The connection is about to be closed by its thread."""
        with self._changed:
            self._waiting.pop(connection, None)

    def close_oldest(self, address: str | None = None) -> bool:
        """Shut down the longest waiting connection, whose thread then ends; False if none is waiting.

        With an `address`, only one of the clients there.
        """
        network = None if address is None else client_network(address)
        with self._changed:
            oldest = next((each for each, other in self._waiting.items() if network in (None, other)), None)
            if oldest is None:
                return False
            del self._waiting[oldest]
            # With the lock held, and without blocking: later the descriptor could belong to another connection.
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
            return True

    def wait_answered(self, deadline: Deadline) -> bool:
        """Wait until no request is being answered; False if the deadline passes first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._answering, deadline.remaining_s)


class RequestReader(io.RawIOBase):
    """Reads from a socket with one deadline per request: a client cannot extend it by sending byte after byte."""

    def __init__(
        self, connection: socket.socket, idle_timeout_s: float, request_timeout_s: float, on_quiet: Callable[[], None]
    ) -> None:
        """`on_quiet` is called when the next request has not begun for `QUIET_S`."""
        self._connection = connection
        self._idle_timeout_s = idle_timeout_s
        self._request_timeout_s = request_timeout_s
        self._on_quiet = on_quiet
        self._deadline_s: float | None = time.monotonic() + request_timeout_s
        self._has_begun = False
        self.has_timed_out = False  # in the middle of a request

    def expect_next(self) -> None:
        """The next byte starts another request."""
        self._deadline_s = None
        self._has_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError when the deadline has passed."""
        try:
            if self._deadline_s is None:
                received = self._receive_next(buffer)
            else:
                received = self._receive(buffer, self._deadline_s - time.monotonic())
        except TimeoutError:
            self.has_timed_out = self._has_begun
            raise
        self._has_begun = True
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._request_timeout_s
        return received

    def _receive_next(self, buffer: Any) -> int:
        quiet_s = min(QUIET_S, self._idle_timeout_s / 2)
        with contextlib.suppress(TimeoutError):
            return self._receive(buffer, quiet_s)
        self._on_quiet()
        return self._receive(buffer, self._idle_timeout_s - quiet_s)

    def _receive(self, buffer: Any, timeout_s: float) -> int:
        if timeout_s <= 0:
            raise TimeoutError("timed out reading the request")
        self._connection.settimeout(timeout_s)
        return self._connection.recv_into(buffer)
