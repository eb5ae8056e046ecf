"""Sends every stream client the latest JPEG, or an fMP4 stream: on one event loop, without a queue per client.

Request threads pass a client's socket with `add_client`, encoders pass a finished JPEG with `publish_jpeg`, channels of
other kinds call `notify`; everything else runs on the thread of the event loop, which never blocks and never encodes. A
client with unsent bytes finishes its part and continues with the latest one: a slow client loses frames, delays no
other client, and costs the same memory however slow it is.

What a client gets next is decided by its channel: `clients.JpegChannel` or `fmp4_channel.Fmp4Stream`.
"""

import contextlib
import errno
import logging
import math
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from softcam.net import sockets
from softcam.net.event_loop import DISCONNECTED, EventLoop, Timer
from softcam.net.io_uring import BatchSender
from softcam.runtime.plural import counted
from softcam.streaming.clients import BOUNDARY, Channel, JpegChannel, StreamClient
from softcam.streaming.jpeg_encoder import JpegVariant

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
# The next boundary directly after each JPEG: browsers show a frame only when they have read what follows it.
_NEXT_BOUNDARY: Final = f"\r\n--{BOUNDARY}\r\n".encode()

_STALL_TIMEOUT_S: Final = 30.0  # a client that accepts nothing for that long is gone, though TCP does not show it
_TICK_S: Final = 1.0  # interval of the checks for stalled clients and placeholders, while there are clients
_DRAIN_BYTES: Final = 4096


class FanOut:
    """Owns the sockets of all stream clients; disconnects them when the event loop ends."""

    def __init__(
        self,
        loop: EventLoop,
        on_channels: Callable[[tuple[JpegChannel, ...]], None],
        on_tick: Callable[[], None],
        *,
        stall_timeout_s: float = _STALL_TIMEOUT_S,
        sender: BatchSender | None = None,
        client_name: str = "Client",
        part_name: str = "frame",
    ) -> None:
        """`on_channels` and `on_tick` are called on the loop's thread and must be quick; an exception ends the loop.

        `on_channels` gets the JPEG channels with clients after each connect and disconnect; `on_tick` is called about
        once a second while there are clients. A client that accepts nothing for `stall_timeout_s` is disconnected.
        `client_name` and `part_name` are used in log lines.
        """
        self._loop = loop
        self._clock = loop.clock
        self._on_channels = on_channels
        self._on_tick = on_tick
        self._stall_timeout_s = stall_timeout_s
        self._client_name, self._part_name = client_name, part_name
        self._tick_s = min(_TICK_S, stall_timeout_s)
        self._added: deque[StreamClient] = deque()  # thread-safe by itself

        # Used by the loop alone, except for len(), which any thread reads.
        self._clients: dict[int, StreamClient] = {}
        self._channels: dict[JpegVariant, JpegChannel] = {}
        self._ticker: Timer | None = None  # while there are clients
        self._ticked_s = -math.inf
        self._sender = BatchSender() if sender is None else sender
        loop.on_stop(self._disconnect_all)

    @property
    def client_count(self) -> int:
        return len(self._clients) + len(self._added)

    def add_client(self, client: StreamClient) -> None:
        """Pass a client whose HTTP header was sent; the loop owns its socket now, and calls `on_disconnect` once.

        After the end of the loop the client is disconnected at once, by the calling thread.
        """
        self._added.append(client)
        if not self._loop.call(self._connect_added):
            self._close_added()

    def publish_jpeg(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """Send a JPEG to all clients of `variant`; it was exposed at `timestamp_s` (Unix time).

        `made_s` (monotonic) orders the JPEGs: an older one that arrives later is dropped.
        """
        header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nX-Timestamp: %.6f\r\n\r\n"
        header %= (len(jpeg), timestamp_s)
        self._loop.call(partial(self._broadcast_jpeg, variant, b"".join((header, jpeg, _NEXT_BOUNDARY)), made_s))

    def notify(self, channel: Channel, update: Callable[[], None]) -> None:
        """A channel of another kind has new data: `update` is called on the loop's thread, and must be quick."""

        def update_and_send() -> None:
            update()
            self._broadcast(channel, self._clock())

        self._loop.call(update_and_send)

    # --- the loop's thread ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticked_s = now_s = self._clock()
        for client in [client for client in self._clients.values() if client.unsent]:
            if now_s - client.progress_s > self._stall_timeout_s:
                self._disconnect(client, f"no data accepted for {self._stall_timeout_s:g} s")
        self._on_tick()
        self._ticker = self._loop.call_later(self._tick_s, self._tick) if self._clients else None

    def _connect_added(self) -> None:
        while self._added:
            self._connect(self._added.popleft())

    def _connect(self, client: StreamClient) -> None:
        connection = client.connection
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                sockets.prepare_stream(connection)
            self._loop.register(client.fd, partial(self._handle_events, client))
        except (OSError, ValueError) as error:
            name, part = self._client_name, self._part_name
            log.info("%s %s disconnected before its first %s: %s", name, client.address, part, error)
            self._close(client)
            return
        now_s = self._clock()
        self._clients[client.fd] = client
        channel: JpegVariant | Channel = client.source
        if isinstance(channel, JpegVariant):
            channel = self._channels.setdefault(channel, JpegChannel(channel))
        client.attach(channel, now_s)
        log.info("%s %s connected; %d connected", self._client_name, client.address, len(self._clients))
        first = channel.subscribe(client, now_s)
        self._on_channels(tuple(self._channels.values()))
        if self._ticker is None:
            self._ticker = self._loop.call_later(max(0.0, self._ticked_s + self._tick_s - now_s), self._tick)
        if first and self._start_part(client, first):
            self._send_next(client, channel, now_s)

    def _broadcast_jpeg(self, variant: JpegVariant, part: bytes, made_s: float) -> None:
        """Publish a part in its channel, and start it for each client that is idle and due."""
        channel = self._channels.get(variant)
        if channel is None or not channel.publish(part, made_s):
            return  # the last client has disconnected, or there is a newer part
        now_s = self._clock()
        if channel.ready:
            clients, fds, fd_array = channel.ready_batch
            for index, sent in self._sender.send_to_each(fds, fd_array, part):
                client = clients[index]
                channel.on_partial_send(client)
                client.start_part(part, now_s)
                self._on_sent(client, sent)
        for client in tuple(channel.lagging):
            if not client.unsent:
                self._send_next(client, channel, now_s)
        channel.update_lagging(now_s)

    def _broadcast(self, channel: Channel, now_s: float) -> None:
        for client in tuple(channel.clients):
            if not client.unsent:
                self._send_next(client, channel, now_s)

    def _send_next(self, client: StreamClient, channel: Channel, now_s: float) -> None:
        """Send a client that has received everything the parts that there are for it."""
        while not client.unsent:
            part = channel.next_part(client, now_s)
            if part is None:
                self._disconnect(client, "the format of the stream changed")
                return
            if not part or not self._start_part(client, part):
                return

    def _start_part(self, client: StreamClient, part: bytes) -> bool:
        """False if the client turned out to be disconnected."""
        client.start_part(part, self._clock())
        self._on_sent(client, sockets.send(client.fd, part))
        return self._is_connected(client)

    def _is_connected(self, client: StreamClient) -> bool:
        return self._clients.get(client.fd) is client

    def _on_sent(self, client: StreamClient, sent: int) -> None:
        """The kernel accepted `sent` bytes of the unsent part; a negative number is an errno."""
        if sent >= 0:
            client.on_sent(sent, self._clock())
        elif sent != -errno.EAGAIN:
            self._disconnect(client, os.strerror(-sent))

    def _handle_events(self, client: StreamClient, events: int) -> None:
        if events & DISCONNECTED:
            self._disconnect(client, "closed by the client")
            return
        if events & select.EPOLLIN:
            # What clients send is discarded, so that the end that may follow is seen. After a full buffer the other
            # clients have their turn.
            with contextlib.suppress(OSError):
                if len(client.connection.recv(_DRAIN_BYTES)) == _DRAIN_BYTES:
                    self._loop.report_again(client.fd)
        if events & select.EPOLLOUT and client.unsent:
            self._on_sent(client, sockets.send(client.fd, client.unsent, client.sent_bytes))
            if client.channel is not None and self._is_connected(client):
                self._send_next(client, client.channel, self._clock())

    def _disconnect(self, client: StreamClient, reason: str) -> None:
        del self._clients[client.fd]
        channel = client.channel
        if channel is not None:
            channel.unsubscribe(client)
            if isinstance(client.source, JpegVariant) and not channel.clients:
                del self._channels[client.source]
        self._close(client)
        self._on_channels(tuple(self._channels.values()))
        log.info(
            "%s %s disconnected (%s): %.0f s, %s sent, %d dropped; %d connected",
            self._client_name,
            client.address,
            reason,
            self._clock() - client.connected_s,
            counted(max(client.frames, 0), self._part_name),
            client.dropped,
            len(self._clients),
        )
        if not self._clients:
            self._release_idle()

    def _release_idle(self) -> None:
        self._sender.release_ring()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _close(self, client: StreamClient) -> None:
        self._loop.unregister(client.fd)
        client.connection.close()
        client.on_disconnect()

    def _close_added(self) -> None:
        with contextlib.suppress(IndexError):  # the ending loop closes them, too
            while True:
                self._close(self._added.popleft())

    def _disconnect_all(self) -> None:
        """The loop ends, possibly since a callback raised: every client must be closed in any case."""
        try:
            for client in tuple(self._clients.values()):
                self._disconnect(client, "the portal stops")
        finally:
            for client in self._clients.values():
                self._close(client)
            self._clients.clear()
            self._close_added()
            self._release_idle()
