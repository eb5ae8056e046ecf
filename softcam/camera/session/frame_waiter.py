"""Waits for frames on behalf of callers' threads: for a live one, or for one that shows a change."""

import time
from collections.abc import Callable

from softcam.camera.base import StreamConfig
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.limits import SessionLimits
from softcam.camera.session.sent_controls import SentControls
from softcam.camera.session.settling import Settling
from softcam.camera.session.state import SessionState, State
from softcam.errors import NoPicture
from softcam.imaging.frame import Frame


class FrameWaiter:
    """The caller's end of the latest-frame slot. Any thread may call it, while it holds a lease."""

    def __init__(
        self,
        state: SessionState,
        intake: FrameIntake,
        frame_rate: FrameRateMeter,
        sent: SentControls,
        settling: Settling,
        limits: SessionLimits,
    ) -> None:
        self._state = state
        self._intake = intake
        self._frame_rate = frame_rate
        self._sent = sent
        self._settling = settling
        self._limits = limits

    def wait_ready(self, deadline_s: float, max_age_s: float = 0.0) -> StreamConfig:
        """See `CameraManager.wait_ready`."""
        state = self._state

        # A frame may arrive before open() has returned; only then is the configuration known.
        # A frame from before a silence is not live. Its age counts from its arrival: a long exposure began long ago.
        def is_live(_: Frame) -> bool:
            fresh_s = max(self._limits.fresh_s + self._frame_rate.pipeline_s, max_age_s)
            return state.config is not None and time.monotonic() - self._intake.arrived_s <= fresh_s

        # Without the lock, which the frame thread may hold while it wakes this one: single reads of current values.
        def should_stop() -> bool:
            return state.failure is not None or state.state is State.RECOVERING

        frame = self._wait(is_live, deadline_s, should_stop)
        if frame is not None:
            frame.release()
        with state.changed:
            state.raise_failure()
            if state.config is not None and (frame is not None or state.state is State.RECOVERING):
                return state.config
            raise NoPicture(f"no frame from the camera in time (it is {state.state})")

    def wait_frame(self, began_after_s: float, deadline_s: float) -> Frame:
        """See `CameraManager.wait_frame`."""
        state = self._state
        shows_change = self._sent.visible_since(began_after_s)
        change_deadline_s = time.monotonic() + self._limits.change_s + self._frame_rate.pipeline_s

        def is_wanted(newest: Frame) -> bool:
            if not self._settling.is_settled or newest.began_s < began_after_s:
                return False
            return shows_change(newest.metadata) or time.monotonic() >= change_deadline_s

        frame = self._wait(is_wanted, deadline_s, lambda: state.failure is not None, self._recovery_deadline)
        if frame is not None:
            return frame
        with state.changed:
            state.raise_failure()
            reason = f": {state.last_error}" if state.state is State.RECOVERING else ""
            raise NoPicture(f"no frame from the camera in time (it is {state.state}{reason})")

    def _recovery_deadline(self, deadline_s: float) -> float:
        """An earlier deadline while the camera is being recovered. Without the lock, as `should_stop` above."""
        if self._state.state is State.RECOVERING:
            return min(deadline_s, self._state.recovering_since_s + self._limits.recovery_wait_s)
        return deadline_s

    def _wait(
        self,
        is_wanted: Callable[[Frame], bool],
        deadline_s: float,
        should_stop: Callable[[], bool],
        limited: Callable[[float], float] = lambda deadline_s: deadline_s,
    ) -> Frame | None:
        """As `NewestFrame.wait`, but a long exposure extends the deadline, and `limited` may advance it meanwhile."""
        pipeline_s = self._frame_rate.pipeline_s  # the longest of this wait: exposures may become longer and shorter
        while True:
            until_s = limited(deadline_s) + pipeline_s

            def is_over(until_s: float = until_s, pipeline_s: float = pipeline_s) -> bool:
                return should_stop() or limited(deadline_s) + pipeline_s < until_s

            frame = self._state.frames.wait(is_wanted, until_s, is_over)
            pipeline_s = max(pipeline_s, self._frame_rate.pipeline_s)
            if frame is not None or should_stop() or time.monotonic() >= limited(deadline_s) + pipeline_s:
                return frame
