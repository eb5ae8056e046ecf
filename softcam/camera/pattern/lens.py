"""The pattern camera's lens: how libcamera's autofocus for the Raspberry Pi behaves, seen from outside.

Nothing is drawn here. Only the pattern camera's thread calls a lens.
"""

from typing import Any, Final, Literal

from softcam.camera.session.autofocus_cycle import AfMode, AfState

FocusOutcome = Literal["sharp", "never", "endless"]

NEAREST_DIOPTRES: Final = 15.0
_SCAN_S: Final = (0.4, 0.25)  # by AfSpeed: normal, fast
_SHORTEST_SCAN_FRAMES: Final = 4  # a scan needs a few positions, even at one frame per second
# By AfRange (normal, macro, full): the farthest and the nearest position, and the one after a failed scan.
_RANGES: Final = ((0.0, 12.0, 1.0), (3.0, NEAREST_DIOPTRES, 4.0), (0.0, NEAREST_DIOPTRES, 1.0))


class Lens:
    """A lens that moves between 0 and 15 dioptres (1 / metres)."""

    def __init__(self) -> None:
        self.position_dioptres = 1.0
        self.mode = AfMode.MANUAL
        self.state = AfState.IDLE
        self._range = 0
        self._speed = 0
        self._path: list[float] = []  # the positions of the scan that are left
        self._verdict = AfState.FOCUSED  # of the scan
        self._scanned: tuple[float, FocusOutcome] | None = None  # the scene of the last scan

    def set_control(self, name: str, value: Any) -> None:
        """Set one of libcamera's focus controls; the trigger needs the automatic mode, a position the manual one."""
        match name:
            case "AfMode" if value != self.mode:
                self.mode, self.state, self._scanned = AfMode(value), AfState.IDLE, None
            case "AfRange":
                self._range = value
            case "AfSpeed":
                self._speed = value
            case "AfTrigger" if self.mode is AfMode.AUTO and value != 0:  # cancel
                self.state = AfState.IDLE
            case "AfTrigger" if self.mode is AfMode.AUTO and self.state is not AfState.SCANNING:
                self.state, self._scanned = AfState.SCANNING, None
            case "LensPosition" if self.mode is AfMode.MANUAL:
                self.position_dioptres = value

    def advance_frame(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
        """Advance by one frame: start, continue or end a scan; at `scene_dioptres` the image would be sharp."""
        is_scanning = self.state is AfState.SCANNING
        if (scene_dioptres, outcome) != self._scanned and (is_scanning or self.mode is AfMode.CONTINUOUS):
            self._start_scan(frame_s, scene_dioptres, outcome)
        elif is_scanning:
            self.position_dioptres = self._path.pop(0)
            if not self._path and outcome == "endless":
                self._start_scan(frame_s, scene_dioptres, outcome)
            elif not self._path:
                self.state = self._verdict

    def _start_scan(self, frame_s: float, scene_dioptres: float, outcome: FocusOutcome) -> None:
        self._scanned = scene_dioptres, outcome
        self.state = AfState.SCANNING
        far, near, fallback = _RANGES[self._range]
        is_found = outcome == "sharp" and far <= scene_dioptres <= near
        self._verdict = AfState.FOCUSED if is_found else AfState.FAILED
        start = self.position_dioptres
        end = scene_dioptres if is_found else fallback
        if outcome == "endless":
            end = far if start == near else near
        frames = max(_SHORTEST_SCAN_FRAMES, round(_SCAN_S[self._speed] / frame_s))
        self._path = [start + (end - start) * frame / frames for frame in range(1, frames + 1)]
