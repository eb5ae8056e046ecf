"""Hands packets from the encoder's thread to one consumer thread, and keeps a pre-roll while nothing is consumed.

The queue starts with a keyframe, and so do the packets after every loss: a decoder never gets a frame without its
reference.
"""

import math
import threading
from collections import deque
from collections.abc import Callable
from itertools import chain

from softcam.h264.packet import Packet, VideoFormat


class PacketQueue:
    """A `PacketSink` with a bounded queue; all methods may be called by any thread.

    While it is consumed, it holds all packets up to its limits. Beyond `max_s` it discards everything, because a live
    consumer has no use for old packets. Beyond `max_bytes` it discards new packets, because a recording needs those
    that are already queued. Between `stop_consuming` and `start_consuming` it holds the last `preroll_s` seconds, less
    where they exceed `max_bytes`.
    """

    def __init__(
        self,
        on_packets: Callable[[], None] = lambda: None,
        *,
        on_overflow: Callable[[], None] = lambda: None,
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
        self._lock = threading.Lock()  # guards the fields below; those without underscore are read without it
        self.fmt: VideoFormat | None = None  # of the newest packets; None before the encoder has delivered any
        self.size = 0  # bytes in the queue
        self.discarded = 0  # packets so far, including those before the first keyframe
        self.is_awaiting_keyframe = True  # packets are discarded until the next one
        self._is_consumed = is_consumed
        # Packets from a keyframe on, with their formats; the first group may continue one that was taken.
        self._groups: deque[list[tuple[VideoFormat, Packet]]] = deque()

    # --- the encoder's thread ---------------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        with self._lock:
            self.fmt = fmt
            self.is_awaiting_keyframe = True
        self._on_packets()

    def on_packet(self, packet: Packet) -> None:
        with self._lock:
            if self.fmt is None or (self.is_awaiting_keyframe and not packet.is_keyframe):
                self.discarded += 1
                return
            is_overflow = self._is_consumed and self.size > self._max_bytes
            is_first = is_overflow and not self.is_awaiting_keyframe
            if is_overflow:
                self.is_awaiting_keyframe = True
                self.discarded += 1
            else:
                self._append(packet, self.fmt)
        if is_first:
            self._on_overflow()
        self._on_packets()

    def _append(self, packet: Packet, fmt: VideoFormat) -> None:
        self.is_awaiting_keyframe = False
        if packet.is_keyframe or not self._groups:
            self._groups.append([])
        self._groups[-1].append((fmt, packet))
        self.size += len(packet.data)
        if not self._is_consumed:
            self._trim(packet.began_s - self._preroll_s if self._preroll_s else None)
            while self.size > self._max_bytes and len(self._groups) > 1:
                self._drop_oldest()
        elif packet.began_s - self._groups[0][0][1].began_s > self._max_s:
            self.discarded += sum(map(len, self._groups))
            self._clear()

    # --- the consumer -----------------------------------------------------------------------------------------

    def take_packets(self) -> list[tuple[VideoFormat, Packet]]:
        """Remove and return all packets in order, each with its format."""
        with self._lock:
            taken = list(chain.from_iterable(self._groups))
            self._groups.clear()
            self.size = 0
            return taken

    def start_consuming(self, from_s: float | None) -> None:
        """Hold all packets from now on, and of the pre-roll those from the last keyframe at or before `from_s`
        (monotonic clock) on; None discards the pre-roll."""
        with self._lock:
            self._is_consumed = True
            self._trim(from_s)

    def stop_consuming(self) -> list[tuple[VideoFormat, Packet]]:
        """Take all packets, and hold the pre-roll from now on, from the next keyframe; does nothing if it does so."""
        with self._lock:
            if not self._is_consumed:
                return []
            taken = list(chain.from_iterable(self._groups))
            self._clear()
            self._is_consumed = False
            return taken

    def _trim(self, from_s: float | None) -> None:
        if from_s is None:
            self._clear()
            return
        while len(self._groups) > 1 and self._groups[1][0][1].began_s <= from_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.size -= sum(len(packet.data) for _, packet in self._groups.popleft())

    def _clear(self) -> None:
        self._groups.clear()
        self.size = 0
        self.is_awaiting_keyframe = True
