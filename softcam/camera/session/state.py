"""The shared state of one camera session, and the terms in which it is reported.

`SessionState` owns the condition variable of the session and alone assigns its values; the modules around it call its
methods. Callers' threads, the camera thread, the camera's frame thread and the timers of `guard` all use it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from softcam.camera.base import Camera, Remote, SessionListener, StreamConfig
from softcam.camera.session.frame_rate import FrameRateMeter
from softcam.camera.session.jobs import JobQueue
from softcam.camera.session.lease import STREAMS, Lease, LeaseKind
from softcam.camera.session.sent_controls import SentControls
from softcam.camera.session.settling import Settling
from softcam.camera.session.watchdog import Watchdog
from softcam.errors import CameraError, CameraMissing, CameraStuck
from softcam.imaging.frame import NewestFrame
from softcam.runtime.log.events import extra_of

log = logging.getLogger(__name__)


class State(StrEnum):
    """The states of a camera session, as the status reports them."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    LINGERING = "lingering"
    CLOSING = "closing"
    RECOVERING = "recovering"
    MISSING = "missing"


RUNNING: Final = frozenset({State.OPEN, State.LINGERING, State.RECOVERING})


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits in seconds; constants of the product, not settings. Tests pass shorter ones."""

    # How long a call into the camera may take before the process is given up. Generous: a Pi Zero opens in some
    # seconds, and libcamera's own timeouts are shorter.
    open_s: float = 20.0
    restart_s: float = 10.0
    still_s: float = 15.0
    close_s: float = 10.0

    absence_s: float = 2.0  # a remote camera that is back sooner was hardly away
    fresh_s: float = 1.0  # an older frame, beyond what the camera needs for one, is not a live image
    change_s: float = 2.0  # how long one image waits for a slow camera to show a control change
    # How long one image waits for a camera that is being recovered. A restart of the stream is over by then; for what
    # takes longer, the client has to ask again.
    recovery_wait_s: float = 3.0

    series_s: float = 1.5  # two snapshots of a series are no further apart, however short the linger time is
    still_pause_s: float = 0.5  # streams run at least this long between two stills
    max_waiting_stills: int = 8  # different ones; one more would not be in time


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A snapshot of the session; `fps` is measured, `config` is None while the camera is closed."""

    state: State
    config: StreamConfig | None
    fps: float | None
    leases: Mapping[LeaseKind, int]
    last_error: str | None
    restarts: int
    opens: int
    frames: int
    metadata: Mapping[str, Any] | None
    held_since: Mapping[LeaseKind, float] = field(default_factory=dict)  # Unix time of the oldest lease

    @property
    def is_streaming(self) -> bool:
        """Whether a client consumes frame after frame."""
        return any(self.leases[kind] for kind in STREAMS)


@dataclass(frozen=True, slots=True)
class SessionValues:
    """The values of a session that change, at one moment; moments are on the monotonic clock."""

    state: State = State.CLOSED
    leases: frozenset[Lease] = frozenset()
    linger_until_s: float = 0.0
    kept_until_s: float = 0.0  # the camera is not closed before
    config: StreamConfig | None = None
    failure: CameraError | None = None  # the end of the session, also when the process stops
    last_error: str | None = None
    restarts: int = 0
    opens: int = 0
    recovering_since_s: float = 0.0

    @property
    def has_stream(self) -> bool:
        return any(lease.kind in STREAMS for lease in self.leases)

    @property
    def needs_focus(self) -> bool:
        return any(lease.needs_focus for lease in self.leases)


class SessionState:
    """What the threads of one session share. Any thread may call any method."""

    def __init__(
        self,
        camera: Camera,
        *,
        linger_s: float,
        watchdog_timeout_s: float,
        on_failure: Callable[[CameraError], None],
        limits: SessionLimits | None = None,
    ) -> None:
        """`watchdog_timeout_s` 0 disables the watchdog; any thread calls `on_failure`, once, with the error that ended
        the session."""
        self.camera: Final = camera
        self.remote: Final = camera if isinstance(camera, Remote) else None
        self.linger_s: Final = linger_s
        self.limits: Final = limits or SessionLimits()
        self._on_failure = on_failure
        self.listeners: tuple[SessionListener, ...] = ()  # complete before the first lease, so it needs no lock
        # These have their own rules for threads.
        self.frames: Final = NewestFrame()
        self.sent: Final = SentControls()
        self.frame_rate: Final = FrameRateMeter(self.sent)
        self.settling: Final = Settling(self.sent)

        self.changed: Final = threading.Condition()  # guards `jobs`, `watchdog` and changes of `current`; reentrant
        self.jobs: Final = JobQueue(self.limits.still_pause_s, self.limits.max_waiting_stills)
        self.watchdog: Final = Watchdog(watchdog_timeout_s, self.frame_rate)
        self._current = SessionValues()
        # Without the lock: written by the camera thread, read by the frame thread.
        self.is_dropping_frames = False

    @property
    def current(self) -> SessionValues:
        """The current values, which belong together; needs no lock."""
        return self._current

    @property
    def disconnect_reason(self) -> str | None:
        """Why a remote camera is disconnected; None if it is connected, and for every other camera."""
        return None if self.remote is None else self.remote.disconnect_reason

    @property
    def is_abandoned(self) -> bool:
        """Whether there are no leases left, or the session ended, while the camera was being recovered."""
        current = self.current
        return not current.leases or current.failure is not None

    def wake(self) -> None:
        """Wake every thread that waits for a change."""
        with self.changed:
            self.changed.notify_all()

    def subscribe(self, listener: SessionListener) -> None:
        """Add a listener, before the first lease."""
        self.listeners = (*self.listeners, listener)

    def add_lease(self, lease: Lease) -> bool:
        """Add a lease; whether it is the first stream of a running camera. Raises the error that ended the session."""
        with self.changed:
            self.raise_failure()
            before = self._current
            # At once, for the next caller. A silence that started while there was no client counts: otherwise a client
            # that polls with pauses would never see the camera recovered.
            state = State.OPEN if before.state is State.LINGERING else before.state
            self._current = replace(before, leases=before.leases | {lease}, state=state)
            self.changed.notify_all()
        return lease.kind in STREAMS and not before.has_stream and before.state in RUNNING

    def remove_lease(self, lease: Lease, now_s: float) -> None:
        """Release a lease; after the last one, the linger time begins."""
        with self.changed:
            before = self._current
            if lease not in before.leases:
                return
            kept_until_s = max(before.kept_until_s, now_s + lease.kept_s)
            self._current = replace(before, leases=before.leases - {lease}, kept_until_s=kept_until_s)
            if before.leases == {lease}:
                state = State.LINGERING if before.state is State.OPEN else before.state
                linger_until_s = max(kept_until_s, now_s + self.linger_s)
                self._current = replace(self._current, state=state, linger_until_s=linger_until_s)
                self.changed.notify_all()

    def set_state(self, state: State, error: str | None = None) -> None:
        with self.changed:
            self._current = replace(self._current, state=state, last_error=error or self._current.last_error)

    def mark_open(self, config: StreamConfig, state: State, now_s: float) -> bool:
        """The camera was opened, and is now in `state` unless it is disconnected; returns whether there is a stream."""
        reason = self.disconnect_reason
        with self.changed:
            current = replace(self._current, config=config, state=state, opens=self._current.opens + 1)
            if self.remote is not None:
                current = replace(current, last_error=reason)
            if reason is not None:
                current = replace(current, state=State.RECOVERING, recovering_since_s=now_s)
            self._current = current
            self.watchdog.start_silence(now_s)
        self.frames.wake()
        return current.has_stream

    def mark_recovering(self, reason: str, *, is_restart: bool) -> None:
        with self.changed:
            before = self._current
            since_s = before.recovering_since_s if before.state is State.RECOVERING else time.monotonic()
            restarts = before.restarts + is_restart
            self._current = replace(
                before, state=State.RECOVERING, recovering_since_s=since_s, last_error=reason, restarts=restarts
            )

    def mark_recovered(self) -> None:
        with self.changed:
            # A remote camera disconnects and reconnects; for any other, the cause of the restart stays.
            last_error = self._current.last_error if self.remote is None else None
            self._current = replace(self._current, state=State.OPEN, last_error=last_error)

    def mark_closed(self) -> None:
        with self.changed:
            state = State.MISSING if self._current.state is State.MISSING else State.CLOSED
            self._current = replace(self._current, state=state, config=None)

    def update_remote_config(self) -> None:
        """A source that reconnects may have another size or format than before."""
        if self.remote is not None and self.remote.config is not self.current.config:
            with self.changed:
                if self._current.config is not None:
                    self._current = replace(self._current, config=self.remote.config)

    def raise_failure(self) -> None:
        """Raise the error that ended the session, if one did."""
        failure = self.current.failure
        if failure is not None:
            # A new object: several threads raise it, and each adds its own traceback.
            raise type(failure)(str(failure)) from failure

    def fail(self, error: CameraError, *, is_reported: bool = True) -> None:
        """End the session in this process; the first error counts. Not a failure unless `is_reported`."""
        with self.changed:
            if self._current.failure is not None:
                return
            self._current = replace(self._current, failure=error)
            if is_reported:
                state = State.MISSING if isinstance(error, CameraMissing) else self._current.state
                self._current = replace(self._current, last_error=str(error), state=state)
            self.changed.notify_all()
        self.frames.wake()
        if is_reported:
            log.error("Camera failed, exiting with code %d: %s", error.exit_code, error, extra=extra_of(error))
            self._on_failure(error)

    @contextmanager
    def guard(self, call: str, limit_s: float) -> Iterator[None]:
        """End the session with a CameraStuck if the block takes longer; `call` names it, as in "closing the camera".

        A timer does it, since the thread that hangs cannot.
        """
        limit_s += self.frame_rate.pipeline_s  # it may wait for the frame that is being exposed
        error = CameraStuck(f"{call} takes more than {limit_s:.0f} s: the camera hangs")
        timer = threading.Timer(limit_s, self.fail, [error])
        timer.name = "camera-guard"
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def guard_stop(self, call: str, limit_s: float) -> Iterator[None]:
        """As `guard`, and without frames meanwhile: a camera that stops needs all its buffers back."""
        self.is_dropping_frames = True
        self.frames.clear()
        try:
            with self.guard(call, limit_s):
                yield
        finally:
            self.is_dropping_frames = False
