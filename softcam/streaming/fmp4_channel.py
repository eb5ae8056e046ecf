"""The movie that all viewers of `/stream.mp4` watch: fragments as they are made, each the same bytes for everyone.

The encoder's thread calls `begin` and `packet`, which make the fragment and hand it to the fan-out; all the rest runs
on the fan-out's loop, and there alone is state, but for what stands apart below. The last moments are kept in one ring;
each viewer has a place in it, and nothing queues for it alone: who falls out of the ring goes on with a keyframe.
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

# A viewer who is further behind than that is slow, and not late: it goes on with a keyframe.
_KEPT_S: Final = 0.7
_LEAST_KEPT: Final = 3  # fragments; a camera may give one in a second
_FRESH_S: Final = 0.25  # a keyframe of that age still is a good beginning: a new one would not come sooner
_SLOW_PAUSE_S: Final = 1.0  # keyframes cost those who are quick; for slow viewers they are asked for no more often
# Frames of the camera may be exposed before the portal, or the clock's zero, was there.
_BEFORE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Fragment:
    number: int
    data: bytes
    is_keyframe: bool
    began_s: float
    came_s: float  # to the loop, monotonic clock


class Fmp4Stream:
    """A channel of the fan-out, and a taker of packets; it takes them only while somebody watches."""

    def __init__(self, video: VideoSource) -> None:
        self.feed: Callable[[Callable[[], None]], None] = _nowhere  # set before the first viewer: to the loop
        self.viewers: set[StreamClient] = set()
        self.zero_s = time.monotonic() - _BEFORE_S  # when the movie's time is 0
        self._video = video

        # The encoder's thread alone.
        self._format: VideoFormat | None = None
        self._number = 0  # of the last fragment, which rises as long as the process lives
        self._last_began_s: float | None = None

        # The loop alone.
        self._is_fed = False  # packets were asked for
        self._run = 0  # rises with each format
        self._initial = b""  # none: nobody watches, or the encoder has not begun
        self._ring: deque[_Fragment] = deque()
        self._keyframe: _Fragment | None = None  # the newest in the ring
        self._slow_from_s = 0.0  # when slow viewers may ask for a keyframe again

    @property
    def zero_timestamp_s(self) -> float:
        """The movie's time 0 as Unix time."""
        return time.time() - (time.monotonic() - self.zero_s)

    # --- the encoder's thread ---------------------------------------------------------------------------------

    def on_format(self, fmt: VideoFormat) -> None:
        self._format = fmt
        self._last_began_s = None
        initial = fragment.initial_segment(fmt)
        self.feed(lambda: self._begin(initial))

    def on_packet(self, packet: Packet) -> None:
        fmt = self._format
        if fmt is None or packet.began_s < self.zero_s:
            return
        delta_s = 0.0 if self._last_began_s is None else packet.began_s - self._last_began_s
        self._last_began_s = packet.began_s
        self._number += 1
        data = fragment.fragment(self._number, [packet], self.zero_s, timing.sample_duration_s(delta_s, fmt.fps))
        piece = _Fragment(self._number, data, packet.is_keyframe, packet.began_s, time.monotonic())
        self.feed(lambda: self._take(piece))

    # --- the loop ---------------------------------------------------------------------------------------------

    def join(self, viewer: StreamClient, now_s: float) -> bytes:
        keyframe = self._keyframe
        if not self._is_fed:
            try:
                self._video.subscribe(self)
                self._is_fed = True
            except CameraError as error:  # the viewer will have to leave by itself, unless the next one has more luck
                log.error("No movie: %s", error)
        elif keyframe is not None and now_s - keyframe.came_s < _FRESH_S:
            viewer.run, viewer.part_number = self._run, keyframe.number + 1
            return self._initial + keyframe.data
        self._await_keyframe(viewer)
        self._video.request_keyframe()
        return b""

    def next(self, viewer: StreamClient, now_s: float) -> bytes | None:
        if viewer.run not in (0, self._run):
            return None
        if not self._ring or viewer.part_number > self._ring[-1].number:
            return b""
        if viewer.part_number < self._ring[0].number and not viewer.waits_for_keyframe:
            self._skip(viewer, now_s)
        if viewer.waits_for_keyframe:
            keyframe = self._keyframe
            if keyframe is None or keyframe.number < viewer.part_number:
                return b""
            viewer.skipped += keyframe.number - viewer.part_number if viewer.run else 0
            viewer.waits_for_keyframe = False
            viewer.part_number = keyframe.number + 1
            if viewer.run:
                return keyframe.data
            viewer.run = self._run
            return self._initial + keyframe.data
        fragment = self._ring[viewer.part_number - self._ring[0].number]
        viewer.part_number += 1
        return fragment.data

    def leave(self, viewer: StreamClient) -> None:  # noqa: ARG002 - a channel's signature
        if not self.viewers:
            self._video.unsubscribe(self)
            self._is_fed = False
            self._initial = b""  # what is still on its way is for nobody
            self._forget()

    def _begin(self, initial: bytes) -> None:
        if self.viewers:
            self._run += 1
            self._initial = initial
            self._forget()

    def _take(self, fragment: _Fragment) -> None:
        if not self._initial:
            return
        ring = self._ring
        ring.append(fragment)
        while len(ring) > _LEAST_KEPT and fragment.began_s - ring[0].began_s > _KEPT_S:
            ring.popleft()
        if fragment.is_keyframe:
            self._keyframe = fragment
        elif self._keyframe is not None and self._keyframe.number < ring[0].number:
            self._keyframe = None

    def _forget(self) -> None:
        self._ring.clear()
        self._keyframe = None

    def _skip(self, viewer: StreamClient, now_s: float) -> None:
        """It was too slow for what it had next; on with the newest keyframe, or where there is none, one to come."""
        viewer.waits_for_keyframe = True
        if self._keyframe is None:
            viewer.skipped += self._number_now - viewer.part_number
            viewer.part_number = self._number_now
            if now_s >= self._slow_from_s:
                self._slow_from_s = now_s + _SLOW_PAUSE_S
                self._video.request_keyframe()

    def _await_keyframe(self, viewer: StreamClient) -> None:
        viewer.run = 0
        viewer.waits_for_keyframe = True
        viewer.part_number = self._number_now

    @property
    def _number_now(self) -> int:
        """Of the fragment that comes next."""
        return self._ring[-1].number + 1 if self._ring else 0


def _nowhere(_take: Callable[[], None]) -> None:
    """There is no loop yet."""
