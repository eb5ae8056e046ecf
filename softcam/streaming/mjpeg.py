"""The MJPEG stream: connects the JPEG encoders and the fan-out, and shows notices while there are no frames.

No dedicated thread: the callbacks run on the encoder threads and on the fan-out thread.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from softcam.imaging.exif import with_orientation
from softcam.streaming.clients import JpegChannel
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import Channel, JpegEncoderPool, JpegVariant


class ActivityListener(Protocol):
    """Notified of the progress of the stream, for health checks; must be quick."""

    def report_channels(self, channels: Iterable[Channel]) -> None: ...
    def report_tick(self) -> None: ...
    def report_encoded(self) -> None: ...


class MjpegStream:
    """Encodes for the channels of the fan-out, and sends what is encoded."""

    def __init__(
        self,
        encoders: JpegEncoderPool,
        orientation: Callable[[], int],
        recovery_reason: Callable[[], str | None],
        activity: ActivityListener,
        on_crash: Callable[[str], None],
    ) -> None:
        """`orientation` returns that of EXIF, 1 to 8; `recovery_reason` is not None while the camera is recovering."""
        self._encoders = encoders
        self._orientation = orientation
        self._recovery_reason = recovery_reason
        self._on_crash = on_crash
        self._activity = activity
        self.fanout = FanOut(self._on_channels, self._on_tick, on_crash)

    def start(self) -> None:
        """Start the encoder threads and the fan-out."""
        self.fanout.start()
        self._encoders.start(self._publish, self._on_crash)

    def show_notice(self, lines: Sequence[str]) -> None:
        """Send an image with these lines to every client."""
        self._encoders.show_notice(lines)

    def _on_channels(self, channels: tuple[JpegChannel, ...]) -> None:
        self._activity.report_channels(channels)
        self._encoders.set_channels(channels)

    def _on_tick(self) -> None:
        self._activity.report_tick()
        reason = self._recovery_reason()
        if reason is not None:
            self._encoders.show_notice(["RECONNECTING TO THE CAMERA", reason])

    def _publish(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self._activity.report_encoded()
        oriented = with_orientation(jpeg, self._orientation())
        self.fanout.publish_jpeg(variant, oriented, timestamp_s=timestamp_s, made_s=made_s)
