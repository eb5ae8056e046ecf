"""Stream clients and the channels they are subscribed to: which part each client gets next. No socket is written here.

A client gets one part after the other, each a bytes object that it shares with other clients. The fan-out loop sends
the parts, and asks the client's channel for the next one when a part is complete. Everything here runs on the loop's
thread, except for the fields that name their other readers.
"""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from softcam.streaming.jpeg_encoder import JpegVariant
from softcam.streaming.sockets import FdArray

BOUNDARY: Final = "frame"  # unquoted, as the pattern in Fluidd expects it
FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()


class Channel(Protocol):
    """A source of parts and the clients that are subscribed to it."""

    clients: "set[StreamClient]"

    def subscribe(self, client: "StreamClient", now_s: float) -> bytes:
        """A new client, which is already in `clients`. Returns what to send first; may be empty."""

    def next_part(self, client: "StreamClient", now_s: float) -> bytes | None:
        """The next part for a client that has received everything; empty where it has to wait, None to disconnect."""

    def unsubscribe(self, client: "StreamClient") -> None:
        """A client disconnected; it is no longer in `clients`."""


@dataclass(eq=False, slots=True)
class StreamClient:
    """One streaming connection. Only the fan-out thread uses it once it was added."""

    connection: socket.socket
    address: str
    source: "JpegVariant | Channel"
    interval_s: float  # minimum time between two frames; 0 for every frame
    on_disconnect: Callable[[], None]
    fd: int = -1
    channel: Channel | None = None
    unsent: bytes = b""
    sent_bytes: int = 0  # of `unsent`
    part_number: int = 0  # the last part that was started; of an fMP4 stream, the next one
    due_s: float = 0.0
    is_awaiting_keyframe: bool = False  # fMP4 only
    format_number: int = 0  # fMP4 only: of the initial segment that was sent; 0 before the first one
    progress_s: float = 0.0
    connected_s: float = 0.0
    frames: int = 0
    dropped: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether the minimum time since the last frame has passed."""
        return not self.interval_s or now_s >= self.due_s


@dataclass(eq=False, slots=True)
class JpegChannel:
    """The clients of one JPEG variant: each gets the latest part. Written by the loop; encoder threads read `due_s`.

    A part is header, JPEG and the boundary after it. A client is either in `ready` or in `lagging`. The ready clients
    have received everything and get every frame: a new part is sent to all of them at once. So what is the same for all
    of them is not stored per client: `part_number` and `frames` of a client are valid again when it has left the set.
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
        self.lagging.add(client)
        self.due_s = 0.0
        # The first boundary precedes the current part, if there is one.
        client.part_number = self.part_number
        client.frames = 0 if self.part else -1  # the boundary alone is not a frame
        # Counted from the exposure of the current part: where that is old, or missing, the next frame is due at once.
        client.due_s = max(now_s, self.part_made_s + client.interval_s)
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
                client.frames -= self.part_number
                self.ready[client] = None
                self._batch = None
            return b""
        if not client.is_due(now_s):
            return b""
        client.part_number = self.part_number
        if client.interval_s:
            # Counted from when the frame was due, so that the average holds; a pause is made up for by one frame only.
            client.due_s = max(client.due_s + client.interval_s, now_s)
        return self.part

    def on_partial_send(self, client: StreamClient) -> None:
        """A client of the ready set did not accept all of the latest part."""
        self._remove_ready(client)
        client.frames -= 1
        self.lagging.add(client)

    def unsubscribe(self, client: StreamClient) -> None:
        if client in self.ready:
            self._remove_ready(client)
        self.lagging.discard(client)

    def _remove_ready(self, client: StreamClient) -> None:
        del self.ready[client]
        client.part_number = self.part_number
        client.frames += self.part_number
        self._batch = None
