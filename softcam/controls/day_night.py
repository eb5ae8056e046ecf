"""What follows from the light that a camera sees: the night's profile, and the exposure within its limits.

No camera, no clock, no thread.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

from softcam.controls.exposure_limits import ExposureLimiter, Limits
from softcam.controls.state import RequestedControls

log = logging.getLogger(__name__)

Scene = Literal["day", "low_light", "night"]

_LOW_LIGHT: Final = 5.0  # times the threshold: dim, and not yet night
_PATIENCE_S: Final = 2.0  # a headlight or a hand before the lens is neither dawn nor dusk


class DayNight:
    """Fed with the light of each frame. Used by one thread at a time."""

    def __init__(self, threshold_lux: float = 10.0, hysteresis: float = 2.0) -> None:
        """It is night below `threshold_lux`, and day again above `hysteresis` times as much."""
        self.threshold_lux = threshold_lux
        self.hysteresis = hysteresis
        self.is_night = False
        self._other_since_s: float | None = None  # since when the light has spoken for a change

    def limit(self, threshold_lux: float, hysteresis: float) -> None:
        """Other limits from now on."""
        self.threshold_lux, self.hysteresis = threshold_lux, hysteresis

    def begin(self, lux: float) -> None:
        """The first light after a while: nothing is known that it would have to outlast."""
        self.is_night = lux < self._limit_lux
        self._other_since_s = None

    def step(self, lux: float, now_s: float) -> bool:
        """Look at one frame; whether it is night now."""
        if (lux < self._limit_lux) == self.is_night:
            self._other_since_s = None
        elif self._other_since_s is None:
            self._other_since_s = now_s
        elif now_s - self._other_since_s >= _PATIENCE_S:
            self.is_night = not self.is_night
            self._other_since_s = None
        return self.is_night

    @property
    def _limit_lux(self) -> float:
        return self.threshold_lux * (self.hysteresis if self.is_night else 1.0)


def scene_of(lux: float | None, threshold_lux: float, *, is_night: bool) -> Scene | None:
    """The word for the status; None where the camera tells no light."""
    if is_night:
        return "night"
    if lux is None:
        return None
    return "low_light" if lux < threshold_lux * _LOW_LIGHT else "day"


class Light:
    """Fed with each frame's metadata of a settled camera. Used by one thread at a time."""

    def __init__(self) -> None:
        self.is_night = False
        self._word = "day"
        self._day_night = DayNight()
        self._governor: ExposureLimiter | None = None
        self._is_seen = False  # in this opening, and since the light decides

    @property
    def controls(self) -> Mapping[str, Any]:
        """What the exposure's limits make of it now; nothing where there are none."""
        return {} if self._governor is None else self._governor.controls

    def ask(self, asked: RequestedControls) -> None:
        """What is wanted from now on."""
        self._day_night.limit(*(asked.get("day_night_mode", name) for name in ("threshold_lux", "hysteresis")))
        before, self._word = self._word, asked.get("day_night_mode", "mode")
        if self._word != "auto":
            self.is_night = self._word == "night"
        elif before != "auto":
            self._is_seen = False  # it is left as it is until the next frame, which decides at once

    def limit(self, limits: Limits, least_gain: float) -> None:
        """How far the automatic exposure of the open camera may go."""
        if limits.is_none:
            self._governor = None
        elif self._governor is None or self._governor.limits != limits:
            self._governor = ExposureLimiter(limits, least_gain)

    def begin(self) -> None:
        """The camera is opened, or closed: what it saw before says nothing."""
        self._governor = None
        self._is_seen = False

    def step(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Look at one frame; whether something else is wanted of the camera now."""
        was_night = self.is_night
        lux = metadata.get("Lux")
        if isinstance(lux, int | float):
            if not self._is_seen:
                self._day_night.begin(lux)
            elif self._word == "auto":
                self._day_night.step(lux, now_s)
            self._is_seen = True
            if self._word == "auto":
                self.is_night = self._day_night.is_night
            if self.is_night != was_night:
                log.info("%s at %.1f lux", "Night" if self.is_night else "Day", lux)
        is_governed = self._governor is not None and self._governor.step(metadata)
        return is_governed or self.is_night != was_night

    def scene(self, lux: float | None) -> Scene | None:
        """The word for the status; None where nobody knows, as of a closed camera that is to see for itself."""
        if lux is None and self._word == "auto":
            return None
        return scene_of(lux, self._day_night.threshold_lux, is_night=self.is_night)
