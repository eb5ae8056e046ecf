"""Opens and closes the camera, and notifies the listeners. Every method runs on the camera thread."""

import logging
import time

from softcam.camera.base import StreamConfig
from softcam.camera.session.autofocus import Autofocus
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.state import SessionState, State
from softcam.camera.session.watchdog import MAX_TRIES
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, without_stack

log = logging.getLogger(__name__)


class Lifecycle:
    """The way of one camera from closed to open and back."""

    def __init__(self, session: SessionState, intake: FrameIntake, autofocus: Autofocus) -> None:
        self._session = session
        self._intake = intake
        self._autofocus = autofocus

    def open(self) -> None:
        """Open the camera for the first lease."""
        self._session.set_state(State.OPENING)
        self.open_camera(State.OPEN)

    def close_unused(self) -> None:
        """Close a camera without leases. Raises CameraStuck if several openings in a row were silent."""
        session = self._session
        with session.changed:
            is_connected = session.disconnect_reason is None
            silence_s = session.watchdog.count_silent_opening(time.monotonic()) if is_connected else None
            tries = session.watchdog.tries
        if silence_s is not None:
            log.warning("No frame for %.1f s and no clients: closing camera", silence_s)
        if tries:
            self.notify_stall()  # as for a reopening by `Recovery`, which no client waited for
        self.close(None if silence_s is None else f"no frame for {silence_s:.0f} s")
        if tries > MAX_TRIES:
            raise CameraStuck("no frame in several openings in a row")

    def close(self, error: str | None = None) -> None:
        """Close the camera, whatever its clients; `error` is why, for the status."""
        session = self._session
        session.set_state(State.CLOSING, error)
        self.close_camera()
        session.mark_closed()
        for listener in session.listeners:
            listener.on_closed()
        log.info("Camera closed")

    def reopen(self) -> None:
        """Close and open the camera to apply what only an opening does.

        Raises the error with which the camera refused it, after an opening without it.
        """
        log.info("Reopening the camera to apply new controls")
        self._session.set_state(State.OPENING)
        try:
            self.close_camera()
            refusal = self.open_camera(State.OPEN)
        except CameraError as error:
            # There is no stream left that could continue: the end, as if the first opening had failed.
            self.end_session(error)
            raise  # the thread that waits must not get a success
        if refusal is not None:
            raise refusal

    def open_camera(self, then: State) -> CameraError | None:
        """Open the camera; if a listener can revert something after an error, retry and return that error."""
        try:
            self._open_once(then)
        except (CameraMissing, CameraBusy, CameraStuck):
            raise
        except CameraError as error:
            has_reverted = [listener.on_open_failed(error) for listener in self._session.listeners]
            if not any(has_reverted):
                raise
            refusal = without_stack(error)
        else:
            return None
        log.warning("Camera failed to open with the new controls (%s); retrying with the previous ones", refusal)
        self._open_once(then)
        return refusal

    def close_camera(self) -> None:
        """Close the camera without a change of state."""
        self._intake.end_epoch()
        self._notify_closing()
        with self._session.guard_stop("closing the camera", self._session.limits.close_s):
            self._session.camera.close()

    def end_session(self, error: CameraError) -> None:
        """After a failure: close what may still be open, so that the process can exit in order. Never raises."""
        session = self._session
        session.fail(error)
        try:
            self.close_camera()
        except CameraError as close_error:
            log.warning("Closing the camera failed: %s", close_error)
        session.mark_closed()

    def notify_stall(self) -> None:
        for listener in self._session.listeners:
            listener.on_stall()

    def _notify_closing(self) -> None:
        for listener in self._session.listeners:
            listener.on_closing()

    def _open_once(self, then: State) -> None:
        session, camera = self._session, self._session.camera
        on_frame = self._intake.start_epoch()
        started_s = time.monotonic()
        with session.guard("opening the camera", session.limits.open_s):
            if not camera.is_present():
                raise CameraMissing(f"camera {camera.name} is missing")
            for listener in session.listeners:
                listener.on_opening()
            try:
                config = camera.open(on_frame, self._on_configured)
            except CameraError:
                self._notify_closing()
                raise
        now_s = time.monotonic()
        has_stream = session.mark_open(config, then, now_s)
        if (reason := session.disconnect_reason) is not None:
            log.info("Camera waits for its source: %s", reason)
        else:
            self._log_opening(config, now_s - started_s)
        if has_stream:  # it may have been requested after the configuration
            self._autofocus.keep_focused("the stream")

    def _log_opening(self, config: StreamConfig, took_s: float) -> None:
        log.info(
            "Camera open after %.2f s: %s, streaming %dx%d %s",
            took_s,
            self._session.camera.name,
            config.width,
            config.height,
            config.pixel_format,
        )

    def _on_configured(self, config: StreamConfig) -> None:
        """The camera is about to start; what listeners send now applies from the first frame."""
        self._session.sent.clear()
        for listener in self._session.listeners:
            listener.on_configured(config)
        current = self._session.current
        if current.needs_focus:
            self._autofocus.keep_focused("the stream" if current.has_stream else "a snapshot")
        self._session.sent.mark_visible()
