"""Disk writes of the saved state, in order, on a thread that lives while there are any.

A disk may be slow or never answer; nothing waits for it longer than a working disk takes.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0  # a worn SD card takes seconds to sync while other programs write


class BackgroundWriter:
    """Runs jobs one after the other on the thread `state-writer`. Any thread may submit."""

    def __init__(
        self,
        on_crash: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A job that takes longer than `timeout_s` is reported, and not waited for."""
        self._on_crash = on_crash
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()  # guards the fields below
        self._jobs: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._has_thread = False  # it runs the first job
        self._start_error: str | None = None  # why there is no thread, although there are jobs
        self._started_s: float | None = None  # when the current job was started

    def health_error(self) -> str | None:
        """The error of a disk that does not respond, or of a thread that cannot be started; None if there is none."""
        with self._lock:
            if self._start_error is not None:
                return self._start_error
            elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        return None if elapsed_s < self._timeout_s else f"state directory has not responded for {elapsed_s:.0f} s"

    def submit_job(self, job: Callable[[], None]) -> threading.Event:
        """Run `job` soon; returns the event of its end.

        If no thread can be started for it, it remains queued until the next one is submitted.
        """
        finished = threading.Event()
        with self._lock:
            self._jobs.append((job, finished))
            if not self._has_thread:
                self._start_thread()
        return finished

    def _start_thread(self) -> None:
        """The caller holds the lock."""
        try:
            spawn("state-writer", self._run, self._on_crash)
        except RuntimeError as error:  # no memory, or the limit of tasks
            self._start_error = f"no thread for writing the state: {error}"
            log.error("Failed to save state: %s", self._start_error)
        else:
            self._has_thread, self._start_error = True, None

    def run_job(self, job: Callable[[], None]) -> bool:
        """Submit `job` and wait for it; returns False if it timed out, in which case it still runs later."""
        finished = self.submit_job(job)
        if self.health_error() is None and finished.wait(self._timeout_s):
            return True
        log.warning("State was not saved within %.0f s", self._timeout_s)
        return False

    def _run(self) -> None:
        is_over = False
        while not is_over:
            with self._lock:
                job, finished = self._jobs[0]
                self._started_s = self._clock()
            try:
                job()
            except Exception:  # the thread's edge; later jobs are independent of this one
                log.exception("Failed to save state")
            with self._lock:
                self._jobs.popleft()
                self._started_s = None
                is_over = not self._jobs
                self._has_thread = not is_over
            finished.set()
