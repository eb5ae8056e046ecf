"""The thread `camera`, which makes every call into the camera that may block or hang."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from softcam.camera.session.decision import Snapshot, Step, Wait, decide
from softcam.camera.session.job_runner import JobRunner
from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.recovery import Recovery
from softcam.camera.session.state import SessionState, State
from softcam.errors import CameraError, CameraStuck
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_OVERSLEPT_S: Final = 1.5  # no load delays a thread that long, but SIGSTOP does


class CameraThread:
    """Sleeps until `decide` returns a step, runs it, and ends the session when one raises."""

    def __init__(
        self, state: SessionState, lifecycle: Lifecycle, recovery: Recovery, jobs: JobRunner, absence_s: float
    ) -> None:
        self._state = state
        self._lifecycle = lifecycle
        self._recovery = recovery
        self._jobs = jobs
        self._absence_s = absence_s
        self._thread = spawn("camera", self._run, self._on_crash)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; False if it still runs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._next_call()) is not None:
            try:
                call()
            except CameraError as error:
                self._state.fail(error)
                self._lifecycle.release_camera()
                return

    def _on_crash(self, reason: str) -> None:
        self._state.fail(CameraStuck(reason))
        self._lifecycle.release_camera()

    def _next_call(self) -> Callable[[], None] | None:
        """Sleep until there is a call to make; None ends the thread."""
        state = self._state
        with state.changed:
            while True:
                now_s = time.monotonic()
                snapshot = Snapshot.of(state, self._absence_s)
                match decide(snapshot, now_s):
                    case Wait(until_s):
                        self._wait(until_s, now_s)
                    case Step.EXIT:
                        return None
                    case Step.OPEN:
                        return self._lifecycle.open
                    case Step.CLOSE:
                        return self._lifecycle.close_unused
                    case Step.RECOVER:
                        return partial(self._recovery.recover, now_s - snapshot.silent_since_s)
                    case Step.AWAIT_SOURCE:
                        return self._recovery.await_source
                    case Step.RUN_JOB:
                        return self._jobs.run_next_job
                    case step:
                        self._apply(step, snapshot)

    def _apply(self, step: Step, snapshot: Snapshot) -> None:
        """Make a change of the shared state alone. The caller holds the lock."""
        state = self._state
        match step:
            case Step.START_LINGER:
                state.state = State.LINGERING
            case Step.MARK_RECOVERED:
                state.state = State.OPEN
                if state.remote is not None:
                    # A remote camera disconnects and reconnects; for any other, the cause of the restart stays.
                    state.last_error = None
                log.info("Camera recovered")
            case Step.FORGET_TRIES:
                state.watchdog.tries = 0
            case Step.UPDATE_REASON:
                state.last_error = snapshot.disconnect_reason

    def _wait(self, until_s: float | None, now_s: float) -> None:
        """The caller holds the lock."""
        self._state.changed.wait(None if until_s is None else max(0.0, until_s - now_s))
        if until_s is not None and time.monotonic() - until_s > _OVERSLEPT_S:
            # The process was stopped, or the machine slept: that is not a silence of the camera.
            self._state.watchdog.excuse_silence(time.monotonic())
