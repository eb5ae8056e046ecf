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
        self._changed = threading.Condition()  # guards the fields below
        self._jobs: deque[Callable[[], None]] = deque()
        self._submitted = 0
        self._finished = 0
        self._is_running = False
        self._started_s: float | None = None  # when the current job was started

    def health_error(self) -> str | None:
        """The error of a disk that does not respond; None if there is none."""
        with self._changed:
            elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        return None if elapsed_s < self._timeout_s else f"state directory has not responded for {elapsed_s:.0f} s"

    def submit(self, job: Callable[[], None]) -> int:
        """Run `job` soon; returns its number."""
        with self._changed:
            self._jobs.append(job)
            self._submitted += 1
            number = self._submitted
            is_first, self._is_running = not self._is_running, True
        if is_first:
            spawn("state-writer", self._run, log.error)
        return number

    def run(self, job: Callable[[], None]) -> bool:
        """Submit `job` and wait for it; returns False if it timed out, in which case it still runs later."""
        number = self.submit(job)
        deadline_s = self._clock() + self._timeout_s
        with self._changed:
            while self._finished < number:
                # Time that the current job has already taken counts.
                until_s = deadline_s if self._started_s is None else min(deadline_s, self._started_s + self._timeout_s)
                left_s = until_s - self._clock()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            else:
                return True
        log.warning("State directory write timed out after %.0f s", self._timeout_s)
        return False

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                job()
            except Exception:  # the thread's edge; later jobs are independent of this one
                log.exception("Failed to save state")

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            if self._started_s is not None:
                self._finished += 1
            self._started_s = self._clock() if self._jobs else None
            self._is_running = bool(self._jobs)
            self._changed.notify_all()
            return self._jobs.popleft() if self._jobs else None
