"""How long a camera is silent, and what was tried against it already: decisions, and nothing that is done.

No thread and no camera in here, and no lock: all of it is called under the holder's, but for `due_from_s`, a single
value, which the frame thread reads.
"""

from typing import Final

from softcam.camera.session.frame_rate import FrameRateMeter

MOST_TRIES: Final = 2  # a restart of the stream, a reopening


class Watchdog:
    """Of one camera, over all its openings."""

    def __init__(self, timeout_s: float, pace: FrameRateMeter) -> None:
        """`timeout_s` 0 switches it off."""
        self.timeout_s = timeout_s
        self._pace = pace
        self.tries = 0  # what was already tried against the present silence: 1 restart, 2 reopen
        self.due_from_s = 0.0  # the silence is counted from here, or from the last frame
        self._tried_s = 0.0  # when the camera was opened or brought back last

    def begin(self, now_s: float) -> None:
        """The camera was opened or restarted: counted anew."""
        self.due_from_s = self._tried_s = now_s

    def excuse(self, now_s: float) -> None:
        """What was until now is no silence: a still was taken, or the machine slept."""
        self.due_from_s = now_s

    @property
    def has_heard(self) -> bool:
        """Whether a frame came since frames are due."""
        return self._pace.last_frame_s > self.due_from_s

    def silence_s(self, now_s: float) -> float:
        return now_s - max(self.due_from_s, self._pace.last_frame_s)

    def act_s(self) -> float | None:
        """When there is something to be done, unless a frame comes before; None where it is off."""
        if not self.timeout_s:
            return None
        return max(self.due_from_s, self._pace.last_frame_s) + self.timeout_s + self._pace.pipeline_s

    def forget(self, now_s: float) -> None:
        """The tries are forgotten when frames have come for as long as a silence would have to last."""
        # Not by the clock of the silence, which every good still sets anew.
        if self.tries and self.has_heard and now_s - self._tried_s >= self.timeout_s:
            self.tries = 0

    def count_opening(self, now_s: float) -> float | None:
        """An opening ends. One that was silent for long is a try, and its silence is given: the next is the next try.

        So a camera that hangs for good is given up even where each visitor leaves before anything is done.
        """
        if self.has_heard:
            self.tries = 0
            return None
        silence_s = now_s - self.due_from_s
        if not self.timeout_s or silence_s < self.timeout_s + self._pace.pipeline_s:
            return None
        self.tries += 1
        return silence_s
