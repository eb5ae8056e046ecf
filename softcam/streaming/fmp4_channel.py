"""The fMP4 stream of `/stream.mp4`: fragments as they are made, the same bytes object for every client.

The thread of the encoder calls `on_format` and `on_packet`, which make a fragment and pass it to the fan-out; the rest
runs on the event loop, which owns the state. The latest fragments are in one ring (`h264.ring`), where each client is a
reader.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from softcam.errors import CameraError
from softcam.h264 import timing
from softcam.h264.packet import Packet, VideoFormat, VideoSource
from softcam.h264.ring import Reader, Ring, RingLimits
from softcam.mp4 import fragment
from softcam.streaming.clients import StreamClient

log = logging.getLogger(__name__)

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
        limits: RingLimits | None = None,
    ) -> None:
        """`notify` is that of the fan-out."""
        self.zero_s = time.monotonic() - _BEFORE_START_S  # the monotonic time of the stream's time 0
        self._video = video
        self._notify = notify

        # Used by the thread of the encoder alone.
        self._format: VideoFormat | None = None
        self._number = 0  # of the last fragment; increases as long as the process lives
        self._last_began_s: float | None = None

        # Used by the event loop alone.
        self._readers: dict[StreamClient, Reader[_Fragment]] = {}
        self._outdated: set[StreamClient] = set()  # they have the initial segment of an earlier format
        self._initial = b""  # empty without clients, and before the encoder has started
        self._ring = Ring[_Fragment](video.request_keyframe, limits)

    @property
    def clients(self) -> Collection[StreamClient]:
        return self._readers.keys()

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

    # --- the event loop ---------------------------------------------------------------------------------------

    def subscribe(self, client: StreamClient, now_s: float) -> bytes:
        reader = self._readers[client] = self._ring.new_reader(now_s)
        if reader.keyframe is not None:
            return self.next_part(client, now_s) or b""
        try:
            self._video.subscribe(self)
        except CameraError as error:  # the client waits until it disconnects, or the next client succeeds
            log.error("Failed to start the fMP4 stream: %s", error)
        self._video.request_keyframe()
        return b""

    def next_part(self, client: StreamClient, now_s: float) -> bytes | None:
        if client in self._outdated:
            return None
        reader = self._readers[client]
        received, dropped = reader.received, reader.dropped
        new = reader.take_unit(now_s)
        client.count_dropped(reader.dropped - dropped)
        if new is None:
            return b""
        return new.data if received else self._initial + new.data

    def unsubscribe(self, client: StreamClient) -> None:
        del self._readers[client]
        self._outdated.discard(client)
        if not self._readers:
            self._video.unsubscribe(self)
            self._initial = b""  # fragments that are still in the queue of the fan-out are dropped
            self._ring.clear()

    def _start_format(self, initial: bytes) -> None:
        if self._readers:
            self._outdated.update(client for client, reader in self._readers.items() if reader.received)
            self._initial = initial
            self._ring.clear()

    def _append(self, new: _Fragment) -> None:
        if self._initial:
            self._ring.append(new)
