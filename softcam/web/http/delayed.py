"""Responses that are sent by the event loop, so that no thread waits: those to wrong keys, after a delay, and those to
connections that get no thread.

Each costs a descriptor and its bytes until it is closed. Their number is limited.
"""

import contextlib
import socket
import threading
from functools import partial
from typing import Final

from softcam.net import sockets
from softcam.net.event_loop import EventLoop

_MAX_DELAYED: Final = 64
_MAX_REJECTED: Final = 64
_LAST_RESPONSE_S: Final = 1.0  # for the client to read it


class DelayedResponses:
    """Owns the connections of delayed responses, and closes them afterwards, or when the loop ends."""

    def __init__(self, loop: EventLoop, max_delayed: int = _MAX_DELAYED) -> None:
        """Before the loop is started."""
        self._loop = loop
        self._delayed = threading.BoundedSemaphore(max_delayed)
        self._rejected = threading.BoundedSemaphore(_MAX_REJECTED)  # separate: wrong keys do not use up these places
        # With their places; of the loop's thread.
        self._connections: dict[socket.socket, threading.BoundedSemaphore] = {}
        loop.on_stop(self._close_all)

    def reserve(self) -> bool:
        """Reserve a place for a response, which `send_later` uses; False if there is none. Any thread."""
        return self._delayed.acquire(blocking=False)

    def send_later(self, connection: socket.socket, response: bytes, delay_s: float) -> None:
        """Send a response after `delay_s` and close the connection. Any thread."""
        self._pass_on(connection, response, delay_s, self._delayed)

    def reject(self, connection: socket.socket, response: bytes) -> bool:
        """Send a response and leave the client time to read it; False if there is no place for that. Any thread."""
        is_reserved = self._rejected.acquire(blocking=False)
        if is_reserved:
            self._pass_on(connection, response, 0.0, self._rejected)
        return is_reserved

    def _pass_on(
        self, connection: socket.socket, response: bytes, delay_s: float, place: threading.BoundedSemaphore
    ) -> None:
        if not self._loop.call(partial(self._hold, connection, response, delay_s, place)):
            place.release()
            connection.close()

    def _hold(
        self, connection: socket.socket, response: bytes, delay_s: float, place: threading.BoundedSemaphore
    ) -> None:
        self._connections[connection] = place
        self._loop.call_later(delay_s, partial(self._send, connection, response))

    def _send(self, connection: socket.socket, response: bytes) -> None:
        sockets.send(connection.fileno(), response)  # the buffer of the kernel has room for it
        # Closing now could destroy the response: the kernel resets a connection with unread data.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        self._loop.call_later(_LAST_RESPONSE_S, partial(self._close, connection))

    def _close(self, connection: socket.socket) -> None:
        place = self._connections.pop(connection)
        connection.close()
        place.release()

    def _close_all(self) -> None:
        for connection in tuple(self._connections):
            self._close(connection)
