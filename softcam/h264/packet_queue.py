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
    that are already queued. Consumed or not, it keeps the last `preroll_s` seconds, less where they exceed `max_bytes`.
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
        self.size = 0  # bytes in the queue, or of the pre-roll while nothing is consumed
        self.discarded = 0  # packets so far, including those before the first keyframe
        self.is_awaiting_keyframe = True  # packets are discarded until the next one
        self._is_consumed = is_consumed
        self._queue: list[tuple[VideoFormat, Packet]] = []  # empty while nothing is consumed
        self._preroll: deque[list[tuple[VideoFormat, Packet]]] = deque()  # in groups that begin with a keyframe
        self._preroll_bytes = 0

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
        if self._preroll_s:
            if packet.is_keyframe:
                self._preroll.append([])
            self._preroll[-1].append((fmt, packet))
            self._preroll_bytes += len(packet.data)
            self._trim(packet.began_s - self._preroll_s)
        if self._is_consumed:
            self._queue.append((fmt, packet))
            self.size += len(packet.data)
            if packet.began_s - self._queue[0][1].began_s > self._max_s:
                self.discarded += len(self._queue)
                self._clear()
        else:
            self.size = self._preroll_bytes

    # --- the consumer -----------------------------------------------------------------------------------------

    def take_packets(self) -> list[tuple[VideoFormat, Packet]]:
        """Remove and return all packets in order, each with its format."""
        with self._lock:
            return self._take_packets()

    def start_consuming(self, from_s: float | None, after_s: float = -math.inf) -> None:
        """Hold all packets from now on, and of the pre-roll those from the last keyframe at or before `from_s` on
        (monotonic clock), without groups up to `after_s` that others do not depend on; None discards the pre-roll."""
        with self._lock:
            if from_s is None:
                self._clear()
            else:
                self._trim(from_s, after_s)
            self._is_consumed = True
            self._queue = list(chain.from_iterable(self._preroll))
            self.size = self._preroll_bytes

    def stop_consuming(self) -> list[tuple[VideoFormat, Packet]]:
        """Take all packets, and only keep the pre-roll from now on; does nothing if it does so."""
        with self._lock:
            taken = self._take_packets()
            self._is_consumed = False
            self.size = self._preroll_bytes
            return taken

    def _take_packets(self) -> list[tuple[VideoFormat, Packet]]:
        taken, self._queue = self._queue, []
        if self._is_consumed:
            self.size = 0
        return taken

    def _trim(self, from_s: float, after_s: float = -math.inf) -> None:
        groups = self._preroll
        while len(groups) > 1 and (
            groups[1][0][1].began_s <= from_s
            or groups[0][-1][1].began_s <= after_s
            or self._preroll_bytes > self._max_bytes
        ):
            self._preroll_bytes -= sum(len(packet.data) for _, packet in groups.popleft())

    def _clear(self) -> None:
        self._preroll.clear()
        self._preroll_bytes = 0
        self._queue = []
        self.size = 0
        self.is_awaiting_keyframe = True
