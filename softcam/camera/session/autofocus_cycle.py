"""One autofocus cycle as a state machine: metadata and the time go in, controls to send and an outcome come out.

No thread, no clock and no camera in here; see `Autofocus`. Picamera2's own autofocus jobs are not used, so frames keep
flowing while the lens moves: libcamera accepts AfMode and AfTrigger as controls, and reports AfState with every frame
(libcamera's control_ids_core.yaml, "AfMode" to "AfState").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from softcam.camera.session.sent_controls import CONTROL_FRAMES


class AfMode(IntEnum):
    """libcamera's AfModeEnum."""

    MANUAL = 0
    AUTO = 1
    CONTINUOUS = 2


class AfState(IntEnum):
    """libcamera's AfStateEnum."""

    IDLE = 0
    SCANNING = 1
    FOCUSED = 2
    FAILED = 3


START_CONTROLS: Final[Mapping[str, Any]] = {"AfMode": int(AfMode.AUTO), "AfTrigger": 0}  # AfTriggerEnum's Start


@dataclass(frozen=True, slots=True)
class FocusOutcome:
    """The result of a cycle: `verdict` is `focused`, `failed` or `timed out`; the lens position is in dioptres.

    Frames whose exposure began after `before_s`, when the frame before the verdict arrived, are as the cycle left them.
    """

    purpose: str
    verdict: str
    took_s: float
    lens_position: float | None
    before_s: float

    @property
    def is_focused(self) -> bool:
        return self.verdict == "focused"


@dataclass(slots=True, eq=False)
class FocusCycle:
    """One cycle: a trigger, a scan, a verdict. `START_CONTROLS` start it. Used by one thread at a time."""

    purpose: str
    began_s: float
    timeout_s: float
    outcome: FocusOutcome | None = None
    _has_scanned: bool = field(default=False, init=False)
    _frames: int = field(default=0, init=False)
    _before_s: float = field(default=0.0, init=False)  # when the previous frame arrived

    def process_frame(self, metadata: Mapping[str, Any], now_s: float) -> FocusOutcome | None:
        """Read one frame's metadata; returns the outcome once there is one."""
        self._frames += 1
        state = metadata.get("AfState")
        if state == AfState.SCANNING:
            self._has_scanned = True
        elif state in (AfState.FOCUSED, AfState.FAILED) and (
            # Until the trigger takes effect, the state is the previous one. A verdict later than that belongs to this
            # cycle even if no frame in between reported Scanning.
            self._has_scanned or self._frames > CONTROL_FRAMES
        ):
            return self._outcome("focused" if state == AfState.FOCUSED else "failed", metadata, now_s)
        if now_s >= self.began_s + self.timeout_s:
            return self._outcome("timed out", metadata, now_s)
        self._before_s = now_s
        return None

    def _outcome(self, verdict: str, metadata: Mapping[str, Any], now_s: float) -> FocusOutcome:
        took_s, before_s = now_s - self.began_s, max(self.began_s, self._before_s)
        self.outcome = FocusOutcome(self.purpose, verdict, took_s, metadata.get("LensPosition"), before_s)
        return self.outcome
