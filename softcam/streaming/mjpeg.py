"""The MJPEG stream: connects the JPEG encoders and the fan-out, and shows notices while there are no frames.

No dedicated thread: the callbacks run on the encoder threads and on the fan-out thread.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from softcam.imaging.exif import with_orientation
from softcam.streaming.clients import JpegChannel
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import Channel, JpegEncoderPool, JpegVariant


@dataclass(slots=True)
class Activity:
    """The progress of the stream, for health checks: single values, each written by one thread; monotonic clock."""

    channels: tuple[Channel, ...] = ()  # those with clients
    channels_since_s: float = 0.0
    ticked_s: float = 0.0  # when the fan-out loop ran last; about once a second while there are clients
    encoded_s: float = 0.0  # when a JPEG was encoded last


class MjpegStream:
    """Encodes for the channels of the fan-out, and sends what is encoded."""

    def __init__(
        self,
        encoders: JpegEncoderPool,
        orientation: Callable[[], int],
        recovery_reason: Callable[[], str | None],
        on_crash: Callable[[str], None],
    ) -> None:
        """`orientation` returns that of EXIF, 1 to 8; `recovery_reason` is not None while the camera is recovering."""
        self._encoders = encoders
        self._orientation = orientation
        self._recovery_reason = recovery_reason
        self._on_crash = on_crash
        self.activity = Activity()
        self.fanout = FanOut(self._on_channels, self._on_tick, on_crash)

    def start(self) -> None:
        self.fanout.start()
        self._encoders.start(self._publish, self._on_crash)

    def _on_channels(self, channels: tuple[JpegChannel, ...]) -> None:
        self.activity.channels, self.activity.channels_since_s = channels, time.monotonic()
        self._encoders.set_channels(channels)

    def _on_tick(self) -> None:
        self.activity.ticked_s = time.monotonic()
        reason = self._recovery_reason()
        if reason is not None:
            self._encoders.show_notice(["RECONNECTING TO THE CAMERA", reason])

    def _publish(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self.activity.encoded_s = time.monotonic()
        oriented = with_orientation(jpeg, self._orientation())
        self.fanout.publish_jpeg(variant, oriented, timestamp_s=timestamp_s, made_s=made_s)
