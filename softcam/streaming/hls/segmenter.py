"""Cuts packets into the media segments of HLS: from keyframe to keyframe, about a second each.

A packet sink: the encoder's thread calls it. It requests the keyframes at which it cuts, and copies a segment's packets
once, when the next keyframe has arrived and the length is known. What is done with segments is decided elsewhere.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment

# Players start three segments before the end, so this is a third of the delay. The shortest that TARGETDURATION, an
# integer, can express.
SEGMENT_S: Final = 1.0
# The first ones are shorter, so that players start sooner, with more than one, and do not stall at once. Chromium gives
# up where the first playlist has only one.
_FIRST_SEGMENTS: Final = 6
_FIRST_SEGMENT_S: Final = 0.5
# The first picture is shown for so much longer, so that the player that opened the camera, and starts with it, is three
# segments behind the camera like all others, without having to wait for them. With less it stalls now and then.
FIRST_PICTURE_S: Final = 0.9
# A longer segment would round to more than `SEGMENT_S`, and every player would increase its delay.
_LONGEST_S: Final = 1.45
_PAUSE: Final = 2.0  # times the usual interval: more without a frame is a pause
_INTERVALS: Final = 4  # the shortest of the last ones is the usual one: a long exposure is a pause at first, then usual
_CLOCK_STEP_S: Final = 0.5  # of Unix time; smaller corrections do not disturb a player


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """The format of segments, and the initial segment that they require."""

    video: VideoFormat
    initial: bytes


@dataclass(frozen=True, slots=True)
class Media:
    """One media segment: `data` is a fragment that starts with a keyframe.

    `fmt` is the same object for all segments of one format. `time_s` is the media time of the first exposure,
    `timestamp_s` its Unix time. `is_discontinuous`: format, time or clock do not follow from the previous one. Such a
    segment also contains its parameter sets.
    """

    data: bytes
    fmt: Format
    time_s: float
    duration_s: float
    timestamp_s: float
    is_discontinuous: bool


class Segmenter:
    """A `PacketSink` that passes each segment to `on_segment`, on the thread of the encoder.

    The first segment is discontinuous. A pause that fits into a segment extends the frame before it. A longer one is
    left out, and the next segment is discontinuous. So a recovery of the camera makes no segment longer; frames that
    are regularly further apart do. An incomplete segment at the end is dropped.
    """

    def __init__(
        self,
        on_segment: Callable[[Media], None],
        request_keyframe: Callable[[], None],
        *,
        zero_s: float,
        first_segments: int = _FIRST_SEGMENTS,
        first_picture_s: float = FIRST_PICTURE_S,
    ) -> None:
        """`zero_s` is the monotonic time of media time 0; `first_segments` are shorter than the others.

        The first picture is shown for up to `first_picture_s` longer, as if it were older.
        """
        self._on_segment = on_segment
        self._request_keyframe = request_keyframe
        self._zero_s = zero_s
        self._fmt: Format | None = None
        self._first_interval_s = 0.0  # between two frames, before it was measured
        self._packets: list[Packet] = []  # of the segment that is being collected
        self._deltas_s: deque[float] = deque(maxlen=_INTERVALS)  # between the last frames
        self._first_segments = first_segments
        self._first_picture_s = first_picture_s
        self._number = 0  # of the last segment
        self._end_s = 0.0  # when the segment should end
        self._is_requested = False  # the keyframe that ends it
        self._is_discontinuous = True

    def on_format(self, fmt: VideoFormat) -> None:
        new = Format(fmt, fragment.initial_segment(fmt))
        if self._fmt is None or new.initial != self._fmt.initial:
            if self._fmt is not None and self._packets:
                self._finish(self._fmt, self._interval_s, is_continued=False)
            self._fmt = new
        self._first_interval_s = 1 / fmt.fps
        self._deltas_s.clear()

    def on_packet(self, packet: Packet) -> None:
        fmt = self._fmt
        if fmt is None or packet.began_s < self._zero_s:
            return
        if self._packets:
            self._cut(fmt, packet, packet.began_s - self._packets[-1].began_s)
        if not self._packets and not packet.is_keyframe:
            return
        if not self._packets:
            self._start_segment(packet.began_s)
        self._packets.append(packet)
        # The next frame becomes a keyframe: half an interval early or late.
        if not self._is_requested and packet.began_s + 1.5 * self._interval_s >= self._end_s:
            self._is_requested = True
            self._request_keyframe()

    def _start_segment(self, began_s: float) -> None:
        """Ends are in a fixed grid, so that the mean length is exact, until a frame is far from it."""
        wanted_s = _FIRST_SEGMENT_S if self._number < self._first_segments else SEGMENT_S
        self._end_s += wanted_s
        if not 0.5 * wanted_s <= self._end_s - began_s <= 1.5 * wanted_s:
            self._end_s = began_s + wanted_s

    def _cut(self, fmt: Format, packet: Packet, delta_s: float) -> None:
        """End the segment where the packet, `delta_s` after the last one, starts another."""
        first = self._packets[0]
        length_s = packet.began_s - first.began_s
        if packet.is_keyframe:
            step_s = packet.timestamp_s - first.timestamp_s - length_s
            if length_s > _LONGEST_S and delta_s > _PAUSE * self._interval_s:
                self._finish(fmt, self._interval_s, is_continued=False)
            elif abs(step_s) > _CLOCK_STEP_S:
                self._finish(fmt, delta_s, is_continued=False)
            elif self._is_requested or length_s >= SEGMENT_S:
                self._finish(fmt, delta_s, is_continued=True)
        self._deltas_s.append(delta_s)

    @property
    def _interval_s(self) -> float:
        """The usual interval: frames are missing on a busy machine, but not all the time."""
        return min(self._deltas_s, default=self._first_interval_s)

    def _finish(self, fmt: Format, last_duration_s: float, *, is_continued: bool) -> None:
        packets, self._packets = self._packets, []
        end_s = packets[-1].began_s + last_duration_s
        if self._number == 0:
            spare_s = max(0.0, _LONGEST_S - (end_s - packets[0].began_s))
            packets[0] = _extended(packets[0], min(self._first_picture_s, spare_s))
        if self._is_discontinuous:
            packets[0] = _with_parameter_sets(packets[0], fmt.video)
        self._number += 1
        first = packets[0]
        data = fragment.fragment(self._number, packets, self._zero_s, end_s - packets[-1].began_s)
        time_s = first.began_s - self._zero_s
        media = Media(data, fmt, time_s, end_s - first.began_s, first.timestamp_s, self._is_discontinuous)
        self._is_discontinuous = not is_continued
        self._is_requested = False
        self._on_segment(media)


def _extended(packet: Packet, by_s: float) -> Packet:
    """The packet, begun earlier."""
    return replace(packet, began_s=packet.began_s - by_s, timestamp_s=packet.timestamp_s - by_s)


def _with_parameter_sets(packet: Packet, video: VideoFormat) -> Packet:
    """The packet after its parameter sets: FFmpeg's demuxer ignores an initial segment that is not the first."""
    units = (b"".join((len(unit).to_bytes(4, "big"), unit)) for unit in (video.sps, video.pps))
    return replace(packet, data=b"".join((*units, packet.data)))
