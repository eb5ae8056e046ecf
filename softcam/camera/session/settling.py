"""Whether the frames of an opening are settled: exposure and colours have adapted to the light.

No thread and no camera in here. The camera's frame thread calls it; others read `is_settled`, at worst one frame late.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from softcam.camera.session.sent_controls import SentControls

_AE_SEARCHING: Final = 1  # of libcamera's AeStateEnum
_MAX_CHANGE: Final = 0.03  # a change of less than 3 % from frame to frame cannot be seen
# Whichever is first: a slow camera takes many seconds for a number of frames.
_STABLE_FRAMES: Final = 3
_STABLE_S: Final = 0.15
_TIMEOUT_S: Final = 2.0  # a dark or flickering scene may never be stable; a Pi settles within half of this


class ExposureSettling:
    """Judges the exposure of each frame since the camera was opened, until it is settled. For the frame thread only."""

    def __init__(self, now_s: float) -> None:
        self._deadline_s = now_s + _TIMEOUT_S
        self._previous: tuple[float, ...] | None = None
        self._stable_frames = 0
        self._changed_s = now_s  # when the last frame arrived that differed from the one before

    def process_frame(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Whether the exposure is settled with this frame. A camera that reports no exposure has nothing to settle."""
        if now_s >= self._deadline_s:
            return True
        exposure_us = metadata.get("ExposureTime")
        if exposure_us is None:
            return True
        values = (
            float(exposure_us) * float(metadata.get("AnalogueGain") or 1.0),
            *map(float, metadata.get("ColourGains") or ()),
        )
        previous, self._previous = self._previous, values
        is_stable = (
            previous is not None
            and len(previous) == len(values)
            and all(abs(new - old) <= _MAX_CHANGE * abs(old) for new, old in zip(values, previous, strict=True))
        )
        if not is_stable:
            self._stable_frames, self._changed_s = 0, now_s
            return False
        self._stable_frames += 1
        if self._stable_frames < _STABLE_FRAMES and now_s - self._changed_s < _STABLE_S:
            return False
        # If the camera reports a state, that decides: AeState, or AeLocked of older releases.
        if "AeState" in metadata:
            return bool(metadata["AeState"] != _AE_SEARCHING)
        return bool(metadata.get("AeLocked", True))


class Settling:
    """Settling of one camera, over all its openings.

    Two phases: the exposure settles, so that listeners can judge the light; then what they send because of it, such as
    night mode, has to be visible and settled as well.
    """

    def __init__(self, sent: SentControls) -> None:
        self._sent = sent
        self.reset()

    def reset(self) -> None:
        """The camera is being opened."""
        self.is_settled = self._is_exposure_settled = self._is_shown = False
        self._exposure: ExposureSettling | None = None
        self._shows_controls: Callable[[Mapping[str, Any]], bool] | None = None

    def is_exposure_settled(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Whether the exposure of this frame shows how much light there is; called before the listeners."""
        if not self._is_exposure_settled:
            if self._exposure is None:
                self._exposure = ExposureSettling(now_s)
            self._is_exposure_settled = self._exposure.process_frame(metadata, now_s)
        return self._is_exposure_settled

    def process_frame(self, metadata: Mapping[str, Any], now_s: float) -> None:
        """Update `is_settled`; called after the listeners, which may have sent controls because of the light."""
        if self.is_settled or not self._is_exposure_settled:
            return
        if self._shows_controls is None:
            self._shows_controls = self._sent.visible_since(now_s)
            self._exposure = None
        # Once is enough: libcamera reports colours and contrast with a single frame, the first that has them.
        self._is_shown = self._is_shown or self._shows_controls(metadata)
        if not self._is_shown:
            self._exposure = ExposureSettling(now_s)
        elif self._exposure is None or self._exposure.process_frame(metadata, now_s):
            self.is_settled = True
