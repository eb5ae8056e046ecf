"""Decisions from the light that the camera measures: the night profile, and the exposure within its limits.

Fed with each frame's metadata. No camera, no clock, no thread.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from softcam.controls.exposure_limits import ExposureLimiter, Limits
from softcam.controls.state import RequestedControls

log = logging.getLogger(__name__)

Scene = Literal["day", "low_light", "night"]

_LOW_LIGHT: Final = 5.0  # times the threshold
_DELAY_S: Final = 2.0  # shorter changes are headlights, or a hand in front of the lens
_LONG_AGO_S: Final = -math.inf


class Light:
    """Day or night with hysteresis, and the exposure limiter of one camera, over all its openings.

    One thread at a time changes it; any thread may read it, at worst one frame late.
    """

    def __init__(self, delay_s: float = _DELAY_S) -> None:
        """In mode auto, a change of the light has to last for `delay_s`."""
        self.is_night = False
        self._delay_s = delay_s
        self._mode = "day"
        self._threshold_lux = 0.0
        self._hysteresis = 1.0
        # Since when the light has contradicted `is_night`. After an opening, and a change to mode auto, the first frame
        # decides without a delay.
        self._changed_since_s: float | None = _LONG_AGO_S
        self._is_night_measured = False  # `is_night` is the former mode's until the first frame in mode auto
        self._limiter: ExposureLimiter | None = None

    @property
    def controls(self) -> Mapping[str, Any]:
        """The libcamera controls that keep the exposure within its limits; empty without limits."""
        return {} if self._limiter is None else self._limiter.controls

    def configure(self, requested: RequestedControls) -> None:
        """Apply the requested mode and thresholds."""
        before, self._mode = self._mode, requested.get("day_night_mode", "mode")
        self._threshold_lux = requested.get("day_night_mode", "threshold_lux")
        self._hysteresis = requested.get("day_night_mode", "hysteresis")
        if self._mode != "auto":
            self.is_night = self._mode == "night"
            self._is_night_measured = False
        elif before != "auto":
            self._changed_since_s = _LONG_AGO_S

    def set_limits(self, limits: Limits, least_gain: float) -> None:
        """Set the limits of the automatic exposure; `least_gain` is the sensor's."""
        if limits == Limits():
            self._limiter = None
        elif self._limiter is None or self._limiter.limits != limits:
            self._limiter = ExposureLimiter(limits, least_gain)

    def reset(self) -> None:
        """The camera was opened or closed: earlier measurements no longer count."""
        self._limiter = None
        self._changed_since_s = _LONG_AGO_S

    def process_metadata(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Process one frame of a settled camera; returns whether other controls are needed now."""
        lux = metadata.get("Lux")
        has_switched = self._mode == "auto" and isinstance(lux, int | float) and self._is_contradicted(lux, now_s)
        if has_switched:
            self.is_night = not self.is_night
            self._changed_since_s = None
            log.info("%s at %.1f lux", "Night" if self.is_night else "Day", lux)
        has_limited = self._limiter is not None and self._limiter.process_metadata(metadata)
        return has_limited or has_switched

    def _is_contradicted(self, lux: float, now_s: float) -> bool:
        """Whether the light has contradicted `is_night` for the delay."""
        has_hysteresis = self.is_night and self._is_night_measured
        is_dark = lux < self._threshold_lux * (self._hysteresis if has_hysteresis else 1.0)
        self._is_night_measured = True
        if is_dark == self.is_night:
            self._changed_since_s = None
        elif self._changed_since_s is None:
            self._changed_since_s = now_s
        else:
            return now_s - self._changed_since_s >= self._delay_s
        return False

    def scene(self, lux: float | None) -> Scene | None:
        """The scene for the status; None if unknown, as with a closed camera in mode auto."""
        if self.is_night and (lux is not None or self._mode == "night"):
            return "night"
        if lux is None:
            return None
        return "low_light" if lux < self._threshold_lux * _LOW_LIGHT else "day"
