"""One autofocus cycle as a state machine: metadata and the time go in, controls to send and an outcome come out.

No thread, no clock and no camera in here; see `Autofocus`. Picamera2's own autofocus jobs are not used, so frames keep
flowing while the lens moves: libcamera accepts AfMode and AfTrigger as controls, and reports AfState with every frame
(libcamera's control_ids_core.yaml, "AfMode" to "AfState").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from softcam.camera.session.sent_controls import CONTROL_FRAMES


class AfMode(IntEnum):
    """libcamera's AfModeEnum."""

    MANUAL = 0
    AUTO = 1
    CONTINUOUS = 2


class AfTrigger(IntEnum):
    """libcamera's AfTriggerEnum."""

    START = 0
    CANCEL = 1


class AfState(IntEnum):
    """libcamera's AfStateEnum."""

    IDLE = 0
    SCANNING = 1
    FOCUSED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class FocusOutcome:
    """The result of a cycle: `verdict` is `focused`, `failed` or `timed out`; the lens position is in dioptres."""

    purpose: str
    verdict: str
    took_s: float
    lens_position: float | None

    @property
    def is_focused(self) -> bool:
        return self.verdict == "focused"


class FocusCycle:
    """One cycle: a trigger, a scan, a verdict. Used by one thread at a time."""

    def __init__(self, purpose: str, now_s: float, timeout_s: float) -> None:
        self.purpose = purpose
        self.outcome: FocusOutcome | None = None
        self._began_s = now_s
        self._deadline_s = now_s + timeout_s
        self._has_scanned = False
        self._frames = 0

    @staticmethod
    def start_controls() -> dict[str, Any]:
        """The controls that start a cycle."""
        return {"AfMode": int(AfMode.AUTO), "AfTrigger": int(AfTrigger.START)}

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
        if now_s >= self._deadline_s:
            return self._outcome("timed out", metadata, now_s)
        return None

    def _outcome(self, verdict: str, metadata: Mapping[str, Any], now_s: float) -> FocusOutcome:
        self.outcome = FocusOutcome(self.purpose, verdict, now_s - self._began_s, metadata.get("LensPosition"))
        return self.outcome
