"""Viewers, and the channels that they watch: what the fan-out's loop sends to whom. No socket is written here.

A viewer gets one part after the other, each a bytes object that it shares with others; the loop sends, and asks the
viewer's channel for the next part when one is done. All of it runs on the loop's thread, but for what is said to be
read elsewhere.
"""

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from softcam.streaming.jpeg_encoder import JpegVariant
from softcam.streaming.sockets import Descriptors

BOUNDARY: Final = "frame"  # unquoted, the way Fluidd's pattern reads it
FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()


class Channel(Protocol):
    """Viewers who get parts from one source."""

    viewers: "set[StreamClient]"

    def join(self, viewer: "StreamClient", now_s: float) -> bytes:
        """A new viewer, who is among `viewers` already; what it gets first, or nothing."""

    def next(self, viewer: "StreamClient", now_s: float) -> bytes | None:
        """What goes to a viewer now that it has taken everything; nothing where it has to wait, None to let it go."""

    def leave(self, viewer: "StreamClient") -> None:
        """It is gone, and no more among `viewers`."""


@dataclass(eq=False, slots=True)
class StreamClient:
    """One connection that watches. Only the loop touches it once it was added."""

    connection: socket.socket
    address: str
    wanted: "JpegVariant | Channel"
    interval_s: float  # the least distance of two pictures, 0 for every picture
    on_leave: Callable[[], None]
    descriptor: int = -1
    channel: Channel | None = None
    unsent: bytes = b""
    sent_bytes: int = 0  # of `unsent`
    part_number: int = 0  # the part it got last; of a movie, the one that it gets next
    due_s: float = 0.0
    place: int = -1  # in the crowd; -1 is not in it
    waits_for_keyframe: bool = False  # of a movie alone, and so is the run
    run: int = 0
    progress_s: float = 0.0
    joined_s: float = 0.0
    pictures: int = 0
    skipped: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether it may get its next picture already."""
        return not self.interval_s or now_s >= self.due_s


class ReadySet:
    """Viewers who have taken everything and want every picture: they get a new part all at once.

    What would be the same for each of them is not written down for each: their `part_number` and `pictures` are right
    again when they are taken out.
    """

    def __init__(self) -> None:
        self.viewers: list[StreamClient] = []
        self.descriptors: list[int] = []  # of the sockets, in the same order
        self._packed: Descriptors | None = None

    @property
    def packed(self) -> Descriptors:
        """`descriptors` as an array, the same object until somebody comes or goes."""
        if self._packed is None:
            self._packed = np.array(self.descriptors, np.int32)
        return self._packed

    def add(self, viewer: StreamClient, part_number: int) -> None:
        """`part_number` is the one that it got last."""
        viewer.place = len(self.viewers)
        viewer.pictures -= part_number
        self.viewers.append(viewer)
        self.descriptors.append(viewer.descriptor)
        self._packed = None

    def take_out(self, viewer: StreamClient, part_number: int) -> None:
        """`part_number` is the one that everyone here got last."""
        last = self.viewers.pop()
        self.descriptors.pop()
        if last is not viewer:
            last.place = viewer.place
            self.viewers[last.place] = last
            self.descriptors[last.place] = last.descriptor
        viewer.place = -1
        viewer.part_number = part_number
        viewer.pictures += part_number
        self._packed = None


@dataclass(eq=False, slots=True)
class JpegChannel:
    """All viewers who want the same pictures: each gets the newest one. The loop changes it; encoders read `due_s`.

    A part is header, JPEG and the boundary behind it. Each viewer is in the crowd or stands apart.
    """

    key: JpegVariant
    viewers: set[StreamClient] = field(default_factory=set)
    crowd: ReadySet = field(default_factory=ReadySet)
    apart: set[StreamClient] = field(default_factory=set)
    due_s: float = 0.0  # when the first of them wants its next picture; encoders leave earlier frames out
    part: bytes = b""
    part_made_s: float = -math.inf  # monotonic time begins with the boot: 0 would be recent
    part_number: int = 0  # rises with each part

    def join(self, viewer: StreamClient, now_s: float) -> bytes:
        self.apart.add(viewer)
        self.due_s = 0.0
        # The first boundary goes ahead of the picture that everyone sees now, if there is one.
        viewer.part_number = self.part_number
        viewer.pictures = 0 if self.part else -1  # the boundary alone is none
        # Counted from the exposure of what it sees first: where that is old, or nothing, the next picture is for it.
        viewer.due_s = max(now_s, self.part_made_s + viewer.interval_s)
        return FIRST_BOUNDARY + self.part

    def take(self, part: bytes, made_s: float) -> bool:
        """A new part; False where it is older than the one there is, as two encoders may finish out of order."""
        if made_s < self.part_made_s:
            return False
        self.part = part
        self.part_made_s = made_s
        self.part_number += 1
        return True

    def next(self, viewer: StreamClient, now_s: float) -> bytes:
        # The part that a viewer was too slow for is gone; it goes on with the newest, unless it has that one.
        if viewer.part_number == self.part_number:
            if not viewer.interval_s:
                self.apart.discard(viewer)
                self.crowd.add(viewer, self.part_number)
            return b""
        if not viewer.is_due(now_s):
            return b""
        viewer.part_number = self.part_number
        if viewer.interval_s:
            # Counted from when it was due, so the average holds; after a pause one picture is made up for, never more.
            viewer.due_s = max(viewer.due_s + viewer.interval_s, now_s)
        return self.part

    def fell_short(self, viewer: StreamClient) -> None:
        """One of the crowd did not take all of the newest part."""
        self.crowd.take_out(viewer, self.part_number)
        viewer.pictures -= 1
        self.apart.add(viewer)

    def leave(self, viewer: StreamClient) -> None:
        if viewer.place >= 0:
            self.crowd.take_out(viewer, self.part_number)
        self.apart.discard(viewer)
