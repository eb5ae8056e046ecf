"""Stream clients and the channels they are subscribed to: which part each client gets next. No socket is written here.

A client gets one part after the other, each a bytes object that it shares with other clients. The fan-out sends the
parts, and asks the client's channel for the next one when a part is complete. Everything here runs on the event loop,
except for the fields that name their other readers.
"""

import math
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from softcam.net.sockets import FdArray
from softcam.streaming.jpeg_encoder import JpegVariant

BOUNDARY: Final = "frame"  # unquoted, as the pattern in Fluidd expects it
FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()


class Channel(Protocol):
    """A source of parts and the clients that are subscribed to it."""

    @property
    def clients(self) -> "Collection[StreamClient]":
        """From `subscribe` to `unsubscribe`."""

    def subscribe(self, client: "StreamClient", now_s: float) -> bytes:
        """A new client. Returns what to send first; may be empty."""

    def next_part(self, client: "StreamClient", now_s: float) -> bytes | None:
        """The next part for a client that has received everything; empty where it has to wait, None to disconnect."""

    def unsubscribe(self, client: "StreamClient") -> None:
        """A client disconnected."""


@dataclass(eq=False, slots=True)
class StreamClient:
    """One streaming connection. Only the event loop uses it once it was added.

    A client of the ready set of a `JpegChannel` has received all parts, so what it has received is not counted with
    each part: `part_number` and `frames` are valid again when it has left the set.
    """

    connection: socket.socket
    address: str
    source: "JpegVariant | Channel"
    interval_s: float  # minimum time between two frames; 0 for every frame
    on_disconnect: Callable[[], None]
    fd: int = field(init=False)
    channel: Channel | None = field(default=None, init=False)
    unsent: bytes = field(default=b"", init=False)
    sent_bytes: int = field(default=0, init=False)  # of `unsent`
    progress_s: float = field(default=0.0, init=False)  # when data was last accepted, or a part was started
    connected_s: float = field(default=0.0, init=False)
    frames: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    part_number: int = field(default=0, init=False)  # JPEG only: of the last part that was started
    due_s: float = field(default=0.0, init=False)  # JPEG only

    def __post_init__(self) -> None:
        self.fd = self.connection.fileno()

    def attach(self, channel: Channel, now_s: float) -> None:
        """It is connected, to this channel."""
        self.channel = channel
        self.connected_s = self.progress_s = now_s

    def start_part(self, part: bytes, now_s: float) -> None:
        self.unsent, self.sent_bytes, self.progress_s = part, 0, now_s

    def on_sent(self, sent: int, now_s: float) -> None:
        """The kernel accepted some more bytes of the part."""
        self.sent_bytes += sent
        if self.sent_bytes == len(self.unsent):
            self.unsent, self.sent_bytes = b"", 0
            self.frames += 1
        else:
            self.progress_s = now_s

    def count_dropped(self, parts: int) -> None:
        self.dropped += parts

    def begin_jpegs(self, number: int, due_s: float, *, has_part: bool) -> None:
        """The first boundary is sent, with the current part of that number, if there is one."""
        self.part_number, self.due_s = number, due_s
        self.frames = 0 if has_part else -1  # the boundary alone is not a frame

    def take_jpeg(self, number: int, now_s: float) -> None:
        """The part of that number is sent."""
        self.part_number = number
        if self.interval_s:
            # Counted from when the frame was due, so that the average holds; a pause is made up for by one frame only.
            self.due_s = max(self.due_s + self.interval_s, now_s)

    def enter_ready(self, number: int) -> None:
        """From now on it receives every part after the one of that number."""
        self.frames -= number

    def leave_ready(self, number: int, received: int) -> None:
        """Up to now it has received every part up to `received`; the one of that number was started."""
        self.part_number = number
        self.frames += received

    def is_due(self, now_s: float) -> bool:
        """Whether the minimum time since the last frame has passed."""
        return not self.interval_s or now_s >= self.due_s


@dataclass(eq=False, slots=True)
class JpegChannel:
    """The clients of one JPEG variant: each gets the latest part. Written by the loop; encoder threads read `due_s`.

    A part is header, JPEG and the boundary after it. A client is either in `ready` or in `lagging`. The ready clients
    have received everything and get every frame: a new part is sent to all of them at once, and what is the same for
    all of them is not stored per client.
    """

    variant: JpegVariant
    clients: set[StreamClient] = field(default_factory=set)
    ready: dict[StreamClient, None] = field(default_factory=dict)
    lagging: set[StreamClient] = field(default_factory=set)  # still receiving a part, or with a frame rate limit
    due_s: float = 0.0  # when the next frame is due for the first of them; encoders drop earlier frames
    part: bytes = b""
    part_made_s: float = -math.inf  # monotonic time starts with the boot: 0 would be recent
    part_number: int = 0  # increases with each part
    _batch: tuple[list[StreamClient], list[int], FdArray] | None = None

    @property
    def ready_batch(self) -> tuple[list[StreamClient], list[int], FdArray]:
        """The ready clients, and their sockets as a list and as an array: the same objects until the set changes."""
        if self._batch is None:
            fds = [client.fd for client in self.ready]
            self._batch = list(self.ready), fds, np.array(fds, np.int32)
        return self._batch

    def subscribe(self, client: StreamClient, now_s: float) -> bytes:
        self.clients.add(client)
        self.lagging.add(client)
        self.due_s = 0.0
        # Counted from the exposure of the current part: where that is old, or missing, the next frame is due at once.
        due_s = max(now_s, self.part_made_s + client.interval_s)
        client.begin_jpegs(self.part_number, due_s, has_part=bool(self.part))
        return FIRST_BOUNDARY + self.part

    def publish(self, part: bytes, made_s: float) -> bool:
        """Replace the current part; False where that one is newer, as two encoders may finish out of order."""
        if made_s < self.part_made_s:
            return False
        self.part = part
        self.part_made_s = made_s
        self.part_number += 1
        return True

    def next_part(self, client: StreamClient, now_s: float) -> bytes:
        # Parts that a client was too slow for are dropped: it continues with the latest one that it has not received.
        if client.part_number == self.part_number:
            if not client.interval_s:
                self.lagging.discard(client)
                client.enter_ready(self.part_number)
                self.ready[client] = None
                self._batch = None
            return b""
        if not client.is_due(now_s):
            return b""
        client.take_jpeg(self.part_number, now_s)
        return self.part

    def on_partial_send(self, client: StreamClient) -> None:
        """A client of the ready set did not accept all of the latest part."""
        self._remove_ready(client, self.part_number - 1)
        self.lagging.add(client)

    def update_lagging(self, now_s: float) -> None:
        """Each of them was sent what it accepted: count the frames that it lost, and find out when the next is due."""
        for client in self.lagging:
            if client.unsent and client.part_number != self.part_number and client.is_due(now_s):
                client.count_dropped(1)
        due_s = (client.due_s if client.interval_s else 0.0 for client in self.lagging)
        self.due_s = 0.0 if self.ready else min(due_s, default=0.0)

    def unsubscribe(self, client: StreamClient) -> None:
        self.clients.discard(client)
        if client in self.ready:
            self._remove_ready(client, self.part_number)
        self.lagging.discard(client)

    def _remove_ready(self, client: StreamClient, received: int) -> None:
        del self.ready[client]
        client.leave_ready(self.part_number, received)
        self._batch = None
