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

    def __init__(self, timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.monotonic) -> None:
        """A job that takes longer than `timeout_s` is reported, and not waited for."""
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()  # guards the fields below
        self._jobs: deque[tuple[Callable[[], None], threading.Event]] = deque()  # the first one is running
        self._started_s: float | None = None  # when the current job was started

    def health_error(self) -> str | None:
        """The error of a disk that does not respond; None if there is none."""
        with self._lock:
            elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        return None if elapsed_s < self._timeout_s else f"state directory has not responded for {elapsed_s:.0f} s"

    def submit_job(self, job: Callable[[], None]) -> threading.Event:
        """Run `job` soon; returns the event of its end."""
        finished = threading.Event()
        with self._lock:
            self._jobs.append((job, finished))
            is_first = len(self._jobs) == 1
        if is_first:
            spawn("state-writer", self._run, log.error)
        return finished

    def run_job(self, job: Callable[[], None]) -> bool:
        """Submit `job` and wait for it; returns False if it timed out, in which case it still runs later."""
        finished = self.submit_job(job)
        if self.health_error() is None and finished.wait(self._timeout_s):
            return True
        log.warning("State directory write timed out after %.0f s", self._timeout_s)
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
            finished.set()
