"""The shared state of one camera session, and the terms in which it is reported.

`SessionState` owns the condition variable of the session; the pieces around it get it passed in. Callers' threads, the
camera thread, the camera's frame thread and the timers of `guard` all use it.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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


class SessionState:
    """What the threads of one session share."""

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
        self.camera = camera
        self.remote = camera if isinstance(camera, Remote) else None
        self.linger_s = linger_s
        self.limits = limits or SessionLimits()
        self._on_failure = on_failure
        self.listeners: tuple[SessionListener, ...] = ()  # complete before the first lease, so it needs no lock
        # These have their own rules for threads.
        self.frames = NewestFrame()
        self.sent = SentControls()
        self.frame_rate = FrameRateMeter(self.sent)
        self.settling = Settling(self.sent)

        self.changed = threading.Condition()  # guards changes of the fields below
        # Waiting threads and the frame thread read `state`, `config`, `failure` and the start of a recovery without it.
        self.state = State.CLOSED
        self.leases: set[Lease] = set()
        self.jobs = JobQueue(self.limits.still_pause_s, self.limits.max_waiting_stills)
        self.watchdog = Watchdog(watchdog_timeout_s, self.frame_rate)
        self.linger_until_s = 0.0
        self.config: StreamConfig | None = None
        self.failure: CameraError | None = None  # the end of the session, also when the process stops
        self.last_error: str | None = None
        self.restarts = 0
        self.opens = 0
        self.recovering_since_s = 0.0
        # Without the lock: written by the camera thread, read by the frame thread.
        self.drops_frames = False

    @property
    def disconnect_reason(self) -> str | None:
        """Why a remote camera is disconnected; None if it is connected, and for every other camera."""
        return None if self.remote is None else self.remote.disconnect_reason

    @property
    def has_stream(self) -> bool:
        return any(lease.kind in STREAMS for lease in self.leases)

    @property
    def is_abandoned(self) -> bool:
        """Whether there are no leases left, or the session ended, while the camera was being recovered."""
        with self.changed:
            return not self.leases or self.failure is not None

    def wake(self) -> None:
        """Wake every thread that waits for a change."""
        with self.changed:
            self.changed.notify_all()

    def set_state(self, state: State) -> None:
        with self.changed:
            self.state = state

    def raise_failure(self) -> None:
        """Raise the error that ended the session, if one did. The caller holds the lock."""
        if self.failure is not None:
            # A new object: several threads raise it, and each adds its own traceback.
            raise type(self.failure)(str(self.failure)) from self.failure

    def fail(self, error: CameraError) -> None:
        """End the session in this process; the first error counts. Called by any thread."""
        with self.changed:
            if self.failure is not None:
                return
            self.failure = error
            self.last_error = str(error)
            if isinstance(error, CameraMissing):
                self.state = State.MISSING
            self.changed.notify_all()
        self.frames.wake()
        log.error("%s", error)
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
        self.drops_frames = True
        self.frames.clear()
        try:
            with self.guard(call, limit_s):
                yield
        finally:
            self.drops_frames = False
