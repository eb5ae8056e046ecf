"""What follows from the light that a camera sees: the night's profile, and the exposure within its limits.

No camera, no clock, no thread.
"""

import logging
from collections.abc import Mapping
from typing import Any

from softcam.controls.daynight import DayNight, Scene, scene_of
from softcam.controls.limits import Governor, Limits
from softcam.controls.state import Asked

log = logging.getLogger(__name__)


class Light:
    """Fed with each frame's metadata of a settled camera. Used by one thread at a time."""

    def __init__(self) -> None:
        self.is_night = False
        self._word = "day"
        self._day_night = DayNight()
        self._governor: Governor | None = None
        self._is_seen = False  # in this opening, and since the light decides

    @property
    def controls(self) -> Mapping[str, Any]:
        """What the exposure's limits make of it now; nothing where there are none."""
        return {} if self._governor is None else self._governor.controls

    def ask(self, asked: Asked) -> None:
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
            self._governor = Governor(limits, least_gain)

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
