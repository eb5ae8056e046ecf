"""From which frame of an opening on pictures count: exposure and colours have come to rest, as the light wants them.

No thread and no camera in here. The camera's frame thread asks; others read `are_over`, one frame late at worst.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from softcam.camera.session.control_latency import ControlLatency

_AE_SEARCHING: Final = 1  # of libcamera's AeStateEnum
_REST: Final = 0.03  # a change of less than 3 % from frame to frame cannot be seen
_RESTFUL_FRAMES: Final = 3
_PATIENCE_S: Final = 2.0  # a dark or flickering scene may never rest; a Pi settles within half of this


class ExposureSettling:
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


class Settling:
    """Fed with the frames of one camera, over all its openings."""

    def __init__(self, changes: ControlLatency) -> None:
        self._changes = changes
        self.are_over = False
        self._settling: ExposureSettling | None = None
        self._is_at_rest = False
        self._shows: Callable[[Mapping[str, Any]], bool] | None = None
        self._is_shown = False

    def begin(self) -> None:
        """The camera is opened."""
        self.are_over = self._is_at_rest = self._is_shown = False
        self._settling = self._shows = None

    def are_at_rest(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Whether this frame tells what the light is."""
        if not self._is_at_rest:
            if self._settling is None:
                self._settling = ExposureSettling(now_s)
            self._is_at_rest = self._settling.step(metadata, now_s)
        return self._is_at_rest

    def judge(self, metadata: Mapping[str, Any], now_s: float) -> None:
        """What follows from the light was told to the camera, if anything: it has to be in the picture, and at rest."""
        if self.are_over or not self._is_at_rest:
            return
        if self._shows is None:
            self._shows = self._changes.visible_since(now_s)
            self._settling = None
        # Once is enough: libcamera tells colours and contrast with a single frame, the first that has them.
        self._is_shown = self._is_shown or self._shows(metadata)
        if not self._is_shown:
            self._settling = ExposureSettling(now_s)
        elif self._settling is None or self._settling.step(metadata, now_s):
            self.are_over = True
