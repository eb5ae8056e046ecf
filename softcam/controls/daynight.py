"""Tells night from day by the light, without flapping. Numbers in, a decision out; no camera, no clock, no thread."""

from typing import Final, Literal

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
