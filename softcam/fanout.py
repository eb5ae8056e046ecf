"""Gives every stream viewer the newest picture: one thread, one epoll, nothing queued.

Request threads hand a viewer's socket over with `add`; encoders hand a finished part over with `deliver`; both put it
into a queue first and wake the loop second, and that is the only door. The loop never blocks and never encodes. A
viewer that still has unsent bytes finishes its part and goes on with the newest one: a slow viewer loses frames, delays
nobody, and costs the same memory however slow it is.

A part is header, JPEG and the boundary behind it in one bytes object, which all viewers of a channel share.
"""

import contextlib
import ctypes
import errno
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from softcam.pictures import PictureKey
from softcam.workers import start_worker

log = logging.getLogger(__name__)

BOUNDARY: Final = "frame"  # unquoted, the way Fluidd's pattern reads it
CONTENT_TYPE: Final = f"multipart/x-mixed-replace;boundary={BOUNDARY}"
_FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()
# The next boundary straight behind each picture: browsers draw a frame only when they see what follows it.
_NEXT_BOUNDARY: Final = f"\r\n--{BOUNDARY}\r\n".encode()

# Above so many bytes not yet sent the kernel takes no more: a throttled viewer's next part is then a new one, not one
# that waited in megabytes of socket buffer. socket.TCP_NOTSENT_LOWAT exists from Python 3.12 on; 25 is tcp(7)'s number.
_TCP_NOTSENT_LOWAT: Final = 25
_NOTSENT_BYTES: Final = 16384
_STUCK_LIMIT_S: Final = 30.0  # a viewer that took nothing for so long is gone, though its machine does not say so
_TICK_S: Final = 1.0  # how often stuck viewers and placeholders are looked at, while there is any reason to
_DRAIN_BYTES: Final = 4096

_QUIET: Final = select.EPOLLIN | select.EPOLLRDHUP  # what is heard of a viewer who takes everything

# send(2) that keeps the GIL. `socket.send` gives it up, and beside one busy Python thread (a frame hook) has it back
# a switch interval later: once for every viewer. This call cannot block, so nobody waits for it.
_send_at_once = ctypes.PyDLL(None, use_errno=True).send
_send_at_once.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send_at_once.restype = ctypes.c_ssize_t
_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


@dataclass(eq=False, slots=True)
class Channel:
    """All viewers who want the same pictures. The loop alone changes it; encoders read `due_s`."""

    key: PictureKey
    viewers: "set[Viewer]" = field(default_factory=set)
    due_s: float = 0.0  # when the first of them wants its next picture; encoders leave earlier frames out
    part: bytes = b""
    part_made_s: float = 0.0
    part_number: int = 0  # rises with each part


@dataclass(eq=False, slots=True)
class Viewer:
    """One connection that watches. Only the loop touches it once it was added."""

    connection: socket.socket
    address: str
    key: PictureKey
    interval_s: float  # the least distance of two pictures, 0 for every picture
    on_leave: Callable[[], None]
    descriptor: int = -1
    channel: Channel | None = None
    unsent: bytes = b""
    sent_bytes: int = 0  # of `unsent`
    part_number: int = 0  # the part it got last
    due_s: float = 0.0
    waits_for_room: bool = False
    progress_s: float = 0.0
    joined_s: float = 0.0
    pictures: int = 0
    skipped: int = 0


class FanOut:
    """Owns the viewers' sockets and the thread `fan-out`."""

    def __init__(
        self,
        on_channels: Callable[[tuple[Channel, ...]], None],
        on_tick: Callable[[], None],
        on_death: Callable[[str], None],
        *,
        stuck_limit_s: float = _STUCK_LIMIT_S,
    ) -> None:
        """The first two are called on the loop's thread and must be quick; what they raise ends the loop.

        `on_channels` is told which channels have viewers whenever that changes; `on_tick` comes about once a second
        while somebody watches. A viewer that took nothing for `stuck_limit_s` is let go.
        """
        self._on_channels = on_channels
        self._on_tick = on_tick
        self._stuck_limit_s = stuck_limit_s
        self._tick_s = min(_TICK_S, stuck_limit_s)
        self._epoll = select.epoll()
        self._wake_lock = threading.Lock()  # guards _wake, so that nobody writes to a number that is someone else's now
        self._wake: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._joining: deque[Viewer] = deque()  # the door, thread-safe by itself
        self._delivered: deque[tuple[PictureKey, bytes, float]] = deque()
        self._is_stopping = threading.Event()
        self._is_over = threading.Event()  # set before the door is emptied for the last time

        # Touched by the loop alone, but for len(), which the status reads.
        self._viewers: dict[int, Viewer] = {}
        self._channels: dict[PictureKey, Channel] = {}
        self._next_tick_s = 0.0

        self._thread = start_worker("fan-out", self._run, on_death)

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers) + len(self._joining)

    def add(self, viewer: Viewer) -> None:
        """Hand a viewer over; its HTTP header was sent. The loop owns the socket from now on and calls `on_leave` once.

        After the end the viewer is let go at once, by the caller's thread.
        """
        self._joining.append(viewer)
        self._poke()
        if self._is_over.is_set():
            self._turn_away()

    def deliver(self, key: PictureKey, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        """A new picture for the viewers of `key`, exposed at `timestamp_s` (Unix time).

        `made_s` (monotonic) orders the pictures: an older one that comes later is left out.
        """
        header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\nX-Timestamp: %.6f\r\n\r\n" % (
            len(jpeg),
            timestamp_s,
        )
        self._delivered.append((key, b"".join((header, jpeg, _NEXT_BOUNDARY)), made_s))
        self._poke()

    def stop(self, deadline_s: float) -> None:
        """Let every viewer go and end the thread; waits until the deadline (monotonic clock)."""
        self._is_stopping.set()
        self._poke()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _poke(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                with contextlib.suppress(BlockingIOError):  # full: already poked
                    os.eventfd_write(self._wake, 1)

    # --- the loop ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wake = self._wake
        try:
            while wake is not None and not self._is_stopping.is_set():
                for descriptor, events in self._epoll.poll(self._timeout_s()):
                    if descriptor == wake:
                        os.eventfd_read(wake)
                    elif (viewer := self._viewers.get(descriptor)) is not None:
                        self._serve(viewer, events)
                while self._joining:
                    self._join(self._joining.popleft())
                while self._delivered:
                    self._spread(*self._delivered.popleft())
                self._tick(time.monotonic())
        finally:
            self._is_over.set()
            for viewer in self._viewers.values():
                self._close(viewer)
            self._viewers.clear()
            self._turn_away()
            with self._wake_lock:
                self._wake = None
            if wake is not None:
                os.close(wake)
            self._epoll.close()

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
        for viewer in [viewer for viewer in self._viewers.values() if viewer.waits_for_room]:
            if now_s - viewer.progress_s > self._stuck_limit_s:
                self._leave(viewer, f"took nothing for {self._stuck_limit_s:g} s")
        self._on_tick()

    def _join(self, viewer: Viewer) -> None:
        connection = viewer.connection
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            viewer.descriptor = connection.fileno()
            self._epoll.register(viewer.descriptor, _QUIET)
        except (OSError, ValueError) as error:
            log.info("Viewer %s left before its first picture: %s", viewer.address, error)
            self._close(viewer)
            return
        now_s = time.monotonic()
        viewer.joined_s = viewer.progress_s = now_s
        self._viewers[viewer.descriptor] = viewer
        channel = self._channels.get(viewer.key)
        if channel is None:
            channel = self._channels[viewer.key] = Channel(viewer.key)
        viewer.channel = channel
        channel.viewers.add(viewer)
        channel.due_s = 0.0
        log.info("Viewer %s watches, %d now", viewer.address, len(self._viewers))
        self._on_channels(tuple(self._channels.values()))
        # The first boundary goes ahead of the picture that everyone sees now, if there is one.
        viewer.unsent = _FIRST_BOUNDARY + channel.part
        viewer.part_number = channel.part_number
        viewer.pictures = 0 if channel.part else -1  # the boundary alone is none
        # Counted from the exposure of what it sees first: where that is old, or nothing, the next picture is for it.
        viewer.due_s = max(now_s, channel.part_made_s + viewer.interval_s)
        self._send(viewer)

    def _spread(self, key: PictureKey, part: bytes, made_s: float) -> None:
        """Take the newest part, and start it with everyone who is idle and whose turn it is."""
        channel = self._channels.get(key)
        if channel is None or made_s < channel.part_made_s:
            return  # the last viewer left meanwhile, or two encoders finished out of order
        channel.part = part
        channel.part_made_s = made_s
        channel.part_number += 1
        now_s = time.monotonic()
        due_s = float("inf")
        for viewer in tuple(channel.viewers):
            if viewer.interval_s and now_s < viewer.due_s:
                due_s = min(due_s, viewer.due_s)
                continue
            if viewer.sent_bytes < len(viewer.unsent):
                viewer.skipped += 1
            else:
                self._start_part(viewer, channel, now_s)
            due_s = min(due_s, viewer.due_s if viewer.interval_s else 0.0)
        channel.due_s = due_s if due_s != float("inf") else 0.0

    def _start_part(self, viewer: Viewer, channel: Channel, now_s: float) -> None:
        viewer.unsent = channel.part
        viewer.sent_bytes = 0
        viewer.part_number = channel.part_number
        if viewer.interval_s:
            # Counted from when it was due, so the average holds; after a pause one picture is made up for, never more.
            viewer.due_s = max(viewer.due_s + viewer.interval_s, now_s)
        self._send(viewer)

    def _send(self, viewer: Viewer) -> None:
        """Send what the kernel takes now of the part that the viewer is at."""
        unsent = viewer.unsent
        at = viewer.sent_bytes
        if at:  # the rest of a part, for a slow viewer: without a copy of it
            try:
                sent = viewer.connection.send(memoryview(unsent)[at:])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._leave(viewer, error.strerror or "connection lost")
                return
        else:
            sent = _send_at_once(viewer.descriptor, unsent, len(unsent), _SEND_FLAGS)
            if sent < 0:
                trouble = ctypes.get_errno()
                if trouble not in (errno.EAGAIN, errno.EINTR):
                    self._leave(viewer, os.strerror(trouble))
                    return
                sent = 0
        at += sent
        if at == len(unsent):
            viewer.unsent, viewer.sent_bytes = b"", 0
            viewer.pictures += 1
            if viewer.waits_for_room:
                viewer.waits_for_room = False
                self._epoll.modify(viewer.descriptor, _QUIET)
            return
        viewer.sent_bytes = at
        if sent or not viewer.waits_for_room:
            viewer.progress_s = time.monotonic()
        if not viewer.waits_for_room:
            viewer.waits_for_room = True
            self._epoll.modify(viewer.descriptor, _QUIET | select.EPOLLOUT)

    def _serve(self, viewer: Viewer, events: int) -> None:
        if events & ~select.EPOLLOUT:
            try:
                has_left = not viewer.connection.recv(_DRAIN_BYTES)  # what viewers say here means nothing
            except BlockingIOError:
                has_left = False
            except OSError:
                has_left = True
            if has_left:
                self._leave(viewer, "left")
                return
        if events & select.EPOLLOUT:
            self._send(viewer)
            channel = viewer.channel
            # The part that it was too slow for is gone; it goes on with the newest, unless it has that one.
            if (
                channel is not None
                and not viewer.unsent
                and viewer.part_number != channel.part_number
                and (now_s := time.monotonic()) >= viewer.due_s
            ):
                self._start_part(viewer, channel, now_s)

    def _leave(self, viewer: Viewer, reason: str) -> None:
        del self._viewers[viewer.descriptor]
        channel = viewer.channel
        if channel is not None:
            channel.viewers.discard(viewer)
            if not channel.viewers:
                del self._channels[channel.key]
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

    def _close(self, viewer: Viewer) -> None:
        # A closed descriptor leaves the epoll set by itself.
        viewer.connection.close()
        viewer.on_leave()
