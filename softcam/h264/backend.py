"""What encodes frames: what the encoder's thread asks of libx264 or of a Raspberry Pi's own encoder. No thread here.

A backend may have several frames under way, as one in hardware has, which is only as fast as it should be when it gets
the next frame before the last one is done. One that gives each packet at once is a `FrameEncoder`, in `SyncBackend`.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

from softcam.errors import CameraError
from softcam.h264.packet import Packet
from softcam.h264.x264 import X264
from softcam.imaging.frame import Frame, PixelFormat

BackendName = Literal["hardware", "libx264"]


class BackendLost(CameraError):
    """This backend will give nothing any more, which was logged; another one may be opened in its place."""


class Backend(Protocol):
    """Encodes frames of one size and format; packets come out in the order of the frames. One thread calls it."""

    @property
    def name(self) -> BackendName:
        """Which kind it is, for the status."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what comes out."""

    @property
    def parameter_sets(self) -> tuple[bytes, bytes]:
        """SPS and PPS of the packet that `receive_packet` gave last."""

    @property
    def keeps_buffers(self) -> bool:
        """Whether it keeps the camera's memory beyond a frame: then it is closed before the camera stops."""

    @property
    def is_full(self) -> bool:
        """Whether it can take no frame now."""

    @property
    def is_busy(self) -> bool:
        """Whether frames are under way."""

    def has_output(self) -> bool:
        """Whether `receive_packet` has a packet to return or an error to raise.

        Called after each camera frame, after each `wake`, and ten times a second while busy. Must be quick.
        """

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        """Take in a frame that the caller holds, and which may be needed as a keyframe; it is not full.

        Raises CameraError for a frame that cannot be encoded, BackendLost.
        """

    def receive_packet(self) -> Packet | None:
        """The next packet that is done, None where there is none yet. Raises BackendLost."""

    def close(self) -> None:
        """Let go of everything; the last call."""


class OpenBackend(Protocol):
    """Opens a backend for frames of one size and format; the rate is in frames, the bitrate in bits a second."""

    def __call__(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, wake: Callable[[], None], /
    ) -> Backend:
        """`wake` is for a backend that has packets later: it calls it then, on any thread. Raises CameraError."""


class FrameEncoder(Protocol):
    """What gives the packet of a frame at once."""

    size: tuple[int, int]
    sps: bytes
    pps: bytes

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        """The access unit, each NAL unit behind its length in four bytes, and whether it is a keyframe.

        The caller holds the frame. Raises CameraError.
        """

    def close(self) -> None: ...


class SyncBackend:
    """A `FrameEncoder` as a `Backend`."""

    name: Final = "libx264"  # the only one of these
    keeps_buffers = False
    is_full = False
    is_busy = False

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder
        self._packet: Packet | None = None
        self.size = encoder.size
        self.parameter_sets = encoder.sps, encoder.pps

    def has_output(self) -> bool:
        return self._packet is not None

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        data, is_keyframe = self._encoder.encode(frame, is_keyframe=is_keyframe)
        self._packet = Packet(data, is_keyframe, frame.began_s, frame.timestamp_s)

    def receive_packet(self) -> Packet | None:
        packet, self._packet = self._packet, None
        return packet

    def close(self) -> None:
        self._encoder.close()


def open_x264(
    size: tuple[int, int],
    pixel_format: PixelFormat,
    fps: float,
    bitrate: int,
    wake: Callable[[], None],  # noqa: ARG001 - the protocol's signature
) -> Backend:
    return SyncBackend(X264(size, pixel_format, fps, bitrate))
