"""The interface between the encoder's thread and what encodes: libx264, or the Raspberry Pi's hardware. No thread here.

A backend may have several frames in flight: the hardware encoder reaches its speed only when it gets the next frame
before the last one is done.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from softcam.errors import CameraError
from softcam.h264.packet import Packet
from softcam.imaging.frame import Frame, PixelFormat

BackendName = Literal["hardware", "libx264"]


class BackendLost(CameraError):
    """The backend has failed for good, which has been logged; another one may be opened in its place."""


class Backend(Protocol):
    """Encodes frames of one size and format; packets are returned in the order of the frames. Called by one thread."""

    @property
    def name(self) -> BackendName:
        """The kind of backend, for the status."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the encoded video in pixels."""

    @property
    def bitrate(self) -> int:
        """The bits per second that it is set to."""

    @property
    def parameter_sets(self) -> tuple[bytes, bytes]:
        """SPS and PPS of the packet last returned by `receive_packet`."""

    @property
    def is_keeping_buffers(self) -> bool:
        """Whether it keeps the camera's memory beyond a frame: then it is closed before the camera stops."""

    @property
    def is_full(self) -> bool:
        """Whether it cannot accept a frame now."""

    @property
    def is_busy(self) -> bool:
        """Whether frames are in flight."""

    def has_output(self) -> bool:
        """Whether `receive_packet` has a packet to return or an error to raise.

        Called after each camera frame, after each `wake`, and ten times a second while busy. Must be quick.
        """

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        """Encode a frame that the caller holds, as a keyframe if requested. Only called when not full.

        Raises CameraError for a frame that cannot be encoded, and BackendLost.
        """

    def receive_packet(self) -> Packet | None:
        """The next finished packet, None if there is none yet. Raises BackendLost."""

    def close(self) -> None:
        """Release all resources; the last call."""


class OpenBackend(Protocol):
    """Opens a backend for frames of one size and format; `fps` in frames and `bitrate` in bits per second."""

    def __call__(
        self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int, wake: Callable[[], None], /
    ) -> Backend:
        """A backend with frames in flight calls `wake` on any thread when a packet is finished. Raises CameraError."""
