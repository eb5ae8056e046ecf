"""The RTSP server (RFC 2326): viewers of the H.264 stream, by TCP and by UDP. Everything runs on the event loop.

Accepts connections, limits their number, and closes those that do not use them. Requests are answered by
`handler`, viewers are kept by `sessions`.
"""

import errno
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from softcam.errors import CameraError
from softcam.net.event_loop import EventLoop, Timer
from softcam.net.key_brake import CheckKey, check_without_brake
from softcam.rtsp.messages import InterleavedPacket
from softcam.rtsp.server.client import Client
from softcam.rtsp.server.connection import ClientConnection, Received
from softcam.rtsp.server.handler import HandlerLimits, RequestHandler
from softcam.rtsp.server.requests import format_response
from softcam.rtsp.server.sessions import SessionLimits, Sessions
from softcam.rtsp.server.stream import RtpStream
from softcam.runtime.address import client_network, reachable_host, url_host
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.shares import limit_reason

log = logging.getLogger(__name__)

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BACKLOG: Final = 256  # all viewers connect again at once after a restart


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Times in seconds, and numbers."""

    handler: HandlerLimits = field(default_factory=HandlerLimits)
    sessions: SessionLimits = field(default_factory=SessionLimits)
    spare_connections: int = 32  # in addition to those of the viewers
    stall_s: float = 10.0  # a client that accepts nothing for that long is gone, though TCP does not show it
    request_s: float = 10.0  # from the first byte of a request to its end
    idle_s: float = 60.0  # a connection without a session
    setup_s: float = 10.0  # from DESCRIBE to SETUP
    tick_s: float = 1.0


class RtspServer:
    """Accepts clients from `start` to the end of the event loop."""

    def __init__(
        self,
        loop: EventLoop,
        streams: Mapping[str, RtpStream],
        open_camera: Callable[[], Callable[[], None]],
        passwords: tuple[str, ...],
        state: Callable[[], str],
        on_crash: Callable[[str], None],
        limits: ServerLimits | None = None,
        *,
        name: str = "",
        check_key: CheckKey = check_without_brake,
    ) -> None:
        """`streams` by path, without a slash at either end.

        `open_camera` returns the function that releases the camera; it raises CameraError. `state` returns that of the
        camera, for error messages. Without `passwords`, access is unrestricted. `name` is that of the sessions.
        `check_key` is as in `RequestHandler`.
        """
        self.url: str | None = None  # None before the start
        self._loop = loop
        self._limits = limits or ServerLimits()
        distinct = tuple(dict.fromkeys(streams.values()))
        self._sessions = Sessions(loop, distinct, open_camera, on_crash, self._limits.sessions)
        self._handler = RequestHandler(
            loop, streams, self._sessions, passwords, state, self._limits.handler, name, check_key
        )
        self._max_connections = self._limits.handler.max_viewers + self._limits.spare_connections
        self._rejected_log = RateLimitedLogger(log)

        # Used by the event loop alone.
        self._listener: socket.socket | None = None
        self._clients: dict[ClientConnection, Client] = {}
        self._ticker: Timer | None = None  # while there are connections or sessions
        self._accept_timer: Timer | None = None  # after the last attempt failed
        for stream in distinct:
            stream.on_change(partial(self._on_stream_change, stream))
        loop.on_stop(self._close_all)

    def start(self, listener: socket.socket) -> str:
        """Accept clients of a listening socket, which the server owns from now on; returns its URL on this machine."""
        host, port, *_ = listener.getsockname()
        self.url = f"rtsp://{url_host(reachable_host(host))}:{port}/"
        if not self._loop.call(partial(self._listen, listener)):
            listener.close()
        return self.url

    def refuse_waiting(self, reason: str) -> None:
        """Respond to the clients that wait for the camera: it has failed. Any thread may call it."""
        self._loop.call(partial(self._refuse_waiting, reason))

    @property
    def viewer_count(self) -> int:
        """Any thread may call it."""
        return self._sessions.playing_count

    def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop.register(listener.fileno(), lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:  # one client disconnected meanwhile
                    continue
                self._rejected_log.warning("RTSP clients cannot be accepted: %s", error.strerror or error)
                if self._accept_timer is not None:
                    self._accept_timer.cancel()
                self._accept_timer = self._loop.call_later(self._limits.tick_s, lambda: self._accept(listener))
                return
            # Later in this turn: there may still be events of an earlier socket with this number.
            self._loop.call(partial(self._connect, connection, address))

    def _connect(self, connection: socket.socket, address: tuple[str | int, ...]) -> None:
        if reason := self._make_room(str(address[0])):
            self._rejected_log.warning("RTSP client %s rejected: %s", address[0], reason)
            connection.close()
            return
        try:
            opened = ClientConnection(connection, address, self._loop, self._on_received, self._on_end, self._on_close)
        except OSError:
            connection.close()
            return
        self._clients[opened] = Client(opened)
        if self._ticker is None:
            self._ticker = self._loop.call_later(self._limits.tick_s, self._tick)

    def _make_room(self, address: str) -> str:
        """Close a connection where there are too many for another one; why that is not possible, else empty."""
        limits, network = self._limits.handler, client_network(address)
        own = [each for each, client in self._clients.items() if client.network == network]
        if len(own) >= limits.max_per_address and not limits.is_exempt(address) and not self._evict(own):
            return limit_reason("connections", limits.max_per_address)
        if len(self._clients) >= self._max_connections and not self._evict(self._clients):
            return "too many connections"
        return ""

    def _evict(self, connections: Iterable[ClientConnection]) -> bool:
        """Close the connection without a session that was silent for longest, of these."""
        idle = [connection for connection in connections if not self._sessions.has_session(connection)]
        if not idle:
            return False
        min(idle, key=lambda connection: connection.heard_s).close("another client needs the connection")
        return True

    def _on_received(self, connection: ClientConnection, received: Received) -> None:
        self._sessions.on_heard(connection)
        if not isinstance(received, InterleavedPacket):  # a receiver report
            self._handler.handle(self._clients[connection], received)

    def _on_end(self, connection: ClientConnection, reason: str) -> None:
        log.debug("RTSP connection of %s ended: %s", connection.peer[0], reason)
        self._clients[connection].on_end()
        self._sessions.on_disconnect(connection, reason)

    def _on_close(self, connection: ClientConnection) -> None:
        del self._clients[connection]

    def _refuse_waiting(self, reason: str) -> None:
        for client in tuple(self._clients.values()):
            self._handler.refuse_description(client, reason)

    def _on_stream_change(self, stream: RtpStream, error: CameraError | None) -> None:
        for client in tuple(self._clients.values()):
            self._handler.on_stream_change(client, stream, error)

    def _tick(self) -> None:
        for client in tuple(self._clients.values()):
            self._check(client)
        self._sessions.end_silent()
        is_used = self._clients or len(self._sessions)
        self._ticker = self._loop.call_later(self._limits.tick_s, self._tick) if is_used else None

    def _check(self, client: Client) -> None:
        now_s, limits, connection = self._loop.clock(), self._limits, client.connection
        if connection.has_unsent and now_s - connection.progress_s > limits.stall_s:
            connection.close(f"no data accepted for {limits.stall_s:g} s")
        elif connection.request_s is not None and now_s - connection.request_s > limits.request_s:
            reason = f"request not complete within {limits.request_s:g} s"
            connection.end(reason, format_response(408, [("Connection", "close")]))
        elif not connection.is_waiting:
            client.release_lease(described_before_s=now_s - limits.setup_s)
            if now_s - connection.heard_s > limits.idle_s and not self._sessions.has_session(connection):
                connection.close(f"no request for {limits.idle_s:g} s")

    def _close_all(self) -> None:
        """The event loop ends."""
        self._refuse_waiting("the portal stops")
        self._sessions.disconnect_all("the portal stops")
        for connection in tuple(self._clients):
            connection.close("the portal stops")
        if self._listener is not None:
            self._listener.close()


def listening_socket(host: str, port: int) -> socket.socket:
    """A non-blocking socket that listens. Raises OSError if the address cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
