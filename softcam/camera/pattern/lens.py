"""The pattern camera's lens: autofocus as libcamera's Raspberry Pi algorithm does it, seen from outside.

No picture is drawn here. One frame is one `step`; the pattern camera's own thread makes them all.
"""

from collections import deque
from enum import IntEnum
from typing import Final, Literal

FocusOutcome = Literal["sharp", "never", "endless"]

_SCAN_S: Final = (0.4, 0.25)  # by AfSpeed: normal, fast
_SHORTEST_SCAN_FRAMES: Final = 4  # even at one frame a second the lens takes a few steps to know the best place
_OVERSHOOT_DIOPTRES: Final = 0.6  # a scan has to see the sharpness fall again before it knows where the top was

# By AfRange (normal, macro, full): nearest to furthest, and where the lens rests when nothing was found.
_RANGES: Final = ((0.0, 12.0, 1.0), (3.0, 15.0, 4.0), (0.0, 15.0, 1.0))


class AfMode(IntEnum):
    MANUAL = 0
    AUTO = 1
    CONTINUOUS = 2


class AfState(IntEnum):
    IDLE = 0
    SCANNING = 1
    FOCUSED = 2
    FAILED = 3


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
        self._seen: tuple[float, FocusOutcome] | None = None  # what the last scan was made for

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
        """Move the lens at once; does nothing unless the focus is manual."""
        if self.mode is AfMode.MANUAL:
            self.position_dioptres = min(max(dioptres, 0.0), self.NEAREST_DIOPTRES)

    def trigger(self) -> None:
        """Start a scan; only the automatic mode listens, and only when it is not scanning."""
        if self.mode is AfMode.AUTO and self.state is not AfState.SCANNING:
            self._triggered = True

    def cancel(self) -> None:
        if self.mode is AfMode.AUTO:
            self._rest()

    def pause(self, how: int) -> None:
        """AfPause of the continuous mode: 0 at once, 1 when the scan has ended, 2 go on."""
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
        """One frame: begin a scan, move on, or end it; `scene_dioptres` is where the picture would be sharp."""
        sees = (scene_dioptres, outcome)
        may_notice = self.mode is AfMode.CONTINUOUS and self.pause_state is not AfPauseState.PAUSED
        if self._triggered or (sees != self._seen and (may_notice or self.state is AfState.SCANNING)):
            self._triggered = False
            self._seen = sees
            self._begin_scan(frame_s, scene_dioptres, outcome)
        elif self.state is AfState.SCANNING:
            self._move(frame_s, scene_dioptres, outcome)

    def _rest(self) -> None:
        self.state = AfState.IDLE
        self._triggered = False
        self._path.clear()

    def _begin_scan(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
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
            self._begin_scan(frame_s, scene_dioptres, outcome)
            return
        self.state = AfState.FOCUSED if self._finds(scene_dioptres, outcome) else AfState.FAILED
        if self.pause_state is AfPauseState.PAUSING:
            self.pause_state = AfPauseState.PAUSED

    def _finds(self, scene_dioptres: float, outcome: FocusOutcome) -> bool:
        far, near, _ = _RANGES[self.range]
        return outcome == "sharp" and far <= scene_dioptres <= near


def _line(start: float, end: float, steps: int) -> list[float]:
    """`steps` places from behind `start` up to `end`."""
    return [start + (end - start) * step / steps for step in range(1, steps + 1)]
