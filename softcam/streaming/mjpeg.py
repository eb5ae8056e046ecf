"""The MJPEG stream: connects the JPEG encoders and the fan-out, and shows notices while there are no frames.

No dedicated thread: JPEGs are published on the encoder threads, and on the camera's thread for JPEGs that it delivered;
the other callbacks run on the event loop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from softcam.imaging.exif import with_orientation
from softcam.net.event_loop import EventLoop
from softcam.runtime.deadline import Deadline
from softcam.streaming.clients import JpegChannel
from softcam.streaming.fanout import FanOut
from softcam.streaming.jpeg_encoder import JpegConsumer, JpegEncoderPool, JpegVariant


@dataclass(frozen=True, slots=True)
class Activity:
    """The progress of the stream at one moment, for health checks; times are of the monotonic clock."""

    channels: tuple[JpegConsumer, ...] = ()  # those with clients
    channels_since_s: float = 0.0
    encoded_s: float = 0.0  # when a JPEG was encoded last


class MjpegStream:
    """Encodes for the channels of the fan-out, and sends what is encoded."""

    def __init__(
        self,
        loop: EventLoop,
        encoders: JpegEncoderPool,
        orientation: Callable[[], int],
        recovery_reason: Callable[[], str | None],
        on_crash: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`orientation` returns that of EXIF, 1 to 8; `recovery_reason` is not None while the camera is recovering."""
        self._encoders = encoders
        self._orientation = orientation
        self._recovery_reason = recovery_reason
        self._on_crash = on_crash
        self._clock = clock
        # Replaced as whole values, and read by any thread without a lock:
        self._channels: tuple[tuple[JpegChannel, ...], float] = (), 0.0  # by the event loop, with the time
        self._encoded_s = 0.0  # by the threads that publish
        self.fanout = FanOut(loop, self._on_channels, self._on_tick)

    def start(self) -> None:
        self._encoders.start(self._publish, self._on_crash)

    def stop(self, deadline: Deadline) -> None:
        """End the encoders; waits until the deadline. The clients are disconnected when the event loop ends."""
        self._encoders.stop(deadline)

    def activity(self) -> Activity:
        """Any thread may call it."""
        return Activity(*self._channels, self._encoded_s)

    def _on_channels(self, channels: tuple[JpegChannel, ...]) -> None:
        self._channels = channels, self._clock()
        self._encoders.set_channels(channels)

    def _on_tick(self) -> None:
        reason = self._recovery_reason()
        if reason is not None:
            self._encoders.show_notice(["RECONNECTING TO THE CAMERA", reason])

    def _publish(self, variant: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self._encoded_s = self._clock()
        oriented = with_orientation(jpeg, self._orientation())
        self.fanout.publish_jpeg(variant, oriented, timestamp_s=timestamp_s, made_s=made_s)
