"""How long a camera has been silent, and what was tried against it: the numbers that `decide` judges.

No thread and no camera in here, and no lock: the caller holds the session's, except for `due_from_s`, a single value
that the frame thread reads.
"""

from typing import Final

from softcam.camera.session.frame_rate import FrameRateMeter

MAX_TRIES: Final = 2  # a restart of the stream, then a reopening of the camera


class Watchdog:
    """The silence of one camera, over all its openings."""

    def __init__(self, timeout_s: float, frame_rate: FrameRateMeter) -> None:
        """`timeout_s` 0 disables the watchdog."""
        self.timeout_s = timeout_s
        self._frame_rate = frame_rate
        self.tries = 0  # what was tried against the present silence: 1 for a restart, 2 for a reopening
        self.due_from_s = 0.0  # the silence is counted from here, or from the last frame
        self._tried_s = 0.0  # when the camera was last opened or restarted

    def start_silence(self, now_s: float) -> None:
        """The camera was opened or restarted: the silence is counted from now on."""
        self.due_from_s = self._tried_s = now_s

    def excuse_silence(self, now_s: float) -> None:
        """The silence until now is not the camera's: a still was taken, or the machine slept."""
        self.due_from_s = now_s

    def count_try(self) -> int:
        """Something is tried against the silence; returns how much was tried by now."""
        self.tries += 1
        return self.tries

    def forget_tries(self) -> None:
        self.tries = 0

    @property
    def has_frame(self) -> bool:
        """Whether a frame arrived since frames are due."""
        return self._frame_rate.last_frame_s > self.due_from_s

    @property
    def silent_since_s(self) -> float:
        return max(self.due_from_s, self._frame_rate.last_frame_s)

    @property
    def stall_at_s(self) -> float | None:
        """When the silence becomes a stall, unless a frame arrives before; None if the watchdog is disabled."""
        return self.silent_since_s + self.timeout_s + self._frame_rate.pipeline_s if self.timeout_s else None

    @property
    def calm_at_s(self) -> float:
        """When the tries are forgotten: frames have arrived for as long as a silence would have to last.

        Not measured from `due_from_s`, which every successful still moves.
        """
        return self._tried_s + self.timeout_s

    def count_silent_opening(self, now_s: float) -> float | None:
        """An opening ends. If it was silent for too long it counts as a try, and the silence in seconds is returned.

        So a camera that hangs for good is given up even if each client disconnects before anything is tried.
        """
        if self.has_frame:
            self.forget_tries()
            return None
        silence_s = now_s - self.due_from_s
        if not self.timeout_s or silence_s < self.timeout_s + self._frame_rate.pipeline_s:
            return None
        self.tries += 1
        return silence_s
