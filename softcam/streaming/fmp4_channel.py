"""The fMP4 stream of `/stream.mp4`: fragments as they are made, the same bytes object for every client.

The thread of the encoder calls `on_format` and `on_packet`, which make a fragment and pass it to the fan-out; the rest
runs on the fan-out's loop, which owns the state. The latest fragments are kept in one ring; each client has a position
in it, and there is no queue per client: a client that falls out of the ring continues with a keyframe.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softcam.errors import CameraError
from softcam.h264 import timing
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.mp4 import fragment
from softcam.streaming.clients import StreamClient

log = logging.getLogger(__name__)

# A client that is further behind is slow, and not only late: it continues with a keyframe.
_RING_S: Final = 0.7
_MIN_RING: Final = 3  # fragments; a camera may deliver one per second
_FRESH_KEYFRAME_S: Final = 0.25  # up to that age a keyframe is a good start: a new one would not arrive sooner
_SLOW_KEYFRAME_INTERVAL_S: Final = 1.0  # keyframes cost all clients bandwidth; slow ones request no more than this
# Frames may be exposed before the portal started, or before the zero of the clock.
_BEFORE_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Fragment:
    number: int
    data: bytes
    is_keyframe: bool
    began_s: float
    made_s: float  # monotonic clock


class Fmp4Stream:
    """A channel of the fan-out and a packet sink; it is subscribed to the encoder only while it has clients."""

    def __init__(
        self,
        video: VideoSource,
        notify: Callable[["Fmp4Stream", Callable[[], None]], None],
        *,
        fresh_keyframe_s: float = _FRESH_KEYFRAME_S,
    ) -> None:
        """`notify` is that of the fan-out; a client starts with a keyframe no older than `fresh_keyframe_s`."""
        self.clients: set[StreamClient] = set()
        self.zero_s = time.monotonic() - _BEFORE_START_S  # the monotonic time of the stream's time 0
        self._video = video
        self._notify = notify
        self._fresh_keyframe_s = fresh_keyframe_s

        # Used by the thread of the encoder alone.
        self._format: VideoFormat | None = None
        self._number = 0  # of the last fragment; increases as long as the process lives
        self._last_began_s: float | None = None

        # Used by the fan-out loop alone.
        self._format_number = 0  # increases with each format
        self._initial = b""  # empty without clients, and before the encoder has started
        self._ring: deque[_Fragment] = deque()
        self._slow_keyframe_s = 0.0  # when slow clients may request a keyframe again

    @property
    def zero_timestamp_s(self) -> float:
        """The stream's time 0 as Unix time."""
        return time.time() - (time.monotonic() - self.zero_s)

    # --- the thread of the encoder ----------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        self._format = fmt
        self._last_began_s = None
        initial = fragment.initial_segment(fmt)
        self._notify(self, lambda: self._start_format(initial))

    def on_packet(self, packet: Packet) -> None:
        fmt = self._format
        if fmt is None or packet.began_s < self.zero_s:
            return
        delta_s = 0.0 if self._last_began_s is None else packet.began_s - self._last_began_s
        self._last_began_s = packet.began_s
        self._number += 1
        data = fragment.fragment(self._number, [packet], self.zero_s, timing.sample_duration_s(delta_s, fmt.fps))
        new = _Fragment(self._number, data, packet.is_keyframe, packet.began_s, time.monotonic())
        self._notify(self, lambda: self._append(new))

    # --- the fan-out loop -------------------------------------------------------------------------------------

    def subscribe(self, client: StreamClient, now_s: float) -> bytes:
        client.format_number = 0
        client.is_awaiting_keyframe = True
        keyframe = self._keyframe
        if keyframe is not None and now_s - keyframe.made_s < self._fresh_keyframe_s:
            client.part_number = keyframe.number
            return self.next_part(client, now_s) or b""
        client.part_number = self._next_number
        try:
            self._video.subscribe(self)
        except CameraError as error:  # the client waits until it disconnects, or the next client succeeds
            log.error("Failed to start the fMP4 stream: %s", error)
        self._video.request_keyframe()
        return b""

    def next_part(self, client: StreamClient, now_s: float) -> bytes | None:
        if client.format_number not in (0, self._format_number):
            return None
        if not self._ring or client.part_number > self._ring[-1].number:
            return b""
        if client.part_number < self._ring[0].number and not client.is_awaiting_keyframe:
            self._skip_to_keyframe(client, now_s)
        if client.is_awaiting_keyframe:
            keyframe = self._keyframe
            if keyframe is None or keyframe.number < client.part_number:
                return b""
            client.dropped += keyframe.number - client.part_number if client.format_number else 0
            client.is_awaiting_keyframe = False
            client.part_number = keyframe.number + 1
            if client.format_number:
                return keyframe.data
            client.format_number = self._format_number
            return self._initial + keyframe.data
        part = self._ring[client.part_number - self._ring[0].number]
        client.part_number += 1
        return part.data

    def unsubscribe(self, client: StreamClient) -> None:  # noqa: ARG002 - the signature of a channel
        if not self.clients:
            self._video.unsubscribe(self)
            self._initial = b""  # fragments that are still in the queue of the fan-out are dropped
            self._ring.clear()

    def _start_format(self, initial: bytes) -> None:
        if self.clients:
            self._format_number += 1
            self._initial = initial
            self._ring.clear()

    def _append(self, new: _Fragment) -> None:
        if not self._initial:
            return
        ring = self._ring
        ring.append(new)
        while len(ring) > _MIN_RING and new.began_s - ring[0].began_s > _RING_S:
            ring.popleft()

    def _skip_to_keyframe(self, client: StreamClient, now_s: float) -> None:
        """Its next fragment has left the ring: it continues with the latest keyframe, or with a requested one."""
        client.is_awaiting_keyframe = True
        if self._keyframe is None:
            client.dropped += self._next_number - client.part_number
            client.part_number = self._next_number
            if now_s >= self._slow_keyframe_s:
                self._slow_keyframe_s = now_s + _SLOW_KEYFRAME_INTERVAL_S
                self._video.request_keyframe()

    @property
    def _keyframe(self) -> _Fragment | None:
        """The latest one in the ring."""
        return next((each for each in reversed(self._ring) if each.is_keyframe), None)

    @property
    def _next_number(self) -> int:
        """Of the fragment that follows the latest one in the ring."""
        return self._ring[-1].number + 1 if self._ring else 0
