"""Keeps the automatic exposure within limits, which libcamera has no control for. No camera, no clock, no thread.

Where the automatic leaves the limits, the exposure time or the gain is fixed at the limit and libcamera goes on with
the other one alone. It is let go when the other one shows that it is no longer needed: a time that was cut short when
the gain is back at its least, and so on. With both fixed nothing tells but the light that the camera measures. Where
the other one is going to leave its limits for it, both are fixed at once: a camera that opens for one picture has no
time to find that out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.session.frame_rate import CONTROL_FRAMES

_CLOSE: Final = 1.01  # gains are told in steps of the sensor
_LIGHT_CHANGED: Final = 1.15
_LIGHT_DOUBTFUL: Final = 1.5  # a picture that is cut very short shows a camera another light than there is
_LEAST_LUX: Final = 1.0  # below, it is noise
# Until a control shows in the metadata, and the automatic has followed it: sooner would be a judgement of the old one.
_REST_FRAMES: Final = CONTROL_FRAMES + 3
_MOST_REST_FRAMES: Final = 3 * CONTROL_FRAMES  # for what never shows, be it that the sensor cannot do it so exactly
_SHOWN: Final = 1.05  # an exposure time is told in lines of the sensor, a gain in its steps
_REST: Final = 1.03  # from frame to frame; of an automatic that still moves nobody knows where it goes


@dataclass(frozen=True, slots=True)
class Limits:
    """In microseconds and as gains; None is no limit."""

    min_exposure_us: int | None = None
    max_exposure_us: int | None = None
    min_gain: float | None = None
    max_gain: float | None = None

    @property
    def is_none(self) -> bool:
        return self == Limits()


class ExposureLimiter:
    """Fed with each frame's metadata while the exposure is automatic. Used by one thread at a time."""

    def __init__(self, limits: Limits, least_gain: float) -> None:
        self.limits = limits
        self._least_gain = max(least_gain, 1.0)
        self._exposure_us = 0  # 0 is automatic, as in libcamera
        self._gain = 0.0
        self._before: tuple[float, float, float] = (0.0, 0.0, 0.0)  # exposure, gain and light when something was fixed
        self._frames = _MOST_REST_FRAMES  # since the last change
        self._lux: float | None = None  # what the camera measures with both fixed, when that had shown
        self._lux_ratio = 1.0  # by how much that differed from the measure before, when both were fixed last
        self._product = 0.0  # time and gain of the frame before, multiplied; 0 is none, and the camera is at rest

    @property
    def controls(self) -> dict[str, Any]:
        """What is fixed now; 0 hands back to the automatic."""
        return {"ExposureTime": self._exposure_us, "AnalogueGain": self._gain}

    def step(self, metadata: Mapping[str, Any]) -> bool:
        """Look at one frame; whether `controls` has changed."""
        exposure_us, gain = metadata.get("ExposureTime"), metadata.get("AnalogueGain")
        if exposure_us is None or gain is None or self.limits.is_none:
            return False
        self._frames += 1
        before, self._product = self._product, float(exposure_us) * float(gain)
        if not self._is_rested(float(exposure_us), float(gain)):
            return False
        lux = max(_LEAST_LUX, float(metadata.get("Lux") or 0.0))
        fixed_us, fixed_gain = self._decide(float(exposure_us), float(gain), lux)
        if not before or before / _REST <= self._product <= before * _REST:
            longest_us = float(metadata.get("FrameDuration") or math.inf)
            fixed_us, fixed_gain = self._foresee(fixed_us, fixed_gain, longest_us)
        wanted = fixed_us, fixed_gain
        if wanted == (self._exposure_us, self._gain):
            return False
        self._exposure_us, self._gain = wanted
        self._before = (float(exposure_us), float(gain), lux)
        self._lux = None
        self._frames = 0
        return True

    def _is_rested(self, exposure_us: float, gain: float) -> bool:
        """Whether the metadata is that of what is fixed now: a release shows by nothing but the time."""
        if self._frames < _REST_FRAMES:
            return False
        is_shown = all(
            fixed / _SHOWN <= told <= fixed * _SHOWN
            for fixed, told in ((self._exposure_us, exposure_us), (self._gain, gain))
            if fixed
        )
        return is_shown or self._frames >= _MOST_REST_FRAMES

    def _decide(self, exposure_us: float, gain: float, lux: float) -> tuple[int, float]:
        limits = self.limits
        if self._exposure_us and self._gain:
            return (0, 0.0) if self._is_other_light(lux) else (self._exposure_us, self._gain)
        fixed_us, fixed_gain = self._exposure_us, self._gain
        if fixed_us and limits.min_exposure_us == limits.max_exposure_us:
            pass  # there is nothing else that it could be
        elif fixed_us:
            # At its least the gain says that the scene is bright: right for a time at its shortest, and too much for
            # one that was cut short.
            is_bright = gain <= self._least_gain * _CLOSE
            if fixed_us == limits.max_exposure_us:
                is_needless = is_bright
            else:
                # An automatic raises the gain before the time is at its longest: in the light in which it took a time
                # that was too short it would do so again.
                before_us, before_gain, _ = self._before
                is_needless = not is_bright and exposure_us * gain > before_us * before_gain * _LIGHT_CHANGED
            if is_needless:
                fixed_us = 0
        elif fixed_gain and limits.min_gain != limits.max_gain:
            # The time stands in for the gain, as far as a frame's duration lets it: one that did not change at all
            # says nothing.
            before_us = self._before[0]
            was_cut = fixed_gain == limits.max_gain
            if exposure_us < before_us / _CLOSE if was_cut else exposure_us > before_us * _CLOSE:
                fixed_gain = 0.0
        if not fixed_us and self._exposure_us == 0:
            fixed_us = round(_beyond(exposure_us, limits.min_exposure_us, limits.max_exposure_us))
        if not fixed_gain and self._gain == 0.0:
            fixed_gain = _beyond(gain, limits.min_gain, limits.max_gain)
        return fixed_us, fixed_gain

    def _is_other_light(self, lux: float) -> bool:
        """With both fixed: whether it is no longer the light in which they were."""
        if self._lux is not None:
            return not _is_near(lux, self._lux, _LIGHT_CHANGED)
        self._lux = lux
        # It has changed meanwhile, or is only measured otherwise: then it will be so again.
        before_ratio, self._lux_ratio = self._lux_ratio, lux / self._before[2]
        return not _is_near(self._lux_ratio, before_ratio, _LIGHT_DOUBTFUL)

    def _foresee(self, fixed_us: int, fixed_gain: float, longest_us: float) -> tuple[int, float]:
        """One of them is about to be fixed: the other one too, where it will have to stand in beyond its own limits."""
        limits = self.limits
        if self._exposure_us or self._gain or bool(fixed_us) == bool(fixed_gain):
            return fixed_us, fixed_gain
        if fixed_us:
            gain = max(self._product / fixed_us, self._least_gain)
            return fixed_us, _beyond(gain, limits.min_gain, limits.max_gain)
        exposure_us = min(self._product / fixed_gain, longest_us)
        return round(_beyond(exposure_us, limits.min_exposure_us, limits.max_exposure_us)), fixed_gain


def _is_near(value: float, other: float, factor: float) -> bool:
    return other / factor <= value <= other * factor


def _beyond(value: float, low: float | None, high: float | None) -> float:
    """The limit that `value` is beyond, or 0."""
    if high is not None and value > high * _CLOSE:
        return high
    if low is not None and value < low / _CLOSE:
        return low
    return 0.0
