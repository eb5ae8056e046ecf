"""Disk writes of the saved state, in order, on a thread that lives while there are any.

A disk may be slow or never answer; nothing waits for it longer than a working disk takes. It may be full, or read-only,
so what could not be written is tried again until it is.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from softcam.runtime.deadline import Deadline
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0  # a worn SD card takes seconds to sync while other programs write
RETRY_S: Final = 2.0  # the first pause; each further one is twice as long
MAX_RETRY_S: Final = 60.0

Job = Callable[[], object]


class BackgroundWriter:
    """Runs jobs one after the other on the thread `state-writer`. Any thread may submit."""

    def __init__(
        self,
        on_crash: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A job that takes longer than `timeout_s` is reported, and not waited for.

        A job that fails is tried again after `retry_s`, then after twice that time, and so on, up to `MAX_RETRY_S`.
        """
        self._on_crash = on_crash
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())  # guards the fields below; notified of new jobs
        self._jobs: deque[tuple[Job, threading.Event]] = deque()
        self._failed: dict[Job, str | None] = {}  # in the order in which they failed; the exception, if there was one
        self._pause_s = self._due_s = 0.0  # between two attempts; when the next one is due
        self._is_closing = False
        self._has_thread = False  # it runs the first job
        self._start_error: str | None = None  # why there is no thread, although there are jobs
        self._started_s: float | None = None  # when the current job was started

    def health_error(self) -> str | None:
        """None if there is none of these: a thread that cannot be started, a job that raised, a silent disk."""
        with self._changed:
            if (error := self._start_error) is not None:
                return error
            if (error := next(filter(None, self._failed.values()), None)) is not None:
                return error
        return self._silence()

    def _silence(self) -> str | None:
        with self._changed:
            elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        return None if elapsed_s < self._timeout_s else f"state directory has not responded for {elapsed_s:.0f} s"

    def submit_job(self, job: Job) -> threading.Event:
        """Run `job` soon; returns the event of its end.

        A job that returns False or raises an exception has failed, and is run again until it returns something else.
        If no thread can be started, it remains queued until the next one is submitted, or until `ensure_thread`.
        """
        finished = threading.Event()
        with self._changed:
            self._jobs.append((job, finished))
            self._changed.notify_all()
            if not self._has_thread:
                self._start_thread()
        return finished

    def ensure_thread(self) -> None:
        """Start the thread if that has failed before: there may be memory now."""
        with self._changed:
            if self._start_error is not None:
                self._start_thread()

    def _start_thread(self) -> None:
        """The caller holds the lock."""
        try:
            spawn("state-writer", self._run, self._on_crash)
        except RuntimeError as error:  # no memory, or the limit of tasks
            before, self._start_error = self._start_error, f"no thread for writing the state: {error}"
            if before is None:
                log.error("Failed to save state: %s", self._start_error)
        else:
            self._has_thread, self._start_error = True, None

    def run_job(self, job: Job) -> bool:
        """Submit `job` and wait until it has run; returns False if it timed out, in which case it still runs later.

        True does not mean that it succeeded: `health_error` has the exception of a job that raised one, and a job that
        returned False keeps the reason itself.
        """
        finished = self.submit_job(job)
        self.ensure_thread()
        if self._start_error is None and self._silence() is None and finished.wait(self._timeout_s):
            return True
        log.warning("State was not saved within %.0f s", self._timeout_s)
        return False

    def close(self, deadline: Deadline) -> None:
        """Run what failed once more, for the last time; waits until the deadline."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._has_thread, deadline.remaining_s)

    def _run(self) -> None:
        while (entry := self._next_job()) is not None:
            job, finished = entry
            error: str | None = None
            try:
                has_failed = job() is False
            except Exception as raised:  # the thread's edge; later jobs are independent of this one
                has_failed, error = True, f"failed to save state: {type(raised).__name__}: {raised}".removesuffix(": ")
                if self._failed.get(job) != error:  # not with every attempt; this thread alone changes the dictionary
                    log.exception("Failed to save state")
            with self._changed:
                self._jobs.popleft()
                self._started_s = None
                if not has_failed:
                    self._failed.pop(job, None)
                elif not self._is_closing:
                    if not self._failed:
                        self._pause_s, self._due_s = self._retry_s, self._clock() + self._retry_s
                    self._failed[job] = error
            finished.set()

    def _next_job(self) -> tuple[Job, threading.Event] | None:
        """The next job, which stays in the queue while it runs; waits for failed ones. None ends the thread."""
        with self._changed:
            while self._failed:
                timeout_s = max(0.0, self._due_s - self._clock())
                self._changed.wait_for(lambda: self._jobs or self._is_closing, timeout_s)
                if self._is_closing or (now_s := self._clock()) >= self._due_s:
                    self._jobs.extend((job, threading.Event()) for job in self._failed)
                    if self._is_closing:
                        self._failed.clear()
                        break
                    self._pause_s = min(2 * self._pause_s, MAX_RETRY_S)
                    self._due_s = now_s + self._pause_s
                if self._jobs:
                    break
            if not self._jobs:
                self._has_thread = False
                self._changed.notify_all()
                return None
            self._started_s = self._clock()
            return self._jobs[0]
