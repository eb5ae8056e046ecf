"""How fast a camera's frames come, and how long the ones on their way may take.

No thread, no clock and no camera in here. The camera's frame thread counts, whoever sends controls tells them, anyone
asks. There is no lock: each value is replaced as a whole, and read one frame late at worst.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Frames that a new exposure time stays behind: those already in the sensor and the processor when it was sent.
PIPELINE_FRAMES: Final = 3
# So many frames after a control was sent the metadata knows of it: libcamera has six requests queued, and the sensor
# is some frames behind.
CONTROL_FRAMES: Final = 12
_FPS_WINDOW: Final = 60  # frames; two to six seconds at usual rates


@dataclass(frozen=True, slots=True)
class _RequestedControls:
    """How long a frame shall take by the controls that were sent; counts until so many frames came in all."""

    duration_s: float
    until_frame: int


def duration_s(controls: Mapping[str, Any]) -> float:
    """How long a frame takes at least by these libcamera controls; 0 where they do not say."""
    shortest_us = (controls.get("FrameDurationLimits") or (0,))[0]
    return float(max(shortest_us, controls.get("ExposureTime") or 0)) / 1e6


class FrameRateMeter:
    """Fed with the frames of one camera, over all its openings."""

    def __init__(self) -> None:
        self.last_frame_s = 0.0  # when the newest frame came, on the clock of who counts
        self._frames = 0
        self._duration_s = 0.0
        self._arrivals_s: deque[float] = deque(maxlen=_FPS_WINDOW)
        self._asked = _RequestedControls(0.0, 0)

    def begin(self) -> None:
        """The camera is opened, and nothing is known of its frames yet."""
        self._duration_s = 0.0
        self.forget_rate()

    def forget_rate(self) -> None:
        """The rate is measured anew: a pause that was nobody's frame shall not lower it."""
        self._arrivals_s.clear()

    def count(self, metadata: Mapping[str, Any], now_s: float) -> None:
        """A frame came."""
        duration_us = max(metadata.get("FrameDuration") or 0, metadata.get("ExposureTime") or 0)
        self._duration_s = duration_us / 1e6
        self._arrivals_s.append(now_s)
        self._frames += 1
        self.last_frame_s = now_s

    def expect(self, controls: Mapping[str, Any]) -> None:
        """These libcamera controls were sent: frames may take longer before the first of them tells so."""
        asked_s = duration_s(controls)
        if asked_s:
            self._asked = _RequestedControls(asked_s, self._frames + CONTROL_FRAMES)

    @property
    def frames(self) -> int:
        """How many came in all."""
        return self._frames

    @property
    def pipeline_s(self) -> float:
        """How long the frames on their way may take; a silence of that length is no stall."""
        asked = self._asked
        asked_s = asked.duration_s if self._frames < asked.until_frame else 0.0
        return PIPELINE_FRAMES * max(self._duration_s, asked_s)

    def fps(self, now_s: float) -> float:
        """Frames per second over the last ones; sinks while none come."""
        # Copied in one go, since the frame thread appends meanwhile.
        arrivals_s = self._arrivals_s.copy()
        if len(arrivals_s) < 2:
            return 0.0
        span_s = arrivals_s[-1] - arrivals_s[0]
        intervals = len(arrivals_s) - 1
        # A silence counts once it is longer than the usual distance of two frames.
        silence_s = now_s - arrivals_s[-1] - 2 * span_s / intervals
        return round(intervals / max(span_s + max(silence_s, 0.0), 1e-6), 2)


class FrameDecimator:
    """Leaves frames out where a camera gives more of them than were asked for. Used by one thread."""

    def __init__(self, fps: float) -> None:
        """`fps` is what is wanted; a tenth more is let through, or a camera of about that rate would lose some."""
        self._period_s = 0.9 / fps
        self._due_s = 0.0

    def takes(self, now_s: float) -> bool:
        """Whether the frame that comes now is wanted."""
        if now_s < self._due_s:
            return False
        # Counted from when it was due, so that the average holds, but no burst follows a pause.
        self._due_s = max(self._due_s, now_s - self._period_s) + self._period_s
        return True
