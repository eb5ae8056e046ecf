"""An RTSP connection of the server: bytes in, requests out; responses and media in, bytes out. Runs on the event loop.

Never blocks and never waits. A response is sent after the part that is being sent, and before further media. While a
response is being prepared, further requests stay in the buffer, so that responses keep their order.
"""

import contextlib
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from softcam.net import sockets
from softcam.net.event_loop import DISCONNECTED, EventLoop
from softcam.rtsp.messages import InterleavedPacket, InvalidMessage, Message, MessageReader
from softcam.rtsp.server.requests import Request, format_response, read_request

_TCP_USER_TIMEOUT_MS: Final = 10_000  # a machine that lost power acknowledges nothing
_RECEIVE_BYTES: Final = 8192  # at once: thousands of requests in a row must not delay the media of other viewers
_MAX_RECEIVED: Final = 128 * 1024  # requests that wait for the response to an earlier one
_MAX_RESPONSES: Final = 64  # that the client does not read
_LAST_RESPONSE_S: Final = 1.0  # for the client to read the last response

Received = Request | InterleavedPacket


class ClientConnection:
    """One client.

    `on_received` is called for each request and packet, `on_end` once, when neither requests nor media follow, and
    `on_close` once, then or after the last response.
    """

    def __init__(
        self,
        connection: socket.socket,
        address: tuple[str | int, ...],
        loop: EventLoop,
        on_received: Callable[["ClientConnection", Received], None],
        on_end: Callable[["ClientConnection", str], None],
        on_close: Callable[["ClientConnection"], None],
    ) -> None:
        """Raises OSError where the client has disconnected."""
        self._socket = connection
        self._loop = loop
        self._on_received = on_received
        self._on_end = on_end
        self._on_close = on_close
        connection.setblocking(False)
        sockets.prepare_stream(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        self.fd = connection.fileno()
        self.peer = address
        self.local = connection.getsockname()
        self.is_waiting = False  # for the response to a request; changed by `defer_response` and `respond`
        self.is_closed = False
        # When data was last accepted, or the part that is being sent was begun; and when data was received.
        self.progress_s = self.heard_s = loop.clock()
        self.request_s: float | None = None  # since when a request is incomplete
        self._received = bytearray()
        self._reader = MessageReader(self._received)
        self._responses: deque[bytes] = deque()
        self._next_part: Callable[[], bytes] | None = None  # of the media, while a viewer plays
        self._unsent = b""
        self._sent_bytes = 0  # of `_unsent`
        self._is_parsing = False
        self._is_ending = False  # after the last response
        loop.register(self.fd, self._handle_events)

    @property
    def is_idle(self) -> bool:
        return not self._unsent and not self._responses

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    # --- sending ----------------------------------------------------------------------------------------------

    def respond(self, response: bytes) -> None:
        """Send a response, or an interleaved packet, and go on with the requests that waited for it."""
        self.is_waiting = False
        if len(self._responses) >= _MAX_RESPONSES:
            self.close("responses are not read")
            return
        self._responses.append(response)
        self.flush()
        self._parse()

    def defer_response(self) -> None:
        """The response to the current request follows later."""
        self.is_waiting = True

    def start_media(self, next_part: Callable[[], bytes]) -> None:
        """Send what `next_part` returns, whenever everything before it was sent; empty where there is nothing now."""
        self._next_part = next_part

    def stop_media(self) -> None:
        self._next_part = None

    def end(self, reason: str, response: bytes = b"") -> None:
        """Send a last response, after what is being sent, and close."""
        if self._is_ending or self.is_closed:
            return
        self.stop_media()
        self._is_ending = True
        self._received.clear()
        self._on_end(self, reason)
        self.request_s = None
        if response:
            self._responses.append(response)
        self.flush()
        self._loop.call_later(_LAST_RESPONSE_S, lambda: self.close(reason))

    def flush(self) -> None:
        while not self.is_closed:
            if not self._unsent:
                self._unsent, self._sent_bytes = self._next(), 0
                if not self._unsent:
                    break
                self.progress_s = self._loop.clock()
            self._on_sent(sockets.send(self.fd, self._unsent, self._sent_bytes))
            if self._unsent:
                return
        if self._is_ending and not self.is_closed:
            # Closing now could destroy the response: the kernel resets a connection with unread data.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def continue_part(self, part: bytes, sent: int) -> None:
        self._unsent, self._sent_bytes = part, 0
        self.progress_s = self._loop.clock()
        self._on_sent(sent)

    def _next(self) -> bytes:
        if self._responses:
            return self._responses.popleft()
        return b"" if self._next_part is None else self._next_part()

    def _on_sent(self, sent: int) -> None:
        if sent < 0:
            if sent != -errno.EAGAIN:
                self.close(os.strerror(-sent))
            return
        self.progress_s = self._loop.clock()
        self._sent_bytes += sent
        if self._sent_bytes == len(self._unsent):
            self._unsent, self._sent_bytes = b"", 0

    # --- receiving --------------------------------------------------------------------------------------------

    def _handle_events(self, events: int) -> None:
        if events & select.EPOLLIN:
            self._receive()
        if events & DISCONNECTED and not self.is_closed:
            self.close("closed by the client")
        if events & select.EPOLLOUT and not self.is_closed:
            self.flush()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        if not data:
            self.close("closed by the client")
            return
        self.heard_s = self._loop.clock()
        if not self._is_ending:
            self._received += data
            self._parse()
        if not self.is_closed and len(data) == _RECEIVE_BYTES:
            self._loop.report_again(self.fd)  # the others have their turn first

    def _parse(self) -> None:
        if self._is_parsing:  # called by a handler, whose caller continues
            return
        self._is_parsing = True
        try:
            while not self.is_waiting and not self._is_ending and not self.is_closed:
                received = self._reader.take_message()
                if received is None:
                    break
                self.request_s = None
                self._on_received(self, read_request(received) if isinstance(received, Message) else received)
        except InvalidMessage as error:
            response = format_response(error.status, [("Connection", "close")], f"{error}\r\n".encode())
            self.end(f"invalid request: {error}", response)
        finally:
            self._is_parsing = False
        self.request_s = (self.request_s or self.heard_s) if self._received and not self.is_waiting else None
        if len(self._received) > _MAX_RECEIVED:
            self.close("requests do not wait for responses")

    def close(self, reason: str) -> None:
        """Close at once; harmless if closed."""
        if self.is_closed:
            return
        self.is_closed = True
        self.stop_media()
        self._loop.unregister(self.fd)
        self._socket.close()
        if not self._is_ending:
            self._is_ending = True
            self._on_end(self, reason)
        self._on_close(self)
