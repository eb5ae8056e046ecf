"""When frames come: what is a gap between two, and how long one is said to last before the next is there. Arithmetic.

A fragment leaves before the next frame is known, so its length is a guess. Chromium drops what comes later than twice
the length it was told, up to the next keyframe (Media Source Extensions, coded frame processing, step 6). So frames
are said to last rather long, and what comes after a gap is made a keyframe: both rules stand here, so that they fit.
"""

from typing import Final

_GAP: Final = 3.5  # times the usual distance; two frames that were left out are none yet
_LENGTH: Final = 2.0  # times the usual distance: doubled by the browser, it is above the gap
_SLOWEST_S: Final = 1.0  # the first frame after a long silence is not said to last as long as that


def is_gap(delta_s: float, last_delta_s: float, fps: float) -> bool:
    """Whether a frame that comes `delta_s` after the one before should be a keyframe for that alone."""
    return delta_s > _GAP * _usual_s(last_delta_s, fps)


def sample_duration_s(last_delta_s: float, fps: float) -> float:
    """How long a frame is said to last whose successor is not there; `last_delta_s` is how long after the one before
    it came, 0 where there was none. Longer than the truth, which does no harm: the next one ends it."""
    return _LENGTH * _usual_s(last_delta_s, fps)


def _usual_s(last_delta_s: float, fps: float) -> float:
    return min(max(1 / fps, last_delta_s), max(1 / fps, _SLOWEST_S))
