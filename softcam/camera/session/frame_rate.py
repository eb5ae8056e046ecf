"""The rate at which a camera delivers frames, and how long the frames in the pipeline may take.

No thread, no clock and no camera in here. The camera's frame thread counts, any thread reads. There is no lock: each
value is replaced as a whole, and read at worst one frame late.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from softcam.camera.session.sent_controls import SentControls

# The frames in the sensor and the processor when a new exposure time is sent; they still have the old one.
PIPELINE_FRAMES: Final = 3
_NEW_RATE: Final = 1.5  # a frame duration that changes by this factor: the earlier rate does not matter
_FPS_WINDOW: Final = 60  # frames; two to six seconds at usual rates


class FrameRateMeter:
    """Measures the frames of one camera, over all its openings."""

    def __init__(self, sent: SentControls) -> None:
        self.frames = 0  # since the process started
        self.last_frame_s = 0.0  # when the newest frame arrived, by the clock of the caller of `count_frame`
        self._sent = sent
        self._duration_s = 0.0
        self._arrivals_s: deque[float] = deque(maxlen=_FPS_WINDOW)

    def reset(self) -> None:
        """The camera is being opened, and nothing is known of its frames yet."""
        self._duration_s = 0.0
        self.reset_rate()

    def reset_rate(self) -> None:
        """Measure the rate anew, so that a pause in the stream does not lower it."""
        self._arrivals_s.clear()

    def count_frame(self, metadata: Mapping[str, Any], now_s: float) -> None:
        """A frame arrived."""
        duration_us = max(metadata.get("FrameDuration") or 0, metadata.get("ExposureTime") or 0)
        before_s, self._duration_s = self._duration_s, duration_us / 1e6
        if max(before_s, self._duration_s) > _NEW_RATE * min(before_s, self._duration_s):
            self.reset_rate()
        self._arrivals_s.append(now_s)
        self.frames += 1
        self.last_frame_s = now_s

    @property
    def pipeline_s(self) -> float:
        """How long the frames in the pipeline may take; a silence of that length is not a stall."""
        return PIPELINE_FRAMES * max(self._duration_s, self._sent.requested_duration_s)

    def fps(self, now_s: float) -> float:
        """The frames per second over the newest frames; decreases while none arrive."""
        # Copied in one operation, since the frame thread appends meanwhile.
        arrivals_s = self._arrivals_s.copy()
        if len(arrivals_s) < 2:
            return 0.0
        span_s = arrivals_s[-1] - arrivals_s[0]
        intervals = len(arrivals_s) - 1
        # A silence counts once it is longer than the usual distance of two frames.
        silence_s = now_s - arrivals_s[-1] - 2 * span_s / intervals
        return round(intervals / max(span_s + max(silence_s, 0.0), 1e-6), 2)


class FrameDecimator:
    """Drops frames of a camera that delivers more than requested. Used by one thread."""

    def __init__(self, fps: float) -> None:
        """`fps` is the requested rate; a tenth more passes, or a camera of about that rate would lose some frames."""
        self._period_s = 0.9 / fps
        self._due_s = 0.0

    def should_pass(self, now_s: float) -> bool:
        """Whether the frame that arrives now is kept."""
        if now_s < self._due_s:
            return False
        # Counted from when it was due, so that the average holds, but no burst follows a pause.
        self._due_s = max(self._due_s, now_s - self._period_s) + self._period_s
        return True
