"""Opens the camera for the first lease, closes it some time after the last one, and recovers it when frames stop.

    CLOSED -> OPENING -> OPEN <-> LINGERING -> CLOSING -> CLOSED
                          |^
                       RECOVERING        MISSING (the end: a fresh process starts when the camera is back)

`CameraManager` is the public side; the work is done by the pieces around one `SessionState`, which get it passed in:

- `CameraThread` makes every call that may block or hang (open, restart, still, close); `decide` selects it.
  While the camera is closed it sleeps without a timeout.
- `Lifecycle` opens and closes, `Recovery` acts when no frames arrive, `JobRunner` runs stills between two frames.
- `FrameIntake` receives frames on the camera's frame thread, `FrameWaiter` waits for them on a caller's.
- `HangGuard` reports a call that hangs.

If no frame arrives while there is a client, the stream is restarted, then the camera reopened. If that does not help,
or a call hangs, the error is passed to `on_failure`, once, and the process is expected to exit: only a new one can free
a camera that hangs in the kernel (picamera2 #1264, #1065). A camera that belongs to another program or machine
(`Remote`) is waited for instead, for as long as there is a client.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from softcam.camera.base import Camera, RawStill, SessionListener, StillControls, StreamConfig, no_controls
from softcam.camera.session.autofocus import Autofocus
from softcam.camera.session.camera_thread import CameraThread
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.frame_waiter import FrameWaiter
from softcam.camera.session.hang_guard import HangGuard
from softcam.camera.session.job_runner import JobRunner
from softcam.camera.session.jobs import JobQueue
from softcam.camera.session.lease import LEASE_KINDS, STREAMS, Lease, LeaseKind
from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.limits import SessionLimits
from softcam.camera.session.listeners import ListenerGroup
from softcam.camera.session.recovery import Recovery
from softcam.camera.session.sent_controls import SentControls
from softcam.camera.session.settling import Settling
from softcam.camera.session.state import RUNNING, SessionState, SessionStatus, State
from softcam.camera.session.watchdog import Watchdog
from softcam.errors import CameraError
from softcam.imaging.frame import Frame

__all__ = ["LEASE_KINDS", "CameraManager", "Lease", "LeaseKind", "SessionLimits", "SessionStatus", "State"]


class CameraManager:
    """Owns one camera and its thread. Any thread may call any method.

    `frames` is the latest-frame slot; it notifies its subscribers on the camera's frame thread. `sent` is the record of
    the controls in effect.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        linger_s: float,
        watchdog_timeout_s: float,
        autofocus_timeout_s: float,
        has_autofocus: bool,
        on_failure: Callable[[CameraError], None],
        limits: SessionLimits | None = None,
    ) -> None:
        """`watchdog_timeout_s` 0 disables the watchdog; without `has_autofocus` the lens moves only if a user requests
        it. `on_failure` is called by any thread with the error that ended the session."""
        self._limits = limits = limits or SessionLimits()
        self._linger_s = linger_s
        self.camera = camera
        self.sent = sent = SentControls()
        self._frame_rate = rate = FrameRateMeter(sent)
        self.autofocus = Autofocus(self._send_focus_controls, sent, autofocus_timeout_s, is_enabled=has_autofocus)
        self._listeners = ListenerGroup()
        self._listeners.subscribe(self.autofocus)
        queue = JobQueue(limits.still_pause_s, limits.max_waiting_stills)
        self._state = state = SessionState(camera, Watchdog(watchdog_timeout_s, rate), queue, on_failure)
        self.frames = state.frames
        settling = Settling(sent)
        self._intake = FrameIntake(state, sent, rate, settling, self._listeners)
        self._waiter = FrameWaiter(state, self._intake, rate, sent, settling, limits)
        self._guard = HangGuard(state.fail, rate)
        self._lifecycle = Lifecycle(
            camera, state, self._intake, self._guard, sent, self.autofocus, self._listeners, limits
        )
        recovery = Recovery(camera, state, self._lifecycle, self._intake, self._guard, rate, self._listeners, limits)
        self._jobs = JobRunner(state, rate)
        if state.remote is not None:
            state.remote.on_disconnect(state.wake)
        self._thread = CameraThread(state, self._lifecycle, recovery, self._jobs, limits.absence_s)

    def subscribe(self, listener: SessionListener) -> None:
        """Add a listener, before the first lease; listeners are notified in the order of subscription."""
        self._listeners.subscribe(listener)

    def lease(self, kind: LeaseKind) -> Lease:
        """Request an open camera; returns at once. Raises the CameraError that ended the session."""
        state = self._state
        lease = Lease(kind, self._release)
        with state.changed:
            state.raise_failure()
            is_first_stream = kind in STREAMS and not state.leases.has_stream and state.state in RUNNING
            state.leases.add(lease)
            if state.state is State.LINGERING:
                # At once, for the next caller. A silence that started while there was no client counts: otherwise a
                # client that polls with pauses would never see the camera recovered.
                state.state = State.OPEN
            state.changed.notify_all()
        if is_first_stream:
            self.autofocus.on_stream_started()
        return lease

    def _release(self, lease: Lease) -> None:
        state = self._state
        with state.changed:
            if state.leases.remove(lease) and not state.leases:
                if state.state is State.OPEN:
                    state.state = State.LINGERING
                state.linger_until_s = time.monotonic() + self._linger_s
                state.changed.notify_all()

    def wait_ready(self, deadline_s: float, max_age_s: float = 0.0) -> StreamConfig:
        """Wait until the open camera delivers frames, or is being recovered; the caller holds a lease.

        A frame may be up to `max_age_s` old if that is more than the age of a live one.

        Raises the CameraError that ended the session, or NoPicture at the deadline (monotonic clock).
        """
        return self._waiter.wait_ready(deadline_s, max_age_s)

    def wait_frame(self, began_after_s: float, deadline_s: float) -> Frame:
        """The first frame of a settled camera whose exposure began after that moment, held for the caller.

        It shows the controls that had been sent by then. Raises the CameraError that ended the session, or NoPicture at
        the deadline, earlier if the camera is being recovered; both moments are on the monotonic clock.
        """
        return self._waiter.wait_frame(began_after_s, deadline_s)

    def still(
        self, size: tuple[int, int] | None, deadline_s: float, controls_for: StillControls = no_controls
    ) -> Frame:
        """A still in a dedicated sensor mode, while the stream pauses; None is the whole sensor. The caller's frame.

        `controls_for` is as in `Camera.still`. Callers that request the same still with equal controls before it is
        started share it. The caller holds a lease. Raises CameraError, or NoPicture at the deadline.
        """

        def take_still() -> Frame:
            with self._intake.paused(), self._guard.limit("taking a still", self._limits.still_s):
                return self.camera.still(size, controls_for)

        frame: Frame = self._jobs.submit_and_wait(("still", size, controls_for), take_still, deadline_s)
        return frame

    def raw_still(self, deadline_s: float) -> RawStill:
        """The sensor's raw image as a DNG file; otherwise as `still`. Also raises NotSupported."""

        def take_raw_still() -> RawStill:
            with self._intake.paused(), self._guard.limit("taking a raw still", self._limits.still_s):
                return self.camera.raw_still()

        still: RawStill = self._jobs.submit_and_wait(("raw still",), take_raw_still, deadline_s)
        return still

    def reopen(self, deadline_s: float) -> None:
        """Close an open camera and open it again, which applies what its listeners prepare; clients wait meanwhile.

        The caller holds a lease. Raises the CameraError with which the camera refused, even though it is open again.
        """
        self._jobs.submit_and_wait(("reopening",), self._lifecycle.reopen, deadline_s, is_still=False)

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; does nothing while the camera is closed. Raises NotSupported.

        The controls are recorded: an exposure time that was requested is not a stall, and `wait_frame` waits for them.
        """
        self.camera.set_controls(controls)
        self.sent.record(controls, time.monotonic())

    def _send_focus_controls(self, controls: Mapping[str, Any]) -> None:
        """As `set_controls`; but frames don't show a focus mode, so that `wait_frame` does not wait for it."""
        self.camera.set_controls(controls)
        self.sent.record(controls, time.monotonic(), is_awaited=False)

    @property
    def state(self) -> State:
        """The present state; `status` has the rest."""
        return self._state.state  # a single value: read without the lock

    def status(self) -> SessionStatus:
        """A snapshot of the session."""
        newest = self.frames.held()
        metadata = None
        if newest is not None:
            metadata = newest.metadata
            newest.release()
        state = self._state
        with state.changed:
            return SessionStatus(
                state.state,
                state.config,
                self._frame_rate.fps(time.monotonic()) if state.state in RUNNING else None,
                state.leases.counts(),
                state.last_error,
                state.restarts,
                state.opens,
                self._frame_rate.frames,
                metadata,
                state.leases.oldest_s(),
            )

    def health_error(self) -> str | None:
        """An error that is not being recovered from in time; None while there is none."""
        state, limits = self._state, self._limits
        with state.changed:
            if state.failure is not None:
                return f"camera failed: {state.failure}"
            if not self._thread.is_alive:
                return "camera thread exited"
            if not state.leases or not state.watchdog.timeout_s:
                return None
            if state.state not in RUNNING or state.disconnect_reason is not None:
                return None  # a call that hangs is reported by the guard
            # The longest recovery: a stall, a restart that does not help, a reopening, and a stall again.
            allowed_s = 2 * state.watchdog.timeout_s + limits.restart_s + limits.close_s + limits.open_s
            silence_s = time.monotonic() - state.watchdog.silent_since_s - self._frame_rate.pipeline_s
            return f"no frame for {silence_s:.0f} s" if silence_s > allowed_s else None

    @property
    def recovery_reason(self) -> str | None:
        """Why clients see a placeholder now; None if they see the camera."""
        with self._state.changed:
            return self._state.last_error if self._state.state is State.RECOVERING else None

    def stop(self) -> None:
        """Close the camera and end the thread; does not wait for it: see `join`."""
        state = self._state
        with state.changed:
            if state.failure is None:
                state.failure = CameraError("the portal is stopping")
            state.changed.notify_all()
        self.frames.wake()
        if state.remote is not None:
            state.remote.cancel_open()

    def join(self, deadline_s: float) -> bool:
        """Wait for the thread after `stop`; False if the camera hangs and is still not closed."""
        return self._thread.join(max(0.0, deadline_s - time.monotonic()))
