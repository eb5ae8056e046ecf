"""The pattern camera's lens: how libcamera's autofocus for the Raspberry Pi behaves, seen from outside.

Nothing is drawn here. `step` advances the lens by one frame; only the pattern camera's thread calls it.
"""

from collections import deque
from enum import IntEnum
from typing import Final, Literal

from softcam.camera.session.autofocus_cycle import AfMode, AfState

FocusOutcome = Literal["sharp", "never", "endless"]

_SCAN_S: Final = (0.4, 0.25)  # by AfSpeed: normal, fast
_SHORTEST_SCAN_FRAMES: Final = 4  # a scan needs a few positions, even at one frame per second
_OVERSHOOT_DIOPTRES: Final = 0.6  # a scan passes the best position until the sharpness falls again

# By AfRange (normal, macro, full): the farthest and the nearest position, and the one after a failed scan.
_RANGES: Final = ((0.0, 12.0, 1.0), (3.0, 15.0, 4.0), (0.0, 15.0, 1.0))


class AfPauseState(IntEnum):
    RUNNING = 0
    PAUSING = 1
    PAUSED = 2


class Lens:
    """A lens that moves between 0 and 15 dioptres (1 / metres)."""

    NEAREST_DIOPTRES: Final = 15.0

    def __init__(self) -> None:
        self.position_dioptres = _RANGES[0][2]
        self.mode = AfMode.MANUAL
        self.state = AfState.IDLE
        self.pause_state = AfPauseState.RUNNING
        self.range = 0
        self.speed = 0
        self._path: deque[float] = deque()
        self._triggered = False
        self._scanned: tuple[float, FocusOutcome] | None = None  # the scene of the last scan

    def set_mode(self, mode: AfMode) -> None:
        if mode == self.mode:
            return
        was_scanning = self.state is AfState.SCANNING
        self.mode = mode
        self.pause_state = AfPauseState.RUNNING
        if mode is AfMode.CONTINUOUS:
            self._triggered = True
        elif mode is AfMode.MANUAL or not was_scanning:
            self._rest()

    def set_position(self, dioptres: float) -> None:
        """Move the lens at once; no effect unless the focus is manual."""
        if self.mode is AfMode.MANUAL:
            self.position_dioptres = min(max(dioptres, 0.0), self.NEAREST_DIOPTRES)

    def trigger(self) -> None:
        """Start a scan; no effect outside of the automatic mode and during a scan."""
        if self.mode is AfMode.AUTO and self.state is not AfState.SCANNING:
            self._triggered = True

    def cancel(self) -> None:
        if self.mode is AfMode.AUTO:
            self._rest()

    def pause(self, how: int) -> None:
        """Set AfPause of the continuous mode: 0 pauses at once, 1 after the running scan, 2 resumes."""
        if self.mode is not AfMode.CONTINUOUS:
            return
        if how == 2:
            self._triggered |= self.pause_state is AfPauseState.PAUSED
            self.pause_state = AfPauseState.RUNNING
        elif how == 1 and self.state is AfState.SCANNING:
            self.pause_state = AfPauseState.PAUSING
        else:
            self.pause_state = AfPauseState.PAUSED
            if self.state is AfState.SCANNING:
                self._rest()

    def step(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
        """Advance by one frame: start, continue or end a scan; at `scene_dioptres` the picture would be sharp."""
        scene = (scene_dioptres, outcome)
        may_notice = self.mode is AfMode.CONTINUOUS and self.pause_state is not AfPauseState.PAUSED
        if self._triggered or (scene != self._scanned and (may_notice or self.state is AfState.SCANNING)):
            self._triggered = False
            self._scanned = scene
            self._start_scan(frame_s, scene_dioptres, outcome)
        elif self.state is AfState.SCANNING:
            self._move(frame_s, scene_dioptres, outcome)

    def _rest(self) -> None:
        self.state = AfState.IDLE
        self._triggered = False
        self._path.clear()

    def _start_scan(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
        self.state = AfState.SCANNING
        far, near, fallback = _RANGES[self.range]
        frames = max(_SHORTEST_SCAN_FRAMES, round(_SCAN_S[self.speed] / frame_s))
        if outcome == "endless":
            self._path = deque(_line(self.position_dioptres, near, frames) + _line(near, far, frames))
            return
        target = scene_dioptres if self._finds(scene_dioptres, outcome) else fallback
        away = 1 if target >= self.position_dioptres else -1
        turn = min(max(target + away * _OVERSHOOT_DIOPTRES, far), near)
        there = -(-frames * 3 // 5)
        self._path = deque(_line(self.position_dioptres, turn, there) + _line(turn, target, frames - there))

    def _move(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
        if self._path:
            self.position_dioptres = self._path.popleft()
            return
        if outcome == "endless":
            self._start_scan(frame_s, scene_dioptres, outcome)
            return
        self.state = AfState.FOCUSED if self._finds(scene_dioptres, outcome) else AfState.FAILED
        if self.pause_state is AfPauseState.PAUSING:
            self.pause_state = AfPauseState.PAUSED

    def _finds(self, scene_dioptres: float, outcome: FocusOutcome) -> bool:
        far, near, _ = _RANGES[self.range]
        return outcome == "sharp" and far <= scene_dioptres <= near


def _line(start: float, end: float, steps: int) -> list[float]:
    """Return `steps` evenly spaced positions from `start`, which is left out, to `end`."""
    return [start + (end - start) * step / steps for step in range(1, steps + 1)]
