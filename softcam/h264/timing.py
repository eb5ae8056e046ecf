"""Frame timing: gaps, the duration of a sample whose successor is unknown, and the pace of a limited frame rate.

A fragment is sent before the next frame exists, so its duration is an estimate. Chromium drops frames that arrive later
than twice the announced duration, up to the next keyframe (Media Source Extensions, coded frame processing, step 6).
Therefore durations are estimated long, and a frame after a gap is encoded as a keyframe. Both rules are in this module
because they depend on each other. Any thread may call the functions; a `Pacer` belongs to one thread.
"""

from typing import Final

_GAP: Final = 3.5  # times the usual interval; two skipped frames are not a gap yet
_DURATION: Final = 2.0  # times the usual interval: doubled by the browser, it exceeds the gap
_MAX_INTERVAL_S: Final = 1.0  # a long pause before a frame is not the usual interval
_EARLY_S: Final = 0.005  # exposures are not exactly even


class Pacer:
    """Selects frames so that their rate is at most `max_fps`, as evenly as the camera's frames allow."""

    def __init__(self, max_fps: float) -> None:
        """`math.inf` selects every frame."""
        self._interval_s = 1 / max_fps
        self._due_s = 0.0

    @property
    def is_limiting(self) -> bool:
        return self._interval_s > 0

    @property
    def not_before_s(self) -> float:
        """The next frame to select is the first one whose exposure began later than this."""
        return self._due_s - _EARLY_S if self.is_limiting else 0.0

    def select(self, began_s: float) -> None:
        """A frame was selected. Counted from when it was due, so that the average holds; pauses are not made up for."""
        is_late = began_s - self._due_s > self._interval_s
        self._due_s = (began_s if is_late else self._due_s) + self._interval_s


def is_gap(delta_s: float, last_delta_s: float, fps: float) -> bool:
    """Whether a frame `delta_s` after its predecessor must be a keyframe because of the gap."""
    return delta_s > _GAP * _usual_interval_s(last_delta_s, fps)


def sample_duration_s(last_delta_s: float, fps: float) -> float:
    """The announced duration of a frame whose successor is unknown.

    `last_delta_s` is the interval to its predecessor, 0 if there is none. The result is longer than the true duration,
    which is harmless: the next fragment ends the sample.
    """
    return _DURATION * _usual_interval_s(last_delta_s, fps)


def _usual_interval_s(last_delta_s: float, fps: float) -> float:
    return min(max(1 / fps, last_delta_s), max(1 / fps, _MAX_INTERVAL_S))
