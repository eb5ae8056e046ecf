"""Recovers a camera that delivers no frames: restart the stream, then reopen the camera, then give it up.

Every method runs on the camera thread. A remote camera, which belongs to another program or machine, is waited for.
"""

import logging
import time
from typing import Final

from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.state import SessionState, State
from softcam.camera.session.watchdog import MAX_TRIES
from softcam.errors import CameraError, CameraMissing, CameraStuck
from softcam.runtime.log.events import Event

log = logging.getLogger(__name__)

_STALLED: Final = Event.CAMERA_STALLED.extra


class Recovery:
    """The steps against a silence of one camera."""

    def __init__(self, session: SessionState, lifecycle: Lifecycle) -> None:
        self._session = session
        self._lifecycle = lifecycle

    def recover(self, silence_s: float) -> None:
        """Take the next step against a silence. Raises CameraMissing, or CameraStuck after the last one."""
        session = self._session
        session.frames.clear()  # a frame from before the silence is not a current image
        with session.changed:
            if session.remote is not None:
                # It is restarted again and again: a new process could not do more about it.
                session.watchdog.forget_tries()
            tries = session.watchdog.count_try()
            session.mark_recovering(f"no frame for {silence_s:.0f} s", is_restart=tries <= MAX_TRIES)
        session.frames.wake()
        if not self._is_present():
            raise CameraMissing(f"camera {session.camera.name} is gone: no frame for {silence_s:.0f} s")
        if tries > MAX_TRIES:
            raise CameraStuck(f"no frame for {silence_s:.0f} s, after a restart of the stream and a reopening")
        if tries == 1:
            log.warning("No frame for %.1f s: restarting the stream", silence_s, extra=_STALLED)
            if self._restart_stream():
                return
        if not session.is_abandoned:
            log.warning("No frame for %.1f s: reopening the camera", silence_s, extra=_STALLED)
            self._lifecycle.notify_stall()
            self._lifecycle.close_camera()
            if not session.is_abandoned:
                self._lifecycle.open_camera(State.RECOVERING)
                return
        self._lifecycle.close()

    def await_source(self) -> None:
        """A remote camera has disconnected: show clients the reason. It reconnects by itself."""
        session = self._session
        if not self._is_present():
            raise CameraMissing(f"camera {session.camera.name} is gone")
        session.frames.clear()
        with session.changed:
            disconnect_reason = session.disconnect_reason
            if disconnect_reason is None:
                return
            session.mark_recovering(disconnect_reason, is_restart=True)
            session.watchdog.start_silence(time.monotonic())
        session.frames.wake()
        log.warning("Source unavailable, retrying: %s", disconnect_reason, extra=_STALLED)

    def _restart_stream(self) -> bool:
        """False if the camera refuses, which counts as the last try before a reopening."""
        session = self._session
        try:
            with session.guard_stop("restarting the stream", session.limits.restart_s):
                session.camera.restart()
        except CameraError as error:
            log.warning("Restarting the stream failed: %s", error)
            with session.changed:
                session.mark_recovering(f"restarting the stream failed: {error}", is_restart=True)
                session.watchdog.count_try()
            return False
        session.frame_rate.reset_rate()
        with session.changed:
            session.watchdog.start_silence(time.monotonic())
        return True

    def _is_present(self) -> bool:
        with self._session.guard("looking for the camera", self._session.limits.open_s):
            return self._session.camera.is_present()
