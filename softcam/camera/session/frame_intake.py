"""Receives the camera's frames: metadata to the listeners, the frame into the newest-frame slot, a wake-up if awaited.

The camera's frame thread runs it, except for `start_epoch` and `end_epoch`, which are the camera thread's.
"""

import logging
import math
import time
from functools import partial

from softcam.camera.base import OnFrame
from softcam.camera.session.state import SessionState, State
from softcam.imaging.frame import Frame
from softcam.runtime.log_limit import RateLimitedLogger

log = logging.getLogger(__name__)


class FrameIntake:
    """Fills the slot `SessionState.frames`."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._error_log = RateLimitedLogger(log, math.inf)  # one line until the camera is reopened
        # Without a lock, as single values that are read at worst one frame late.
        self._epoch = 0  # written by the camera thread; frames of an earlier opening are released
        self.arrived_s = 0.0  # written by the frame thread: when the frame in the slot arrived

    def start_epoch(self) -> OnFrame:
        """The camera is being opened; the result is the callback for its frames."""
        self._epoch += 1
        self._session.settling.reset()
        self._error_log.reset()
        self._session.frame_rate.reset()
        return partial(self._receive, self._epoch)

    def end_epoch(self) -> None:
        """The camera is being closed: frames that still arrive are released."""
        self._epoch += 1

    def _receive(self, epoch: int, frame: Frame) -> None:
        try:
            self._process_frame(epoch, frame)
        except Exception as error:  # noqa: BLE001 - the edge of the camera's thread, which would end unnoticed
            # A frame that was not processed does not count: if the next ones fail as well, the watchdog acts.
            self._error_log.error(
                "Failed to process frame; further errors suppressed until the camera is reopened", exc_info=error
            )

    def _process_frame(self, epoch: int, frame: Frame) -> None:
        session = self._session
        if self._is_unwanted(epoch):
            frame.release()
            return
        now_s = time.monotonic()
        try:
            is_settled = session.settling.is_exposure_settled(frame.metadata, now_s)
            for listener in session.listeners:
                listener.on_frame(frame.metadata, is_settled=is_settled)
            session.settling.process_frame(frame.metadata, time.monotonic())
        except Exception:
            frame.release()
            raise
        self.arrived_s = now_s
        session.sent.count_frame()
        session.update_remote_config()
        session.frames.put_frame(frame)
        if self._is_unwanted(epoch):
            # The camera began to stop since the first check, and waits for its buffers. `guard_stop` sets the flag and
            # then clears the slot; here the slot is filled and then the flag checked. So one of the two sees the frame.
            session.frames.clear()
            return
        session.frames.notify()
        session.frame_rate.count_frame(frame.metadata, now_s)
        # The camera thread waits for a frame that ends a recovery; `Watchdog.has_frame` ignores one from before it.
        if session.current.state is State.RECOVERING and session.watchdog.has_frame:
            session.wake()

    def _is_unwanted(self, epoch: int) -> bool:
        return epoch != self._epoch or self._session.is_dropping_frames
