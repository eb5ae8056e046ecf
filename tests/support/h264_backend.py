"""A fake of libx264: a `Backend` whose packets are what a subclass makes of the frames."""

from typing import Final

from softcam.h264.packet import Packet
from softcam.imaging.frame import Frame


class InstantBackend:
    """Returns each packet at once."""

    name: Final = "libx264"
    is_keeping_buffers = False
    is_full = False
    is_busy = False

    def __init__(self, size: tuple[int, int], sps: bytes, bitrate: int) -> None:
        self.size = size
        self.bitrate = bitrate
        self.parameter_sets = sps, b"pps"
        self._packet: Packet | None = None

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        """The data of a frame, and whether it is a keyframe."""
        raise NotImplementedError

    def has_output(self) -> bool:
        return self._packet is not None

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        data, is_keyframe = self.encode(frame, is_keyframe=is_keyframe)
        self._packet = Packet(data, is_keyframe, frame.began_s, frame.timestamp_s)

    def receive_packet(self) -> Packet | None:
        packet, self._packet = self._packet, None
        return packet

    def close(self) -> None: ...
