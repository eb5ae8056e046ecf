"""Keeps the automatic exposure within limits, for which libcamera has no control. No camera, no clock, no thread.

If the automatic exceeds a limit, the exposure time or the gain is fixed at the limit, and libcamera continues with the
other one alone. It is released once the other one shows that it is no longer needed: an exposure time that was
shortened, once the gain is back at its minimum, and so on. With both fixed, only the measured light shows a change. If
fixing one would make the other one exceed its own limits, both are fixed at once: a camera that opens for a single
snapshot has no time for a second step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcam.camera.session.sent_controls import CONTROL_FRAMES

_TOLERANCE: Final = 1.01  # gains are reported in steps of the sensor
_LIGHT_CHANGED: Final = 1.15
_LIGHT_DOUBTFUL: Final = 1.5  # an image that is far too dark distorts the measured light
_LEAST_LUX: Final = 1.0  # lower values are noise
# Frames until a control shows in the metadata and the automatic has adapted; earlier metadata is of the old controls.
_STABLE_FRAMES: Final = CONTROL_FRAMES + 3
_MAX_STABLE_FRAMES: Final = 3 * CONTROL_FRAMES  # for values that never show, because the sensor rounds them
_SHOWN: Final = 1.05  # the sensor rounds exposure times to lines, and gains to steps
_STEADY: Final = 1.03  # from frame to frame; the target of an automatic that still adapts is unknown


@dataclass(frozen=True, slots=True)
class Limits:
    """Exposure times in microseconds, and gains; None for no limit."""

    min_exposure_us: int | None = None
    max_exposure_us: int | None = None
    min_gain: float | None = None
    max_gain: float | None = None


class ExposureLimiter:
    """Decides by each frame's metadata what to fix while the exposure is automatic. Used by one thread at a time."""

    def __init__(self, limits: Limits, least_gain: float) -> None:
        """`least_gain` is the sensor's minimum."""
        self.limits = limits
        self._least_gain = max(least_gain, 1.0)
        self._exposure_us = 0  # 0 is automatic, as in libcamera
        self._gain = 0.0
        self._before: tuple[float, float, float] = (0.0, 0.0, 0.0)  # exposure, gain and light at the last change
        self._frames = _MAX_STABLE_FRAMES  # since the last change
        self._lux: float | None = None  # the light measured with both fixed, once they showed
        self._lux_ratio = 1.0  # that light divided by the one measured before both were fixed
        self._product = 0.0  # exposure time times gain of the previous frame; 0 if there is none

    @property
    def controls(self) -> dict[str, Any]:
        """The fixed values; 0 is automatic."""
        return {"ExposureTime": self._exposure_us, "AnalogueGain": self._gain}

    def process_metadata(self, metadata: Mapping[str, Any]) -> bool:
        """Process one frame; returns whether `controls` has changed."""
        exposure_us, gain = metadata.get("ExposureTime"), metadata.get("AnalogueGain")
        if exposure_us is None or gain is None:
            return False
        exposure_us, gain = float(exposure_us), float(gain)
        self._frames += 1
        before, self._product = self._product, exposure_us * gain
        if not self._is_stable(exposure_us, gain):
            return False
        lux = max(_LEAST_LUX, float(metadata.get("Lux") or 0.0))
        fixed_us, fixed_gain = self._decide(exposure_us, gain, lux)
        if not before or _is_near(self._product, before, _STEADY):
            longest_us = float(metadata.get("FrameDuration") or math.inf)
            fixed_us, fixed_gain = self._predict(fixed_us, fixed_gain, longest_us)
        if (fixed_us, fixed_gain) == (self._exposure_us, self._gain):
            return False
        self._exposure_us, self._gain = fixed_us, fixed_gain
        self._before = (exposure_us, gain, lux)
        self._lux, self._frames = None, 0
        return True

    def _is_stable(self, exposure_us: float, gain: float) -> bool:
        """Whether the metadata is of the current `controls`; only time shows that a value was released."""
        if self._frames < _STABLE_FRAMES:
            return False
        shown = ((self._exposure_us, exposure_us), (self._gain, gain))
        is_shown = all(_is_near(reported, fixed, _SHOWN) for fixed, reported in shown if fixed)
        return is_shown or self._frames >= _MAX_STABLE_FRAMES

    def _decide(self, exposure_us: float, gain: float, lux: float) -> tuple[int, float]:
        """The exposure time and the gain to fix; 0 is automatic."""
        limits = self.limits
        if self._exposure_us and self._gain:
            return (0, 0.0) if self._has_light_changed(lux) else (self._exposure_us, self._gain)
        fixed_us, fixed_gain = self._exposure_us, self._gain
        if fixed_us and limits.min_exposure_us != limits.max_exposure_us:  # else no other value is within the limits
            # A gain at its minimum means that the scene is bright: then a time at its lower limit is right, and one at
            # its upper limit too long.
            is_bright = gain <= self._least_gain * _TOLERANCE
            if fixed_us == limits.max_exposure_us:
                is_needless = is_bright
            else:
                # An automatic raises the gain before the time is at its longest: in the light in which it chose a time
                # below the limit, it would choose it again.
                before_us, before_gain, _ = self._before
                is_needless = not is_bright and exposure_us * gain > before_us * before_gain * _LIGHT_CHANGED
            if is_needless:
                fixed_us = 0
        elif fixed_gain and limits.min_gain != limits.max_gain:
            # The time replaces the gain as far as the frame duration allows; a time that did not change proves nothing.
            before_us = self._before[0]
            was_lowered = fixed_gain == limits.max_gain
            if exposure_us < before_us / _TOLERANCE if was_lowered else exposure_us > before_us * _TOLERANCE:
                fixed_gain = 0.0
        if not fixed_us and self._exposure_us == 0:
            fixed_us = round(_exceeded_limit(exposure_us, limits.min_exposure_us, limits.max_exposure_us))
        if not fixed_gain and self._gain == 0.0:
            fixed_gain = _exceeded_limit(gain, limits.min_gain, limits.max_gain)
        return fixed_us, fixed_gain

    def _has_light_changed(self, lux: float) -> bool:
        """With both fixed: whether the light differs from that in which they were fixed."""
        if self._lux is not None:
            return not _is_near(lux, self._lux, _LIGHT_CHANGED)
        self._lux = lux
        # Either the light has changed, or the fixed values distort its measurement: the ratio is then the same again.
        before_ratio, self._lux_ratio = self._lux_ratio, lux / self._before[2]
        return not _is_near(self._lux_ratio, before_ratio, _LIGHT_DOUBTFUL)

    def _predict(self, fixed_us: int, fixed_gain: float, longest_us: float) -> tuple[int, float]:
        """If one is about to be fixed: fix the other one too if compensating would exceed its own limits."""
        limits = self.limits
        if self._exposure_us or self._gain or bool(fixed_us) == bool(fixed_gain):
            return fixed_us, fixed_gain
        if fixed_us:
            gain = max(self._product / fixed_us, self._least_gain)
            return fixed_us, _exceeded_limit(gain, limits.min_gain, limits.max_gain)
        exposure_us = min(self._product / fixed_gain, longest_us)
        return round(_exceeded_limit(exposure_us, limits.min_exposure_us, limits.max_exposure_us)), fixed_gain


def _is_near(value: float, other: float, factor: float) -> bool:
    return other / factor <= value <= other * factor


def _exceeded_limit(value: float, low: float | None, high: float | None) -> float:
    """The limit that `value` exceeds, or 0."""
    if high is not None and value > high * _TOLERANCE:
        return high
    if low is not None and value < low / _TOLERANCE:
        return low
    return 0.0
