"""Opens the camera for the first lease, closes it some time after the last one, and recovers it when frames stop.

    CLOSED -> OPENING -> OPEN <-> LINGERING -> CLOSING -> CLOSED
                          |^
                       RECOVERING        MISSING (the end: a fresh process starts when the camera is back)

The threads of a session share one `SessionState`, and each kind has its module:

- `CameraManager`, here, is what callers' threads use: leases, waiting for frames, stills, the status.
- `CameraThread` makes every call that may block or hang (open, restart, still, close); `decide` selects it, `Lifecycle`
  and `Recovery` do it. While the camera is closed it sleeps without a timeout.
- `FrameIntake` receives frames on the camera's frame thread.
- `SessionState.guard` reports a call that hangs, from a timer's thread.

If no frame arrives while there is a client, the stream is restarted, then the camera reopened. If that does not help,
or a call hangs, the error is passed to `on_failure`, once, and the process is expected to exit: only a new one can free
a camera that hangs in the kernel (picamera2 #1264, #1065). A camera that belongs to another program or machine
(`Remote`) is waited for instead, for as long as there is a client.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from softcam.camera.base import RawStill, SessionListener, StillControls, StreamConfig, no_controls
from softcam.camera.session.autofocus import Autofocus
from softcam.camera.session.camera_thread import CameraThread
from softcam.camera.session.frame_intake import FrameIntake
from softcam.camera.session.lease import LEASE_KINDS, STREAMS, Lease, LeaseKind
from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.recovery import Recovery
from softcam.camera.session.state import RUNNING, SessionLimits, SessionState, SessionStatus, State
from softcam.errors import CameraError, NoPicture
from softcam.imaging.frame import Frame
from softcam.runtime.deadline import Deadline

__all__ = [
    "LEASE_KINDS",
    "CameraManager",
    "Lease",
    "LeaseKind",
    "SessionLimits",
    "SessionState",
    "SessionStatus",
    "State",
]


class CameraManager:
    """Owns one camera and its thread. Any thread may call any method.

    `frames` is the newest-frame slot; it notifies its subscribers on the camera's frame thread. `sent` is the record of
    the controls in effect. Deadlines are on the monotonic clock.
    """

    def __init__(self, session: SessionState, *, autofocus_timeout_s: float, has_autofocus: bool) -> None:
        """Without `has_autofocus` the lens moves only if a user requests it."""
        self._session = session
        self.camera = session.camera
        self.frames = session.frames
        self.sent = session.sent
        self.autofocus = Autofocus(self.set_controls, session.sent, autofocus_timeout_s, is_enabled=has_autofocus)
        self.subscribe(self.autofocus)
        self._intake = FrameIntake(session)
        self._lifecycle = Lifecycle(session, self._intake, self.autofocus)
        self._thread = CameraThread(session, self._lifecycle, Recovery(session, self._lifecycle))
        if session.remote is not None:
            session.remote.on_disconnect(session.wake)

    def start(self) -> None:
        """Start the camera thread, which opens the camera when there is a lease."""
        self._thread.start()

    def subscribe(self, listener: SessionListener) -> None:
        """Add a listener, before the first lease; listeners are notified in the order of subscription."""
        self._session.subscribe(listener)

    def lease(self, kind: LeaseKind, *, needs_focus: bool = False, is_of_series: bool = False) -> Lease:
        """Request an open camera; returns at once. Raises the CameraError that ended the session.

        With `needs_focus`, and for every stream, the lens is focused from the first frame of an opening on. With
        `is_of_series`, the camera stays open for a moment after the release: the next lease of a series may follow.
        """
        lease = Lease(
            kind,
            lambda lease: self._session.remove_lease(lease, time.monotonic()),
            needs_focus=needs_focus or kind in STREAMS,
            kept_s=self._session.limits.series_s if is_of_series else 0.0,
        )
        if self._session.add_lease(lease):
            self.autofocus.keep_focused("the stream")
        return lease

    # --- frames and stills: the caller holds a lease ----------------------------------------------------------

    def wait_ready(self, deadline_s: float, max_age_s: float = 0.0) -> StreamConfig:
        """Wait until the open camera delivers frames, or is being recovered.

        A frame may be up to `max_age_s` old if that is more than the age of a live one.

        Raises the CameraError that ended the session, or NoPicture at the deadline.
        """
        session = self._session

        # A frame may arrive before open() has returned; only then is the configuration known.
        # A frame from before a silence is not live. Its age counts from its arrival: a long exposure began long ago.
        def is_live(_: Frame) -> bool:
            fresh_s = max(session.limits.fresh_s + session.frame_rate.pipeline_s, max_age_s)
            return session.current.config is not None and time.monotonic() - self._intake.arrived_s <= fresh_s

        frame = self._wait(is_live, lambda: -math.inf if session.current.state is State.RECOVERING else deadline_s)
        if frame is not None:
            frame.release()
        session.raise_failure()
        current = session.current
        if current.config is not None and (frame is not None or current.state is State.RECOVERING):
            return current.config
        raise NoPicture(f"no frame from the camera in time (it is {current.state})")

    @property
    def is_settled(self) -> bool:
        """Whether exposure and colours have adapted to the light, and no autofocus cycle is running."""
        return self._session.settling.is_settled and not self.autofocus.has_cycle

    def wait_settled(self, deadline_s: float) -> None:
        """Wait until the frames of the open camera are settled, at most until the deadline."""
        session = self._session

        def is_over(_: Frame) -> bool:
            return self.is_settled or session.current.state is State.RECOVERING or session.current.failure is not None

        frame = session.frames.wait(is_over, lambda: deadline_s)
        if frame is not None:
            frame.release()

    def wait_frame(self, began_after_s: float, deadline_s: float) -> Frame:
        """The first frame of a settled camera whose exposure began after that moment, held for the caller.

        It shows the controls that had been sent by then. Raises the CameraError that ended the session, or NoPicture at
        the deadline, earlier if the camera is being recovered.
        """
        session = self._session
        shows_change = session.sent.visible_since(began_after_s)
        change_deadline_s = time.monotonic() + session.limits.change_s + session.frame_rate.pipeline_s

        def is_wanted(newest: Frame) -> bool:
            if not session.settling.is_settled or newest.began_s < began_after_s:
                return False
            return shows_change(newest.metadata) or time.monotonic() >= change_deadline_s

        def limit_s() -> float:
            now = session.current
            if now.state is not State.RECOVERING:
                return deadline_s
            return min(deadline_s, now.recovering_since_s + session.limits.recovery_wait_s)

        frame = self._wait(is_wanted, limit_s)
        if frame is not None:
            return frame
        session.raise_failure()
        current = session.current
        reason = f": {current.last_error}" if current.state is State.RECOVERING else ""
        raise NoPicture(f"no frame from the camera in time (it is {current.state}{reason})")

    def newest_frame(self, began_s: float) -> Frame | None:
        """The newest frame of a settled camera if its exposure began at that moment or later, held for the caller.

        For a caller of `wait_frame` that released its frame: a later one shows the same controls, or newer ones. None
        where the camera has dropped its frames meanwhile.
        """
        settling = self._session.settling
        return self._session.frames.wait(lambda newest: settling.is_settled and newest.began_s >= began_s, _never)

    def _wait(self, is_wanted: Callable[[Frame], bool], deadline_s: Callable[[], float]) -> Frame | None:
        """As `NewestFrame.wait`, until the session ends; a long exposure extends the deadline.

        Evaluates the deadline without the lock, which the frame thread may hold while it wakes this one: single reads
        of current values.
        """
        session = self._session
        longest_s = 0.0  # of this wait: exposures may become longer and shorter

        def extended_s() -> float:
            nonlocal longest_s
            longest_s = max(longest_s, session.frame_rate.pipeline_s)
            return deadline_s() + longest_s if session.current.failure is None else -math.inf

        return session.frames.wait(is_wanted, extended_s)

    def still(
        self, size: tuple[int, int] | None, deadline_s: float, controls_for: StillControls = no_controls
    ) -> Frame:
        """A still in a dedicated sensor mode, while the stream pauses; None is the whole sensor. The caller's frame.

        `controls_for` is as in `Camera.still`. Callers that request the same still with equal controls before it is
        started share it. Raises CameraError, or NoPicture at the deadline.
        """
        key = ("still", size, controls_for)
        frame: Frame = self._take_still(key, lambda: self.camera.still(size, controls_for), deadline_s)
        return frame

    def raw_still(self, deadline_s: float) -> RawStill:
        """The sensor's raw image as a DNG file; otherwise as `still`. Also raises NotSupported."""
        still: RawStill = self._take_still(("raw still",), self.camera.raw_still, deadline_s)
        return still

    def reopen(self, deadline_s: float) -> None:
        """Close an open camera and open it again, which applies what its listeners prepare; clients wait meanwhile.

        Raises the CameraError with which the camera refused, even though it is open again.
        """
        self._run_job(("reopening",), self._lifecycle.reopen, deadline_s, is_still=False)

    def _take_still(self, key: tuple[Any, ...], take: Callable[[], Any], deadline_s: float) -> Any:
        def run() -> Any:
            with self._session.guard_stop(f"taking a {key[0]}", self._session.limits.still_s):
                return take()

        return self._run_job(key, run, deadline_s, is_still=True)

    def _run_job(self, key: tuple[Any, ...], run: Callable[[], Any], deadline_s: float, *, is_still: bool) -> Any:
        """Call `run` on the camera thread and return its result; a queued job with an equal key is shared.

        Raises what `run` raises, the CameraError that ended the session, or NoPicture at the deadline, which a long
        exposure extends.
        """
        session = self._session
        with session.changed:
            session.raise_failure()
            job = session.jobs.submit_job(key, run, is_still=is_still)
            session.changed.notify_all()
            longest_s = 0.0  # as in `_wait`
            while not job.is_done and session.current.failure is None:
                longest_s = max(longest_s, session.frame_rate.pipeline_s)
                left_s = deadline_s + longest_s - time.monotonic()
                if left_s <= 0:
                    break
                session.changed.wait(left_s)
            if job.is_done:
                return job.outcome()
            session.jobs.cancel_job(job)
            session.raise_failure()
            raise NoPicture(f"{key[0]}: not started by the camera in time (it is {session.current.state})")

    # --- controls ---------------------------------------------------------------------------------------------

    def set_controls(self, controls: Mapping[str, Any]) -> None:
        """Send libcamera controls with the next frame; does nothing while the camera is closed. Raises NotSupported.

        The controls are recorded: an exposure time that was requested is not a stall, and `wait_frame` waits for them.
        """
        self.camera.set_controls(controls)
        self.sent.record(controls, time.monotonic())

    # --- status and end ---------------------------------------------------------------------------------------

    def status(self) -> SessionStatus:
        """A snapshot of the session."""
        newest = self.frames.held()
        metadata = None
        if newest is not None:
            metadata = newest.metadata
            newest.release()
        current, frame_rate = self._session.current, self._session.frame_rate
        since_s = {kind: [each.since_s for each in current.leases if each.kind == kind] for kind in LEASE_KINDS}
        return SessionStatus(
            state=current.state,
            config=current.config,
            fps=frame_rate.fps(time.monotonic()) if current.state in RUNNING else None,
            leases={kind: len(moments) for kind, moments in since_s.items()},
            last_error=current.last_error,
            restarts=current.restarts,
            opens=current.opens,
            frames=frame_rate.frames,
            metadata=metadata,
            held_since={kind: min(moments) for kind, moments in since_s.items() if moments},
        )

    def health_error(self) -> str | None:
        """An error that is not being recovered from in time; None while there is none."""
        session, limits = self._session, self._session.limits
        with session.changed:
            current = session.current
            if current.failure is not None:
                return f"camera failed: {current.failure}"
            if not current.leases or not session.watchdog.timeout_s:
                return None
            if current.state not in RUNNING or session.disconnect_reason is not None:
                return None  # a call that hangs is reported by the guard
            # The longest recovery: a stall, a restart that does not help, a reopening, and a stall again.
            allowed_s = 2 * session.watchdog.timeout_s + limits.restart_s + limits.close_s + limits.open_s
            silence_s = time.monotonic() - session.watchdog.silent_since_s - session.frame_rate.pipeline_s
            return f"no frame for {silence_s:.0f} s" if silence_s > allowed_s else None

    @property
    def recovery_reason(self) -> str | None:
        """Why clients see a placeholder now; None if they see the camera."""
        current = self._session.current
        return current.last_error if current.state is State.RECOVERING else None

    @property
    def state(self) -> State:
        return self._session.current.state

    @property
    def pipeline_s(self) -> float:
        """How long the frames in the pipeline may take; a silence of that length is not a stall."""
        return self._session.frame_rate.pipeline_s

    def stop(self) -> None:
        """Close the camera and end the thread; does not wait for it: see `wait_until_closed`."""
        self._session.fail(CameraError("the portal is stopping"), is_reported=False)
        if self._session.remote is not None:
            self._session.remote.cancel_open()

    def wait_until_closed(self, deadline: Deadline) -> bool:
        """Wait for the thread after `stop`; False if the camera hangs and is still not closed."""
        return self._thread.wait_for_end(deadline.remaining_s)


def _never() -> float:
    """A deadline that has passed."""
    return -math.inf
