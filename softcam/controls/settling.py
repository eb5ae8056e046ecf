"""When a camera that was just opened shows the scene as it is: exposure and white balance have come to rest.

Decides from metadata alone; no thread, no clock, no camera.
"""

from collections.abc import Mapping
from typing import Any, Final

_AE_SEARCHING: Final = 1  # of libcamera's AeStateEnum
_REST: Final = 0.03  # a change of less than 3 % from frame to frame cannot be seen
_RESTFUL_FRAMES: Final = 3
_PATIENCE_S: Final = 2.0  # a dark or flickering scene may never rest; a Pi settles within half of this


class Settling:
    """Fed with each frame since the camera was opened, until it says True. Used by the camera's thread alone."""

    def __init__(self, now_s: float) -> None:
        self._deadline_s = now_s + _PATIENCE_S
        self._before: tuple[float, ...] | None = None
        self._restful = 0

    def step(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Whether pictures count from this frame on. A camera that tells no exposure has nothing to settle."""
        if now_s >= self._deadline_s:
            return True
        exposure_us = metadata.get("ExposureTime")
        if exposure_us is None:
            return True
        values = (
            float(exposure_us) * float(metadata.get("AnalogueGain") or 1.0),
            *(float(gain) for gain in metadata.get("ColourGains") or ()),
        )
        before, self._before = self._before, values
        at_rest = (
            before is not None
            and len(before) == len(values)
            and all(abs(new - old) <= _REST * abs(old) for new, old in zip(values, before, strict=True))
        )
        self._restful = self._restful + 1 if at_rest else 0
        if self._restful < _RESTFUL_FRAMES:
            return False
        # Where the camera says so itself it has the last word: AeState, or AeLocked of older releases.
        if "AeState" in metadata:
            return bool(metadata["AeState"] != _AE_SEARCHING)
        return bool(metadata.get("AeLocked", True))
