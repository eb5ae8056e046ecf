"""Opens and closes the camera, and notifies the listeners. Every method runs on the camera thread."""

import logging
import time

from softcam.camera.base import Camera, SessionListener, StreamConfig
from softcam.camera.session.autofocus import Autofocus
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.hang_guard import HangGuard
from softcam.camera.session.limits import SessionLimits
from softcam.camera.session.sent_controls import SentControls
from softcam.camera.session.state import SessionState, State
from softcam.camera.session.watchdog import MAX_TRIES
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck

log = logging.getLogger(__name__)


class Lifecycle:
    """The way of one camera from closed to open and back."""

    def __init__(
        self,
        camera: Camera,
        state: SessionState,
        intake: FrameIntake,
        guard: HangGuard,
        sent: SentControls,
        autofocus: Autofocus,
        listeners: SessionListener,
        limits: SessionLimits,
    ) -> None:
        self._camera = camera
        self._state = state
        self._intake = intake
        self._guard = guard
        self._sent = sent
        self._autofocus = autofocus
        self._listeners = listeners
        self._limits = limits

    def open(self) -> None:
        """Open the camera for the first lease."""
        self._state.set_state(State.OPENING)
        self.open_camera(State.OPEN)

    def close_unused(self) -> None:
        """Close a camera without leases. Raises CameraStuck if several openings in a row were silent."""
        state = self._state
        with state.changed:
            is_connected = state.disconnect_reason is None
            silence_s = state.watchdog.count_silent_opening(time.monotonic()) if is_connected else None
            tries = state.watchdog.tries
            if silence_s is not None:
                state.last_error = f"no frame for {silence_s:.0f} s"
        if silence_s is not None:
            log.warning("No frame for %.1f s and no clients: closing camera", silence_s)
        if tries:
            self._listeners.on_stall()  # as for a reopening by `Recovery`, which no client waited for
        self.close()
        if tries > MAX_TRIES:
            raise CameraStuck("no frame in several openings in a row")

    def close(self) -> None:
        """Close the camera, whatever its clients."""
        state = self._state
        state.set_state(State.CLOSING)
        self.close_camera()
        with state.changed:
            state.state = State.CLOSED
            state.config = None
        self._listeners.on_closed()
        log.info("Camera closed")

    def reopen(self) -> None:
        """Close and open the camera to apply what only an opening does.

        Raises the error with which the camera refused it, after an opening without it.
        """
        log.info("Reopening camera to apply configuration")
        self._state.set_state(State.OPENING)
        try:
            self.close_camera()
            refusal = self.open_camera(State.OPEN)
        except CameraError as error:
            # There is no stream left that could continue: the end, as if the first opening had failed.
            self._state.fail(error)
            self.release_camera()
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
            if not self._listeners.on_open_failed(error):
                raise
            refusal = error
        else:
            return None
        log.warning("Camera failed to open with the new controls (%s); retrying with the previous ones", refusal)
        self._open_once(then)
        return refusal

    def close_camera(self) -> None:
        """Close the camera without a change of state."""
        self._intake.end_epoch()
        self._listeners.on_closing()
        with self._intake.paused(), self._guard.limit("closing the camera", self._limits.close_s):
            self._camera.close()

    def release_camera(self) -> None:
        """After a failure: close what may still be open, so that the process can exit in order. Never raises."""
        state = self._state
        try:
            self.close_camera()
        except CameraError as error:
            log.warning("Closing the camera failed: %s", error)
        with state.changed:
            state.config = None
            if state.state is not State.MISSING:
                state.state = State.CLOSED

    def _open_once(self, then: State) -> None:
        state = self._state
        on_frame = self._intake.start_epoch()
        started_s = time.monotonic()
        with self._guard.limit("opening the camera", self._limits.open_s):
            if not self._camera.is_present():
                raise CameraMissing(f"camera {self._camera.name} is missing")
            self._listeners.on_opening()
            try:
                config = self._camera.open(on_frame, self._on_configured)
            except CameraError:
                self._listeners.on_closing()
                raise
        disconnect_reason = state.disconnect_reason
        with state.changed:
            state.config = config
            state.state = then if disconnect_reason is None else State.RECOVERING
            if state.remote is not None:
                state.last_error = disconnect_reason
            if disconnect_reason is not None:
                state.recovering_since_s = time.monotonic()
            state.opens += 1
            state.expect_frames()
            has_stream = state.leases.has_stream
        state.frames.wake()
        log.info(
            "Camera open after %.2f s: %s, streaming %dx%d %s",
            time.monotonic() - started_s,
            self._camera.name,
            config.width,
            config.height,
            config.pixel_format,
        )
        if has_stream:
            self._autofocus.on_stream_started()

    def _on_configured(self, config: StreamConfig) -> None:
        """The camera is about to start; what listeners send now applies from the first frame."""
        self._sent.clear()
        self._listeners.on_configured(config)
        self._sent.mark_visible()
