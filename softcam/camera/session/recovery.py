"""Recovers a camera that delivers no frames: restart the stream, then reopen the camera, then give it up.

Every method runs on the camera thread. A remote camera, which belongs to another program or machine, is waited for.
"""

import logging
import time

from softcam.camera.base import Camera, SessionListener
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.hang_guard import HangGuard
from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.limits import SessionLimits
from softcam.camera.session.state import SessionState, State
from softcam.camera.session.watchdog import MAX_TRIES
from softcam.errors import CameraError, CameraMissing, CameraStuck

log = logging.getLogger(__name__)


class Recovery:
    """The steps against a silence of one camera."""

    def __init__(
        self,
        camera: Camera,
        state: SessionState,
        lifecycle: Lifecycle,
        intake: FrameIntake,
        guard: HangGuard,
        frame_rate: FrameRateMeter,
        listeners: SessionListener,
        limits: SessionLimits,
    ) -> None:
        self._camera = camera
        self._state = state
        self._lifecycle = lifecycle
        self._intake = intake
        self._guard = guard
        self._frame_rate = frame_rate
        self._listeners = listeners
        self._limits = limits

    def recover(self, silence_s: float) -> None:
        """Take the next step against a silence. Raises CameraMissing, or CameraStuck after the last one."""
        state = self._state
        state.frames.clear()  # a frame from before the silence is not a current image
        with state.changed:
            # A remote camera is restarted again and again: a new process could not do more about it.
            tries = state.watchdog.tries = 1 if state.remote is not None else state.watchdog.tries + 1
            if state.state is not State.RECOVERING:
                state.recovering_since_s = time.monotonic()
            state.state = State.RECOVERING
            state.last_error = f"no frame for {silence_s:.0f} s"
            if tries <= MAX_TRIES:
                state.restarts += 1
        state.frames.wake()
        if not self._is_present():
            raise CameraMissing(f"camera {self._camera.name} is gone: no frame for {silence_s:.0f} s")
        if tries > MAX_TRIES:
            raise CameraStuck(f"no frame for {silence_s:.0f} s, after a restart of the stream and a reopening")
        if tries == 1:
            log.warning("No frame for %.1f s: restarting the stream", silence_s)
            if self._restart_stream():
                return
        if not state.is_abandoned:
            log.warning("No frame for %.1f s: reopening the camera", silence_s)
            self._listeners.on_stall()
            self._lifecycle.close_camera()
            if not state.is_abandoned:
                self._lifecycle.open_camera(State.RECOVERING)
                return
        self._lifecycle.close()

    def await_source(self) -> None:
        """A remote camera has disconnected: show clients the reason. It reconnects by itself."""
        state = self._state
        if not self._is_present():
            raise CameraMissing(f"camera {self._camera.name} is gone")
        state.frames.clear()
        with state.changed:
            disconnect_reason = state.disconnect_reason
            if disconnect_reason is None:
                return
            state.state = State.RECOVERING
            state.recovering_since_s = time.monotonic()
            state.last_error = disconnect_reason
            state.restarts += 1
            state.expect_frames()
        state.frames.wake()
        log.warning("Source unavailable, retrying: %s", disconnect_reason)

    def _restart_stream(self) -> bool:
        """False if the camera refuses, which counts as the last try before a reopening."""
        state = self._state
        try:
            with self._intake.paused(), self._guard.limit("restarting the stream", self._limits.restart_s):
                self._camera.restart()
        except CameraError as error:
            log.warning("Restarting the stream failed: %s", error)
            with state.changed:
                state.last_error = f"restarting the stream failed: {error}"
                state.watchdog.tries = MAX_TRIES
                state.restarts += 1
            return False
        self._frame_rate.reset_rate()
        with state.changed:
            state.expect_frames()
        return True

    def _is_present(self) -> bool:
        with self._guard.limit("looking for the camera", self._limits.open_s):
            return self._camera.is_present()
