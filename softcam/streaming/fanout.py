"""Sends every stream client the latest JPEG, or an fMP4 stream: one thread, one epoll, no queue per client.

Request threads pass a client's socket with `add_client`, encoders pass a finished JPEG with `publish_jpeg`, channels of
other kinds call `notify`. All three append to a queue first and wake the loop second; there is no other entry point.
The loop never blocks and never encodes. A client with unsent bytes finishes its part and continues with the latest one:
a slow client loses frames, delays no other client, and costs the same memory however slow it is.

What a client gets next is decided by its channel: `clients.JpegChannel` or `fmp4_channel.Fmp4Stream`.
"""

import contextlib
import errno
import logging
import math
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from softcam.runtime.deadline import Deadline
from softcam.runtime.plural import counted
from softcam.runtime.threads import spawn
from softcam.streaming import sockets
from softcam.streaming.clients import BOUNDARY, Channel, JpegChannel, StreamClient
from softcam.streaming.io_uring import BatchSender
from softcam.streaming.jpeg_encoder import JpegVariant

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
# The next boundary directly after each JPEG: browsers show a frame only when they have read what follows it.
_NEXT_BOUNDARY: Final = f"\r\n--{BOUNDARY}\r\n".encode()

# The kernel accepts no more while that many bytes are unsent: the next part of a throttled client is then a new one,
# not one that waited in megabytes of socket buffer. socket.TCP_NOTSENT_LOWAT exists since Python 3.12; the number is
# that of tcp(7).
_TCP_NOTSENT_LOWAT: Final = 25
_NOTSENT_BYTES: Final = 16384
_STALL_TIMEOUT_S: Final = 30.0  # a client that accepts nothing for that long is gone, though TCP does not show it
_TICK_S: Final = 1.0  # interval of the checks for stalled clients and placeholders, while there are clients
_DRAIN_BYTES: Final = 4096

# Edge-triggered, so a socket is registered once for all events: epoll reports room only after a short send, and no
# call has to enable or disable that.
_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_DISCONNECTED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class FanOut:
    """Owns the sockets of all stream clients and the thread `fan-out`."""

    def __init__(
        self,
        on_channels: Callable[[tuple[JpegChannel, ...]], None],
        on_tick: Callable[[], None],
        on_crash: Callable[[str], None],
        *,
        stall_timeout_s: float = _STALL_TIMEOUT_S,
        sender: BatchSender | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_channels` and `on_tick` are called on the loop's thread and must be quick; an exception ends the loop.

        `on_channels` gets the JPEG channels with clients after each connect and disconnect; `on_tick` is called about
        once a second while there are clients. A client that accepts nothing for `stall_timeout_s` is disconnected.
        """
        self._on_channels = on_channels
        self._on_tick = on_tick
        self._on_crash = on_crash
        self._stall_timeout_s = stall_timeout_s
        self._tick_s = min(_TICK_S, stall_timeout_s)
        self._clock = clock
        self._epoll = select.epoll()
        self._wake_lock = threading.Lock()  # guards _wake_fd, and that no client is added after the end
        # None after the end of the loop, when the number may belong to another file.
        self._wake_fd: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered: each write wakes the loop, and the counter is never read.
        self._epoll.register(self._wake_fd, select.EPOLLIN | select.EPOLLET)
        self._added: deque[StreamClient] = deque()  # this queue and the next two are thread-safe by themselves
        self._jpegs: deque[tuple[JpegVariant, bytes, float]] = deque()
        self._updates: deque[tuple[Channel, Callable[[], None]]] = deque()
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None  # used by the thread that starts and stops the components

        # Used by the loop alone, except for len(), which any thread reads.
        self._clients: dict[int, StreamClient] = {}
        self._channels: dict[JpegVariant, JpegChannel] = {}
        self._next_tick_s = 0.0
        self._sender = BatchSender() if sender is None else sender

    def start(self) -> None:
        """Start the thread; clients and JPEGs that were passed before are waiting in their queues."""
        self._thread = spawn("fan-out", self._run, self._on_crash)

    @property
    def client_count(self) -> int:
        return len(self._clients) + len(self._added)

    def add_client(self, client: StreamClient) -> None:
        """Pass a client whose HTTP header was sent; the loop owns its socket now, and calls `on_disconnect` once.

        After the end of the loop the client is disconnected at once, by the calling thread.
        """
        with self._wake_lock:
            is_running = self._wake_fd is not None
            if is_running:
                self._added.append(client)
        if is_running:
            self._wake()
        else:
            self._close(client)

    def publish_jpeg(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """Send a JPEG to all clients of `variant`; it was exposed at `timestamp_s` (Unix time).

        `made_s` (monotonic) orders the JPEGs: an older one that arrives later is dropped.
        """
        header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nX-Timestamp: %.6f\r\n\r\n"
        header %= (len(jpeg), timestamp_s)
        self._jpegs.append((variant, b"".join((header, jpeg, _NEXT_BOUNDARY)), made_s))
        self._wake()

    def notify(self, channel: Channel, update: Callable[[], None]) -> None:
        """A channel of another kind has new data: `update` is called on the loop's thread, and must be quick."""
        self._updates.append((channel, update))
        self._wake()

    def stop(self, deadline_s: float) -> None:
        """Disconnect every client and end the thread; waits until the deadline (monotonic clock)."""
        self._is_stopping.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(Deadline(deadline_s).remaining_s)

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_fd is not None:
                sockets.signal_eventfd(self._wake_fd)

    # --- the loop ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wake_fd = self._wake_fd
        try:
            while wake_fd is not None and not self._is_stopping.is_set():
                for fd, events in self._epoll.poll(self._timeout_s()):
                    if (client := self._clients.get(fd)) is not None:
                        self._handle_events(client, events)
                while self._added:
                    self._connect(self._added.popleft())
                while self._jpegs:
                    self._broadcast_jpeg(*self._jpegs.popleft())
                while self._updates:
                    channel, update = self._updates.popleft()
                    update()
                    self._broadcast(channel, self._clock())
                self._tick(self._clock())
            for client in tuple(self._clients.values()):
                self._disconnect(client, "the portal stops")
        finally:
            with self._wake_lock:
                self._wake_fd = None
            for client in (*self._clients.values(), *self._added):
                self._close(client)
            for pending in (self._clients, self._added, self._updates):
                pending.clear()
            if wake_fd is not None:
                os.close(wake_fd)
            self._epoll.close()
            self._sender.release_ring()

    def _timeout_s(self) -> float | None:
        return max(0.0, self._next_tick_s - self._clock()) if self._clients else None

    def _tick(self, now_s: float) -> None:
        if not self._clients or now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + self._tick_s
        for client in [client for client in self._clients.values() if client.unsent]:
            if now_s - client.progress_s > self._stall_timeout_s:
                self._disconnect(client, f"no data accepted for {self._stall_timeout_s:g} s")
        self._on_tick()

    def _connect(self, client: StreamClient) -> None:
        connection = client.connection
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            client.fd = connection.fileno()
            self._epoll.register(client.fd, _EVENTS)
        except (OSError, ValueError) as error:
            log.info("Client %s disconnected before its first frame: %s", client.address, error)
            self._close(client)
            return
        now_s = self._clock()
        client.connected_s = client.progress_s = now_s
        self._clients[client.fd] = client
        channel: JpegVariant | Channel = client.source
        if isinstance(channel, JpegVariant):
            channel = self._channels.setdefault(channel, JpegChannel(channel))
        client.channel = channel
        channel.clients.add(client)
        log.info("Client %s connected; %d connected", client.address, len(self._clients))
        first = channel.subscribe(client, now_s)
        self._on_channels(tuple(self._channels.values()))
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
                client.unsent, client.sent_bytes, client.progress_s = part, 0, now_s
                self._on_sent(client, sent)
        due_s = 0.0 if channel.ready else math.inf
        for client in tuple(channel.lagging):
            if not client.unsent:
                self._send_next(client, channel, now_s)
            elif client.is_due(now_s) and client.part_number != channel.part_number:
                client.dropped += 1
            due_s = min(due_s, client.due_s if client.interval_s else 0.0)
        channel.due_s = 0.0 if due_s == math.inf else due_s

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
        client.unsent, client.sent_bytes, client.progress_s = part, 0, self._clock()
        self._on_sent(client, sockets.send(client.fd, part))
        return self._is_connected(client)

    def _is_connected(self, client: StreamClient) -> bool:
        return self._clients.get(client.fd) is client

    def _on_sent(self, client: StreamClient, sent: int) -> None:
        """The kernel accepted `sent` bytes of the unsent part; a negative number is an errno."""
        if sent < 0:
            if sent != -errno.EAGAIN:
                self._disconnect(client, os.strerror(-sent))
            return
        client.sent_bytes += sent
        if client.sent_bytes == len(client.unsent):
            client.unsent, client.sent_bytes = b"", 0
            client.frames += 1
        else:
            client.progress_s = self._clock()

    def _handle_events(self, client: StreamClient, events: int) -> None:
        if events & _DISCONNECTED:
            self._disconnect(client, "closed by the client")
            return
        if events & select.EPOLLIN:
            # What clients send is discarded, so that the end that may follow is seen. After a full buffer the other
            # clients have their turn; `modify` makes epoll report again what it has reported already.
            with contextlib.suppress(OSError):
                if len(client.connection.recv(_DRAIN_BYTES)) == _DRAIN_BYTES:
                    self._epoll.modify(client.fd, _EVENTS)
        if events & select.EPOLLOUT and client.unsent:
            self._on_sent(client, sockets.send(client.fd, client.unsent, client.sent_bytes))
            if client.channel is not None and self._is_connected(client):
                self._send_next(client, client.channel, self._clock())

    def _disconnect(self, client: StreamClient, reason: str) -> None:
        del self._clients[client.fd]
        channel = client.channel
        if channel is not None:
            channel.clients.discard(client)
            channel.unsubscribe(client)
            if isinstance(client.source, JpegVariant) and not channel.clients:
                del self._channels[client.source]
        self._close(client)
        self._on_channels(tuple(self._channels.values()))
        log.info(
            "Client %s disconnected (%s): %.0f s, %s sent, %d dropped; %d connected",
            client.address,
            reason,
            self._clock() - client.connected_s,
            counted(max(client.frames, 0), "frame"),
            client.dropped,
            len(self._clients),
        )
        if not self._clients:
            self._sender.release_ring()

    def _close(self, client: StreamClient) -> None:
        # Closing a socket removes it from the epoll set.
        client.connection.close()
        client.on_disconnect()
