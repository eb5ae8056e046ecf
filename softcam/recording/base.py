"""What both recorders share: one recording at a time, its thread, its end within a deadline, and the last error."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from softcam.errors import RecordingError
from softcam.recording.library import Library
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 20.0  # a disk that needs longer to finish a file hangs


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
    """A recording in progress. The recorder's lock guards these fields."""

    began_s: float = field(default_factory=time.time)
    started_s: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None
    name: str | None = None
    size: int = 0
    is_stopping: bool = False


RunT = TypeVar("RunT", bound=Run)
StatusT = TypeVar("StatusT")


class Recorder(ABC, Generic[RunT, StatusT]):
    """Runs one recording at a time on a dedicated thread. Any thread may call the public methods."""

    kind: str  # for messages and the log

    def __init__(self, library: Library, on_crash: Callable[[str], None], stop_limit_s: float = STOP_LIMIT_S) -> None:
        self._library = library
        self._on_crash = on_crash
        self._stop_limit_s = stop_limit_s
        self._changed = threading.Condition(threading.Lock())  # guards the fields below, and those of the run
        self._run: RunT | None = None
        # Why something is not recorded; None once it is recorded again. Any thread reads it without the lock.
        self.last_error: str | None = None

    @property
    def running(self) -> StatusT | None:
        """The status of the recording in progress."""
        with self._changed:
            return None if self._run is None else self._status(self._run)

    def stop(self, deadline_s: float | None = None) -> StatusT | None:
        """Stop the recording and finish its last file; None if there is none.

        Waits until `deadline_s` (monotonic clock), by default as long as a working disk may take.
        """
        if deadline_s is None:
            deadline_s = time.monotonic() + self._stop_limit_s
        with self._changed:
            run = self._run
            if run is None:
                return None
            run.is_stopping = True
            thread = run.thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._changed:
            return self._status(run)

    @abstractmethod
    def _status(self, run: RunT) -> StatusT:
        """Called with the lock held."""

    def _begin_run(self, run: RunT) -> None:
        """Make `run` the recording in progress; with the lock held. Raises RecordingError if there is one already."""
        if self._run is not None:
            raise RecordingError(f"a {self.kind} is already running; stop it first")
        self._run = run
        self.last_error = None

    def _end_run(self) -> None:
        with self._changed:
            self._run = None
            self._changed.notify_all()

    def _require_space(self) -> None:
        """Raises RecordingError if nothing can be written."""
        try:
            self._library.enforce_quota()
            self._library.require_writable()
        except OSError as error:
            raise RecordingError(f"cannot record: {error.strerror}") from error

    def _start_thread(self, run: RunT, name: str, record: Callable[[RunT], None]) -> None:
        """With the lock held, so that `stop` waits for the thread. Raises RecordingError."""
        try:
            run.thread = spawn(name, lambda: record(run), self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads
            raise RecordingError(f"cannot record: {error}") from error

    def _report_error(self, reason: str) -> None:
        """Keep the error for the status, and log it unless it is the same as before."""
        with self._changed:
            is_new = reason != self.last_error
            self.last_error = reason
        if is_new:
            log.warning("%s: %s", self.kind.capitalize(), reason)
