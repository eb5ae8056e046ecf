"""The UDP sockets of the RTSP server: one pair for each local address that viewers use. Runs on the event loop."""

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.net.udp import PortPair

_MAX_DATAGRAMS: Final = 64  # read at once; the rest in the next turn
_DATAGRAM_BYTES: Final = 2048  # a receiver report has about 60

PeerAddress = tuple[str, int]
LocalAddress = tuple[str | int, ...]  # of a socket, as `getsockname` returns it


class Ports:
    """Opens a pair with its first viewer and closes it with its last one."""

    def __init__(
        self,
        loop: EventLoop,
        on_report: Callable[[PortPair, PeerAddress, bytes], None],
        on_room: Callable[[PortPair], None],
    ) -> None:
        """`on_report` is called for each datagram from a viewer, `on_room` when a socket accepts data again."""
        self._loop = loop
        self._on_report = on_report
        self._on_room = on_room
        self._pairs: dict[LocalAddress, tuple[PortPair, int]] = {}  # by host, with the number of viewers

    def acquire_pair(self, local: LocalAddress) -> PortPair:
        """`local` is the address that a viewer is connected to. Raises OSError."""
        host = local[:1] + local[2:]  # without the port; of IPv6 with flow information and scope
        pair, users = self._pairs.get(host, (None, 0))
        if pair is None:
            pair = PortPair(local)
            # Through `call`: `register` must not be called by a handler.
            self._loop.call(lambda: self._register(host))
        self._pairs[host] = pair, users + 1
        return pair

    def release_pair(self, pair: PortPair) -> None:
        host = next(host for host, (each, _) in self._pairs.items() if each is pair)
        users = self._pairs[host][1] - 1
        if users:
            self._pairs[host] = pair, users
            return
        del self._pairs[host]
        for connection in (pair.rtp, pair.rtcp):
            self._loop.unregister(connection.fileno())
        pair.close()

    def _register(self, host: LocalAddress) -> None:
        pair, _ = self._pairs.get(host, (None, 0))
        if pair is None:
            return
        for connection in (pair.rtp, pair.rtcp):
            with contextlib.suppress(FileExistsError):  # released and acquired again in one turn: the same number
                self._loop.register(connection.fileno(), self._handler(pair, connection))

    def _handler(self, pair: PortPair, connection: socket.socket) -> Callable[[int], None]:
        def handle(events: int) -> None:
            if events & select.EPOLLIN:
                for _ in range(_MAX_DATAGRAMS):
                    try:
                        data, address = connection.recvfrom(_DATAGRAM_BYTES)
                    except OSError:  # none left, or an error that concerns one viewer
                        break
                    self._on_report(pair, (address[0], address[1]), data)
                else:
                    self._loop.report_again(connection.fileno())
            if events & select.EPOLLOUT and connection is pair.rtp:
                self._on_room(pair)

        return handle
