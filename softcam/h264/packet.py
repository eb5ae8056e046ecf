"""The encoder's output: packets, their format, and the protocols of sinks and sources. No thread, no PyAV."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The format of a run of packets: one size, one set of parameter sets. `sps` and `pps` have no start codes.

    `fps` is the frame rate of the camera's stream; consumers estimate a frame's duration with it before the next
    frame has arrived.
    """

    width: int
    height: int
    fps: float
    sps: bytes
    pps: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded frame: an access unit in AVCC, each NAL unit after its length in four bytes (ISO/IEC 14496-15).

    Parameter sets are in the format, not in the packet. `began_s` is the start of the exposure on the monotonic clock
    and strictly increases from packet to packet; `timestamp_s` is the same moment as Unix time. There are no B-frames,
    so packets arrive in display order.
    """

    data: bytes
    is_keyframe: bool
    began_s: float
    timestamp_s: float


class PacketSink(Protocol):
    """Receives packets on the encoder's thread; its methods must be quick, must not block, and must not raise."""

    def on_format(self, fmt: VideoFormat) -> None:
        """The packets that follow have this format, and the first of them is a keyframe. May be called again."""

    def on_packet(self, packet: Packet) -> None:
        """The next packet; packets before the first keyframe after subscribing are not delivered."""


class VideoSource(Protocol):
    """A source of packets: the encoder, which runs only while it has sinks."""

    def subscribe(self, sink: PacketSink) -> None:
        """Deliver packets to `sink`, starting with a keyframe that is encoded for it at once. Any thread may call.

        Harmless if it is subscribed. Raises CameraError; then the sink is not subscribed.
        """

    def unsubscribe(self, sink: PacketSink) -> None:
        """Deliver no more packets; a call in progress may still complete. Harmless if not subscribed."""

    def request_keyframe(self) -> None:
        """Encode the next frame as a keyframe, or the first one that keeps the minimum distance to the last."""
