"""The shared state of one camera session, and the terms in which it is reported.

`SessionState` owns the condition variable of the session; the pieces around it get it passed in. Callers' threads, the
camera thread, the camera's frame thread and the hang guard's timer all use it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from softcam.camera.base import Camera, Remote, StreamConfig
from softcam.camera.session.jobs import JobQueue
from softcam.camera.session.lease import STREAMS, LeaseKind, LeaseRegistry
from softcam.camera.session.watchdog import Watchdog
from softcam.errors import CameraError, CameraMissing
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
    """The fields that the threads of one session share."""

    def __init__(
        self, camera: Camera, watchdog: Watchdog, jobs: JobQueue, on_failure: Callable[[CameraError], None]
    ) -> None:
        """`on_failure` is called once, with the error that ends the session."""
        self.frames = NewestFrame()
        self.remote = camera if isinstance(camera, Remote) else None
        self._on_failure = on_failure

        self.changed = threading.Condition()  # guards the fields down to the next comment
        self.state = State.CLOSED
        self.leases = LeaseRegistry()
        self.jobs = jobs
        self.watchdog = watchdog
        self.linger_until_s = 0.0
        self.config: StreamConfig | None = None
        self.failure: CameraError | None = None  # the end of the session, also when the process stops
        self.last_error: str | None = None
        self.restarts = 0
        self.opens = 0
        self.recovering_since_s = 0.0

        # Without the lock: set by the camera thread, cleared by the frame thread with the frame that is awaited.
        self.awaits_frame = False

    @property
    def disconnect_reason(self) -> str | None:
        """Why a remote camera is disconnected; None if it is connected, and for every other camera."""
        return None if self.remote is None else self.remote.disconnect_reason

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

    def expect_frames(self) -> None:
        """Restart the watchdog; the next frame wakes the camera thread. The caller holds the lock."""
        self.watchdog.restart(time.monotonic())
        self.awaits_frame = True
