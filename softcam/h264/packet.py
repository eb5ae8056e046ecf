"""What the H.264 encoder gives to those who want it. Values only; no thread, no PyAV."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """One run of the encoder: the same size and parameter sets. `sps` and `pps` are NAL units without start codes.

    `fps` is the rate that the camera was asked for, for what must know a frame's length before the next one is there.
    """

    width: int
    height: int
    fps: float
    sps: bytes
    pps: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded frame, an access unit: its NAL units, each behind its length in four bytes (AVCC, ISO 14496-15).

    Parameter sets are not in it, but in the format. `began_s` is when the exposure began, on the monotonic clock, and
    rises strictly from packet to packet; `timestamp_s` is the same moment as Unix time. There are no B frames, so
    packets come in the order in which they are shown.
    """

    data: bytes
    is_keyframe: bool
    began_s: float
    timestamp_s: float


class PacketSink(Protocol):
    """Takes packets on the encoder's thread; must be quick, must not block, and must not raise."""

    def on_format(self, fmt: VideoFormat) -> None:
        """The packets from here on are of this format; the first of them is a keyframe. May come again."""

    def on_packet(self, packet: Packet) -> None:
        """The next one; those before the first keyframe since the sink joined are left out."""


class VideoSource(Protocol):
    """Where packets come from: the encoder, which runs only while it has sinks."""

    def subscribe(self, sink: PacketSink) -> None:
        """From now on the sink gets packets, from a keyframe on, which is made at once. Any thread may call.

        Raises CameraError: it gets nothing then.
        """

    def unsubscribe(self, sink: PacketSink) -> None:
        """It gets no more; a call that is under way may still come to its end. Harmless where it is not in."""

    def request_keyframe(self) -> None:
        """Make the next frame a keyframe, unless there was one a moment ago."""
