"""The controls in effect on the open camera: what was sent since it was opened, and from when frames show it.

No camera and no clock in here. Any thread records controls, the camera's frame thread counts frames, any thread reads.
Writers are serialized; readers need no lock, since each value is replaced as a whole and read at worst one frame late.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

# The metadata shows a control at the latest this many frames after it was sent: libcamera has six requests queued, and
# the sensor is some frames behind.
CONTROL_FRAMES: Final = 12
# One-off controls: they start something and are not a value in effect. Sent again, they would start it again.
MOMENTARY_CONTROLS: Final = frozenset({"AfTrigger", "AfPause"})
# The metadata never shows these, so there is nothing to wait for; it has the frame duration instead of its limits.
_NEVER_SHOWN: Final = MOMENTARY_CONTROLS | {"AfMode", "FrameDurationLimits"}
_TOLERANCE: Final = 0.02  # exposures are whole lines of the sensor, and gains have steps


def min_frame_duration_s(controls: Mapping[str, Any]) -> float:
    """The shortest frame duration that these libcamera controls allow; 0 if they don't limit it."""
    shortest_us = (controls.get("FrameDurationLimits") or (0,))[0]
    return float(max(shortest_us, controls.get("ExposureTime") or 0)) / 1e6


@dataclass(frozen=True, slots=True)
class _Change:
    """Controls that frames may not show before the frame number `until_frame`; the first was sent at `since_s`."""

    since_s: float = 0.0
    until_frame: int = 0
    controls: Mapping[str, Any] = field(default_factory=dict)


class SentControls:
    """The record of the controls that were sent since the camera was opened; `clear()` is called for each opening.

    `values` has the newest value of each control, without one-off controls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # serializes the writers
        self._frames = 0  # written by the frame thread only
        self.clear()

    def clear(self) -> None:
        """The camera is being opened: it has its own defaults."""
        with self._lock:
            self.values: Mapping[str, Any] = MappingProxyType({})
            self._change = _Change()
            self._requested = (0.0, 0)  # a frame duration, and the last frame number for which it is expected

    def mark_visible(self) -> None:
        """The camera is about to start: what was sent so far applies from its first frame."""
        with self._lock:
            self._change = _Change()

    def record(self, controls: Mapping[str, Any], now_s: float) -> None:
        """These controls were sent."""
        kept = {name: value for name, value in controls.items() if name not in MOMENTARY_CONTROLS}
        with self._lock:
            self.values = MappingProxyType({**self.values, **kept})
            until_frame = self._frames + CONTROL_FRAMES
            if duration_s := min_frame_duration_s(controls):
                self._requested = (duration_s, until_frame)
            if awaited := {name: value for name, value in controls.items() if name not in _NEVER_SHOWN}:
                change = self._change if self._frames < self._change.until_frame else _Change(now_s)
                self._change = _Change(change.since_s, until_frame, {**change.controls, **awaited})

    def count_frame(self) -> None:
        """A frame arrived; called before anyone can see it."""
        self._frames += 1

    @property
    def requested_duration_s(self) -> float:
        """The frame duration that was requested and that the metadata may not show yet; 0 if none.

        Lasts for one frame longer than the metadata needs: the frame is counted here before it ends a silence.
        """
        duration_s, until_frame = self._requested
        return duration_s if self._frames <= until_frame else 0.0

    def visible_since(self, moment_s: float) -> Callable[[Mapping[str, Any]], bool]:
        """A predicate over the newest frame's metadata: whether the frame shows what had been sent at that moment."""
        change = self._change
        if change.since_s > moment_s:
            return lambda _: True
        return lambda metadata: self._frames >= change.until_frame or _is_shown(metadata, change.controls)


def _is_shown(metadata: Mapping[str, Any], controls: Mapping[str, Any]) -> bool:
    return all(name in metadata and _is_near(metadata[name], value) for name, value in controls.items())


def _is_near(reported: Any, sent: Any) -> bool:
    if isinstance(reported, tuple | list) and isinstance(sent, tuple | list):
        return len(reported) == len(sent) and all(map(_is_near, reported, sent))
    if not (isinstance(reported, int | float) and isinstance(sent, int | float)):
        return False
    return abs(reported - sent) <= _TOLERANCE * abs(sent)
