"""Decisions from the light that the camera measures: the night profile, and the exposure within its limits.

Fed with each frame's metadata. No camera, no clock, no thread; each object is used by one thread at a time.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

from softcam.controls.exposure_limits import ExposureLimiter, Limits
from softcam.controls.state import RequestedControls

log = logging.getLogger(__name__)

Scene = Literal["day", "low_light", "night"]

_LOW_LIGHT: Final = 5.0  # times the threshold
_DELAY_S: Final = 2.0  # shorter changes are headlights, or a hand in front of the lens


class DayNight:
    """Switches between day and night with hysteresis, once the light has changed for `delay_s`."""

    def __init__(self, threshold_lux: float = 10.0, hysteresis: float = 2.0, delay_s: float = _DELAY_S) -> None:
        """Night is below `threshold_lux`; day is above `hysteresis` times `threshold_lux`."""
        self.threshold_lux = threshold_lux
        self.is_night = False
        self._hysteresis = hysteresis
        self._delay_s = delay_s
        self._changed_since_s: float | None = None  # since when the light has contradicted `is_night`

    def set_thresholds(self, threshold_lux: float, hysteresis: float) -> None:
        self.threshold_lux, self._hysteresis = threshold_lux, hysteresis

    def decide_now(self, lux: float) -> None:
        """Decide without a delay, by the first light after a pause."""
        self.is_night = lux < self._boundary_lux
        self._changed_since_s = None

    def update(self, lux: float, now_s: float) -> bool:
        """Process the light of one frame; returns whether it is night."""
        if (lux < self._boundary_lux) == self.is_night:
            self._changed_since_s = None
        elif self._changed_since_s is None:
            self._changed_since_s = now_s
        elif now_s - self._changed_since_s >= self._delay_s:
            self.is_night = not self.is_night
            self._changed_since_s = None
        return self.is_night

    @property
    def _boundary_lux(self) -> float:
        return self.threshold_lux * (self._hysteresis if self.is_night else 1.0)


class Light:
    """The day or night mode and the exposure limiter of one camera, over all its openings."""

    def __init__(self, delay_s: float = _DELAY_S) -> None:
        """In mode auto, a change of the light has to last for `delay_s`."""
        self.is_night = False
        self._mode = "day"
        self._day_night = DayNight(delay_s=delay_s)
        self._limiter: ExposureLimiter | None = None
        self._has_measured = False  # since the opening, and since the mode is auto

    @property
    def controls(self) -> Mapping[str, Any]:
        """The libcamera controls that keep the exposure within its limits; empty without limits."""
        return {} if self._limiter is None else self._limiter.controls

    def configure(self, requested: RequestedControls) -> None:
        """Apply the requested mode and thresholds."""
        self._day_night.set_thresholds(
            requested.get("day_night_mode", "threshold_lux"), requested.get("day_night_mode", "hysteresis")
        )
        before, self._mode = self._mode, requested.get("day_night_mode", "mode")
        if self._mode != "auto":
            self.is_night = self._mode == "night"
        elif before != "auto":
            self._has_measured = False  # `is_night` stays until the next frame, which decides without a delay

    def set_limits(self, limits: Limits, least_gain: float) -> None:
        """Set the limits of the automatic exposure; `least_gain` is the sensor's."""
        if limits.is_none:
            self._limiter = None
        elif self._limiter is None or self._limiter.limits != limits:
            self._limiter = ExposureLimiter(limits, least_gain)

    def reset(self) -> None:
        """The camera was opened or closed: earlier measurements no longer count."""
        self._limiter = None
        self._has_measured = False

    def process_metadata(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Process one frame of a settled camera; returns whether other controls are needed now."""
        was_night = self.is_night
        lux = metadata.get("Lux")
        if isinstance(lux, int | float):
            if not self._has_measured:
                self._day_night.decide_now(lux)
            elif self._mode == "auto":
                self._day_night.update(lux, now_s)
            self._has_measured = True
            if self._mode == "auto":
                self.is_night = self._day_night.is_night
            if self.is_night != was_night:
                log.info("%s at %.1f lux", "Night" if self.is_night else "Day", lux)
        has_limited = self._limiter is not None and self._limiter.process_metadata(metadata)
        return has_limited or self.is_night != was_night

    def scene(self, lux: float | None) -> Scene | None:
        """The scene for the status; None if unknown, as with a closed camera in mode auto."""
        if lux is None and self._mode == "auto":
            return None
        if self.is_night:
            return "night"
        if lux is None:
            return None
        return "low_light" if lux < self._day_night.threshold_lux * _LOW_LIGHT else "day"
