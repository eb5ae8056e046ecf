"""From which frame on a picture shows what the camera was told.

No camera and no clock in here. Whoever sends controls tells them, the camera's frame thread counts, anyone asks. There
is no lock: each value is replaced as a whole, and read one frame late at worst.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from softcam.camera.session.frame_rate import CONTROL_FRAMES

_NEAR: Final = 0.02  # exposures come in whole lines of the sensor, and gains in steps


@dataclass(frozen=True, slots=True)
class _Change:
    """`since_s` is when the first of it was sent."""

    since_s: float = 0.0
    until_frame: int = 0
    controls: Mapping[str, Any] = field(default_factory=dict)


class ControlLatency:
    """What was sent to one camera, and may not be seen yet."""

    def __init__(self) -> None:
        self._frames = 0
        self._last = _Change()

    def begin(self) -> None:
        """The camera starts, and what it was told counts from the first frame."""
        self._last = _Change()

    def sent(self, controls: Mapping[str, Any], now_s: float) -> None:
        last = self._last
        if self._frames >= last.until_frame:
            last = _Change(now_s)
        self._last = _Change(last.since_s, self._frames + CONTROL_FRAMES, {**last.controls, **controls})

    def count(self) -> None:
        """A frame came."""
        self._frames += 1

    def visible_since(self, moment_s: float) -> Callable[[Mapping[str, Any]], bool]:
        """Whether the newest frame, of this metadata, shows what had been sent at that moment."""
        change = self._last
        if change.since_s > moment_s:
            return lambda _: True
        return lambda metadata: self._frames >= change.until_frame or _shows(metadata, change.controls)


def _shows(metadata: Mapping[str, Any], controls: Mapping[str, Any]) -> bool:
    return all(name in metadata and _is_near(metadata[name], value) for name, value in controls.items())


def _is_near(seen: Any, told: Any) -> bool:
    if isinstance(seen, tuple | list) and isinstance(told, tuple | list):
        return len(seen) == len(told) and all(map(_is_near, seen, told))
    if not (isinstance(seen, int | float) and isinstance(told, int | float)):
        return False
    return abs(seen - told) <= _NEAR * abs(told)
