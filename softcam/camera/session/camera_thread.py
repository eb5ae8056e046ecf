"""The thread `camera`, which makes every call into the camera that may block or hang."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from softcam.camera.session.decision import SessionSnapshot, Step, Wait, decide
from softcam.camera.session.jobs import CameraJob
from softcam.camera.session.lifecycle import Lifecycle
from softcam.camera.session.recovery import Recovery
from softcam.camera.session.state import SessionState, State
from softcam.errors import CameraError, CameraStuck, without_stack
from softcam.imaging.frame import Frame
from softcam.runtime.log.events import Event
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_OVERSLEPT_S: Final = 1.5  # no load delays a thread that long, but SIGSTOP does


class CameraThread:
    """Sleeps until `decide` returns a step, runs it, and ends the session when one raises."""

    def __init__(self, session: SessionState, lifecycle: Lifecycle, recovery: Recovery) -> None:
        self._session = session
        self._lifecycle = lifecycle
        self._recovery = recovery
        self._calls = {
            Step.OPEN: lifecycle.open,
            Step.CLOSE: lifecycle.close_unused,
            Step.AWAIT_SOURCE: recovery.await_source,
        }
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = spawn("camera", self._run, lambda reason: self._lifecycle.end_session(CameraStuck(reason)))

    def wait_for_end(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; False if it still runs."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (call := self._next_call()) is not None:
                call()
                del call  # a job, with its result: a raw still has some 20 MB
        except CameraError as error:
            self._lifecycle.end_session(error)

    def _next_call(self) -> Callable[[], None] | None:
        """Sleep until there is a call to make; None ends the thread."""
        session = self._session
        with session.changed:
            while True:
                now_s = time.monotonic()
                snapshot = SessionSnapshot.of(session)
                match decide(snapshot, now_s):
                    case Wait(until_s):
                        self._wait(until_s, now_s)
                    case Step.EXIT:
                        return None
                    case Step.RECOVER:
                        return partial(self._recovery.recover, now_s - snapshot.silent_since_s)
                    case Step.START_LINGER:
                        session.set_state(State.LINGERING)
                    case Step.MARK_RECOVERED:
                        session.mark_recovered()
                        log.info("Camera recovered", extra=Event.CAMERA_RECOVERED.extra)
                    case Step.FORGET_TRIES:
                        session.watchdog.forget_tries()
                    case Step.UPDATE_REASON:
                        session.mark_recovering(snapshot.disconnect_reason or "", is_restart=False)
                    case Step.RUN_JOB:  # no longer in the queue when the lock is released: its waiter may give up
                        return partial(self._run_job, session.jobs.start_next_job())
                    case step:
                        return self._calls[step]

    def _wait(self, until_s: float | None, now_s: float) -> None:
        """The caller holds the lock."""
        self._session.changed.wait(None if until_s is None else max(0.0, until_s - now_s))
        if until_s is not None and time.monotonic() - until_s > _OVERSLEPT_S:
            # The process was stopped, or the machine slept: that is not a silence of the camera.
            self._session.watchdog.excuse_silence(time.monotonic())

    def _run_job(self, job: CameraJob) -> None:
        """Run a job and wake the threads that wait for it."""
        session = self._session
        result, error = None, None
        started_s = time.monotonic()
        try:
            result = job.run()
        except CameraError as job_error:
            if job.is_still:  # a reopening has logged it
                log.warning("Camera job failed (%s): %s", job.key[0], job_error)
            error = without_stack(job_error)  # the job keeps it
        with session.changed:
            now_s = time.monotonic()
            if error is None:  # as good as a frame of the stream; a still that failed hides no silence
                session.watchdog.excuse_silence(now_s)
            if session.current.has_stream:
                session.jobs.start_pause(now_s, now_s - started_s)
            is_awaited = job.finish(result, error)
            session.changed.notify_all()
        if isinstance(result, Frame) and not is_awaited:
            result.release()
