"""Hands packets from the encoder's thread to one consumer thread, and keeps a pre-roll while nothing is consumed.

The queue starts with a keyframe, and so do the packets after every loss: a decoder never gets a frame without its
reference.
"""

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from softcam.h264.packet import Packet, VideoFormat


def _ignore() -> None:
    """The default callback."""


@dataclass(eq=False, slots=True)
class _Group:
    """Packets from a keyframe on; the first group after a `take` may continue the one before."""

    fmt: VideoFormat
    packets: list[Packet] = field(default_factory=list)
    size: int = 0  # bytes


class PacketQueue:
    """A `PacketSink` with a bounded queue; all methods may be called by any thread.

    While it is consumed, it holds all packets up to its limits. Beyond `max_s` it discards everything, because a live
    consumer has no use for old packets. Beyond `max_bytes` it discards new packets, because a recording needs those
    that are already queued. Between `stop_consuming` and `start_consuming` it holds the last `preroll_s` seconds, less
    where they exceed `max_bytes`.
    """

    def __init__(
        self,
        on_packets: Callable[[], None] = _ignore,
        *,
        on_overflow: Callable[[], None] = _ignore,
        max_s: float = math.inf,
        max_bytes: float = math.inf,
        preroll_s: float = 0.0,
        is_consumed: bool = True,
    ) -> None:
        """`on_packets` is called for each format and each queued packet, `on_overflow` for the first packet discarded
        beyond `max_bytes`; both on the encoder's thread, without the lock."""
        self._on_packets = on_packets
        self._on_overflow = on_overflow
        self._max_s = max_s
        self._max_bytes = max_bytes
        self._preroll_s = preroll_s
        self._lock = threading.Lock()  # guards the fields below
        self._fmt: VideoFormat | None = None
        self._groups: deque[_Group] = deque()
        self._size = 0  # bytes
        self._is_consumed = is_consumed
        self._awaits_keyframe = True
        self._discarded = 0

    # --- the encoder's thread ---------------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        with self._lock:
            self._fmt = fmt
            self._awaits_keyframe = True
        self._on_packets()

    def on_packet(self, packet: Packet) -> None:
        with self._lock:
            if self._fmt is None or (self._awaits_keyframe and not packet.is_keyframe):
                self._discarded += 1
                return
            if self._is_consumed and self._size > self._max_bytes:
                is_first = not self._awaits_keyframe
                self._awaits_keyframe = True
                self._discarded += 1
            else:
                is_first = False
                self._append(packet, self._fmt)
        if is_first:
            self._on_overflow()
        self._on_packets()

    def _append(self, packet: Packet, fmt: VideoFormat) -> None:
        """Under the lock."""
        self._awaits_keyframe = False
        if packet.is_keyframe or not self._groups:
            self._groups.append(_Group(fmt))
        self._groups[-1].packets.append(packet)
        self._groups[-1].size += len(packet.data)
        self._size += len(packet.data)
        if not self._is_consumed:
            self._trim(packet.began_s - self._preroll_s if self._preroll_s else None)
            while self._size > self._max_bytes and len(self._groups) > 1:
                self._drop_oldest()
        elif packet.began_s - self._groups[0].packets[0].began_s > self._max_s:
            self._discarded += sum(len(group.packets) for group in self._groups)
            self._clear()

    # --- the consumer -----------------------------------------------------------------------------------------

    @property
    def fmt(self) -> VideoFormat | None:
        """The format of the newest packets; None before the encoder has delivered any."""
        with self._lock:
            return self._fmt

    @property
    def discarded(self) -> int:
        """Packets discarded so far, including those before the first keyframe."""
        with self._lock:
            return self._discarded

    @property
    def awaits_keyframe(self) -> bool:
        """Whether packets are discarded until the next keyframe."""
        with self._lock:
            return self._awaits_keyframe

    @property
    def size(self) -> int:
        """Bytes in the queue."""
        with self._lock:
            return self._size

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return not self._groups

    def take(self) -> list[tuple[VideoFormat, Packet]]:
        """Remove and return all packets in order, each with its format."""
        with self._lock:
            return self._take()

    def start_consuming(self, from_s: float | None) -> None:
        """Hold all packets from now on, and of the pre-roll those from the last keyframe at or before `from_s`
        (monotonic clock) on; None discards the pre-roll."""
        with self._lock:
            self._is_consumed = True
            self._trim(from_s)

    def stop_consuming(self) -> list[tuple[VideoFormat, Packet]]:
        """Take all packets, and hold the pre-roll from now on; it starts with the next keyframe."""
        with self._lock:
            taken = self._take()
            self._is_consumed = False
            self._awaits_keyframe = True
            return taken

    def _take(self) -> list[tuple[VideoFormat, Packet]]:
        taken = [(group.fmt, packet) for group in self._groups for packet in group.packets]
        self._groups.clear()
        self._size = 0
        return taken

    def _trim(self, from_s: float | None) -> None:
        if from_s is None:
            self._clear()
            return
        while len(self._groups) > 1 and self._groups[1].packets[0].began_s <= from_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._size -= self._groups.popleft().size

    def _clear(self) -> None:
        self._groups.clear()
        self._size = 0
        self._awaits_keyframe = True
