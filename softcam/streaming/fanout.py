"""Gives every stream viewer the newest picture, or a movie as it is made: one thread, one epoll, nothing queued.

Request threads hand a viewer's socket over with `add`; encoders hand a finished part over with `deliver`; both put it
into a queue first and wake the loop second, and that is the only door. The loop never blocks and never encodes. A
viewer that still has unsent bytes finishes its part and goes on with the newest one: a slow viewer loses frames, delays
nobody, and costs the same memory however slow it is.

What a viewer gets next its channel says: see `viewers` for pictures, and `movie`.
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

from softcam.runtime.threads import spawn
from softcam.streaming import sockets
from softcam.streaming.clients import BOUNDARY, Channel, JpegChannel, ReadySet, StreamClient
from softcam.streaming.jpeg_encoder import JpegVariant
from softcam.streaming.sockets import IoUringSender

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
# The next boundary straight behind each picture: browsers draw a frame only when they see what follows it.
_NEXT_BOUNDARY: Final = f"\r\n--{BOUNDARY}\r\n".encode()

# Above so many bytes not yet sent the kernel takes no more: a throttled viewer's next part is then a new one, not one
# that waited in megabytes of socket buffer. socket.TCP_NOTSENT_LOWAT exists from Python 3.12 on; 25 is tcp(7)'s number.
_TCP_NOTSENT_LOWAT: Final = 25
_NOTSENT_BYTES: Final = 16384
_STUCK_LIMIT_S: Final = 30.0  # a viewer that took nothing for so long is gone, though its machine does not say so
_TICK_S: Final = 1.0  # how often stuck viewers and placeholders are looked at, while there is any reason to
_DRAIN_BYTES: Final = 4096

# Edge-triggered, so a viewer is registered once for everything: epoll tells of room only after a send fell short, and
# no call has to ask for it or to call it off again.
_HEARD: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_HAS_LEFT: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

# So many viewers at least make a ring worth its own work; with fewer a loop over them is as cheap.
_CROWD: Final = 32
_RING_ENTRIES: Final = 256  # sends in one system call; more viewers are some calls


class FanOut:
    """Owns the viewers' sockets and the thread `fan-out`."""

    def __init__(
        self,
        on_channels: Callable[[tuple[JpegChannel, ...]], None],
        on_tick: Callable[[], None],
        on_crash: Callable[[str], None],
        *,
        stuck_limit_s: float = _STUCK_LIMIT_S,
    ) -> None:
        """The first two are called on the loop's thread and must be quick; what they raise ends the loop.

        `on_channels` is told which pictures have viewers whenever somebody came or left; `on_tick` comes about once a
        second while somebody watches. A viewer that took nothing for `stuck_limit_s` is let go.
        """
        self._on_channels = on_channels
        self._on_tick = on_tick
        self._stuck_limit_s = stuck_limit_s
        self._tick_s = min(_TICK_S, stuck_limit_s)
        self._epoll = select.epoll()
        self._wake_lock = threading.Lock()  # guards _wake, so that nobody writes to a number that is someone else's now
        self._wake: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN | select.EPOLLET)  # each poke counts; nobody reads the number
        self._joining: deque[StreamClient] = deque()  # the door, thread-safe by itself
        self._delivered: deque[tuple[JpegVariant, bytes, float]] = deque()
        self._fed: deque[tuple[Channel, Callable[[], None]]] = deque()
        self._is_stopping = threading.Event()
        self._is_over = threading.Event()  # set before the door is emptied for the last time

        # Touched by the loop alone, but for len(), which the status reads.
        self._viewers: dict[int, StreamClient] = {}
        self._channels: dict[JpegVariant, JpegChannel] = {}
        self._next_tick_s = 0.0
        self._ring: IoUringSender | None = None  # from the first crowd on, until nobody watches
        self._may_have_ring = True  # until the kernel refuses

        self._thread = spawn("fan-out", self._run, on_crash)

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers) + len(self._joining)

    def add(self, viewer: StreamClient) -> None:
        """Hand a viewer over; its HTTP header was sent. The loop owns the socket from now on and calls `on_leave` once.

        After the end the viewer is let go at once, by the caller's thread.
        """
        self._joining.append(viewer)
        self._poke()
        if self._is_over.is_set():
            self._turn_away()

    def deliver(self, key: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """A new picture for the viewers of `key`, exposed at `timestamp_s` (Unix time).

        `made_s` (monotonic) orders the pictures: an older one that comes later is left out.
        """
        header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nX-Timestamp: %.6f\r\n\r\n" % (
            len(jpeg),
            timestamp_s,
        )
        self._delivered.append((key, b"".join((header, jpeg, _NEXT_BOUNDARY)), made_s))
        self._poke()

    def feed(self, channel: Channel, take: Callable[[], None]) -> None:
        """A channel of another kind has something new: `take` is called on the loop's thread, and must be quick."""
        self._fed.append((channel, take))
        self._poke()

    def stop(self, deadline_s: float) -> None:
        """Let every viewer go and end the thread; waits until the deadline (monotonic clock)."""
        self._is_stopping.set()
        self._poke()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _poke(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                sockets.poke(self._wake)

    # --- the loop ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wake = self._wake
        try:
            while wake is not None and not self._is_stopping.is_set():
                for descriptor, events in self._epoll.poll(self._timeout_s()):
                    if (viewer := self._viewers.get(descriptor)) is not None:
                        self._serve(viewer, events)
                while self._joining:
                    self._join(self._joining.popleft())
                while self._delivered:
                    self._spread_picture(*self._delivered.popleft())
                while self._fed:
                    channel, take = self._fed.popleft()
                    take()
                    self._spread(channel, time.monotonic())
                self._tick(time.monotonic())
        finally:
            self._is_over.set()
            for viewer in self._viewers.values():
                self._close(viewer)
            self._viewers.clear()
            self._fed.clear()
            self._turn_away()
            with self._wake_lock:
                self._wake = None
            if wake is not None:
                os.close(wake)
            self._epoll.close()
            self._give_ring_up()

    def _turn_away(self) -> None:
        """Close who is still at the door; two threads may do so at once, and each viewer is popped by one of them."""
        with contextlib.suppress(IndexError):
            while True:
                self._close(self._joining.popleft())

    def _timeout_s(self) -> float | None:
        if not self._viewers:
            return None
        return max(0.0, self._next_tick_s - time.monotonic())

    def _tick(self, now_s: float) -> None:
        if not self._viewers or now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + self._tick_s
        for viewer in [viewer for viewer in self._viewers.values() if viewer.unsent]:
            if now_s - viewer.progress_s > self._stuck_limit_s:
                self._leave(viewer, f"took nothing for {self._stuck_limit_s:g} s")
        self._on_tick()

    def _join(self, viewer: StreamClient) -> None:
        connection = viewer.connection
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            viewer.descriptor = connection.fileno()
            self._epoll.register(viewer.descriptor, _HEARD)
        except (OSError, ValueError) as error:
            log.info("Viewer %s left before its first picture: %s", viewer.address, error)
            self._close(viewer)
            return
        now_s = time.monotonic()
        viewer.joined_s = viewer.progress_s = now_s
        self._viewers[viewer.descriptor] = viewer
        wanted = viewer.wanted
        channel = viewer.channel = self._pictures(wanted) if isinstance(wanted, JpegVariant) else wanted
        channel.viewers.add(viewer)
        log.info("Viewer %s watches, %d now", viewer.address, len(self._viewers))
        first = channel.join(viewer, now_s)
        self._on_channels(tuple(self._channels.values()))
        if first and self._start(viewer, first):
            self._go_on(viewer, channel, now_s)

    def _pictures(self, key: JpegVariant) -> JpegChannel:
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = JpegChannel(key)
        return channel

    def _spread_picture(self, key: JpegVariant, part: bytes, made_s: float) -> None:
        """Take the newest part, and start it with everyone who is idle and whose turn it is."""
        channel = self._channels.get(key)
        if channel is None or not channel.take(part, made_s):
            return  # the last viewer left meanwhile, or there is a newer one
        now_s = time.monotonic()
        crowd = channel.crowd
        if crowd.viewers:
            short = [(crowd.viewers[place], sent) for place, sent in self._send_to_crowd(crowd, part)]
            for viewer, sent in short:
                channel.fell_short(viewer)
                viewer.unsent, viewer.sent_bytes, viewer.progress_s = part, 0, now_s
                self._note_sent(viewer, sent)
        due_s = 0.0 if crowd.viewers else math.inf
        for viewer in tuple(channel.apart):
            if not viewer.unsent:
                self._go_on(viewer, channel, now_s)
            elif viewer.is_due(now_s) and viewer.part_number != channel.part_number:
                viewer.skipped += 1
            due_s = min(due_s, viewer.due_s if viewer.interval_s else 0.0)
        channel.due_s = 0.0 if due_s == math.inf else due_s

    def _send_to_crowd(self, crowd: ReadySet, part: bytes) -> list[tuple[int, int]]:
        if len(crowd.viewers) < _CROWD or not self._may_have_ring:
            return sockets.send_to_each(crowd.descriptors, part)
        if self._ring is None:
            try:
                self._ring = IoUringSender(_RING_ENTRIES)
            except OSError as error:
                self._may_have_ring = False
                log.info("Pictures go to each viewer by a system call of its own: %s", error)
                return sockets.send_to_each(crowd.descriptors, part)
        short = self._ring.send_to_each(crowd.packed, part)
        if self._ring.has_failed:
            self._may_have_ring = False
            self._give_ring_up()
            log.error("Pictures go to each viewer by a system call of its own: the ring lost some")
        return short

    def _give_ring_up(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _spread(self, channel: Channel, now_s: float) -> None:
        for viewer in tuple(channel.viewers):
            if not viewer.unsent:
                self._go_on(viewer, channel, now_s)

    def _go_on(self, viewer: StreamClient, channel: Channel, now_s: float) -> None:
        """Send a viewer who has taken everything what there is for it now."""
        while not viewer.unsent:
            part = channel.next(viewer, now_s)
            if part is None:
                self._leave(viewer, "was let go: the stream's format changed")
                return
            if not part or not self._start(viewer, part):
                return

    def _start(self, viewer: StreamClient, part: bytes) -> bool:
        """Begin with a part; False where the viewer turned out to have left."""
        viewer.unsent, viewer.sent_bytes, viewer.progress_s = part, 0, time.monotonic()
        self._send(viewer)
        return self._is_here(viewer)

    def _is_here(self, viewer: StreamClient) -> bool:
        return self._viewers.get(viewer.descriptor) is viewer

    def _send(self, viewer: StreamClient) -> None:
        """Send what the kernel takes now of the part that the viewer is at."""
        self._note_sent(viewer, sockets.send(viewer.descriptor, viewer.unsent, viewer.sent_bytes))

    def _note_sent(self, viewer: StreamClient, sent: int) -> None:
        """The kernel took `sent` bytes of what is unsent; below 0 it is none, and the number tells why."""
        if sent < 0:
            if sent != -errno.EAGAIN:
                self._leave(viewer, os.strerror(-sent))
            return
        viewer.sent_bytes += sent
        if viewer.sent_bytes == len(viewer.unsent):
            viewer.unsent, viewer.sent_bytes = b"", 0
            viewer.pictures += 1
        else:
            viewer.progress_s = time.monotonic()

    def _serve(self, viewer: StreamClient, events: int) -> None:
        if events & _HAS_LEFT:
            self._leave(viewer, "left")
            return
        if events & select.EPOLLIN:
            # What viewers say here means nothing. It is taken out of the way of the end that may come behind it; who
            # says a lot has its turn again after the others, and `modify` makes epoll tell what it has told already.
            with contextlib.suppress(OSError):
                if len(viewer.connection.recv(_DRAIN_BYTES)) == _DRAIN_BYTES:
                    self._epoll.modify(viewer.descriptor, _HEARD)
        if events & select.EPOLLOUT and viewer.unsent:
            self._send(viewer)
            if viewer.channel is not None and self._is_here(viewer):
                self._go_on(viewer, viewer.channel, time.monotonic())

    def _leave(self, viewer: StreamClient, reason: str) -> None:
        del self._viewers[viewer.descriptor]
        channel = viewer.channel
        if channel is not None:
            channel.viewers.discard(viewer)
            channel.leave(viewer)
            if isinstance(viewer.wanted, JpegVariant) and not channel.viewers:
                del self._channels[viewer.wanted]
        self._close(viewer)
        self._on_channels(tuple(self._channels.values()))
        watched_s = time.monotonic() - viewer.joined_s
        log.info(
            "Viewer %s %s after %.0f s, %d pictures, %d skipped; %d watch",
            viewer.address,
            reason,
            watched_s,
            max(viewer.pictures, 0),
            viewer.skipped,
            len(self._viewers),
        )
        if not self._viewers:
            self._give_ring_up()

    def _close(self, viewer: StreamClient) -> None:
        # A closed descriptor leaves the epoll set by itself.
        viewer.connection.close()
        viewer.on_leave()
