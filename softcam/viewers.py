"""Viewers, and the channels that they watch: what the fan-out's loop sends to whom. No socket is written here.

A viewer gets one part after the other, each a bytes object that it shares with others; the loop sends, and asks the
viewer's channel for the next part when one is done. All of it runs on the loop's thread, but for what is said to be
read elsewhere.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from softcam.pictures import PictureKey

BOUNDARY: Final = "frame"  # unquoted, the way Fluidd's pattern reads it
FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()


class Channel(Protocol):
    """Viewers who get parts from one source."""

    viewers: "set[Viewer]"

    def join(self, viewer: "Viewer", now_s: float) -> bytes:
        """A new viewer, who is among `viewers` already; what it gets first, or nothing."""

    def next(self, viewer: "Viewer", now_s: float) -> bytes | None:
        """What goes to a viewer now that it has taken everything; nothing where it has to wait, None to let it go."""

    def leave(self, viewer: "Viewer") -> None:
        """It is gone, and no more among `viewers`."""


@dataclass(eq=False, slots=True)
class Viewer:
    """One connection that watches. Only the loop touches it once it was added."""

    connection: socket.socket
    address: str
    wanted: "PictureKey | Channel"
    interval_s: float  # the least distance of two pictures, 0 for every picture
    on_leave: Callable[[], None]
    descriptor: int = -1
    channel: Channel | None = None
    unsent: bytes = b""
    sent_bytes: int = 0  # of `unsent`
    part_number: int = 0  # the part it got last; of a movie, the one that it gets next
    due_s: float = 0.0
    waits_for_keyframe: bool = False  # of a movie alone, and so is the run
    run: int = 0
    progress_s: float = 0.0
    joined_s: float = 0.0
    pictures: int = 0
    skipped: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether it may get its next picture already."""
        return not self.interval_s or now_s >= self.due_s


@dataclass(eq=False, slots=True)
class PictureChannel:
    """All viewers who want the same pictures: each gets the newest one. The loop changes it; encoders read `due_s`.

    A part is header, JPEG and the boundary behind it.
    """

    key: PictureKey
    viewers: set[Viewer] = field(default_factory=set)
    due_s: float = 0.0  # when the first of them wants its next picture; encoders leave earlier frames out
    part: bytes = b""
    part_made_s: float = 0.0
    part_number: int = 0  # rises with each part

    def join(self, viewer: Viewer, now_s: float) -> bytes:
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

    def next(self, viewer: Viewer, now_s: float) -> bytes:
        # The part that a viewer was too slow for is gone; it goes on with the newest, unless it has that one.
        if viewer.part_number == self.part_number or not viewer.is_due(now_s):
            return b""
        viewer.part_number = self.part_number
        if viewer.interval_s:
            # Counted from when it was due, so the average holds; after a pause one picture is made up for, never more.
            viewer.due_s = max(viewer.due_s + viewer.interval_s, now_s)
        return self.part

    def leave(self, viewer: Viewer) -> None:
        pass
