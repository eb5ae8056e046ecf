"""What both recorders share: one recording at a time, its thread, its end within a deadline, its entry in the journal,
and the last error.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from softcam.errors import RecordingError
from softcam.recording.journal import Entry, Journal, Origin, boot_clock
from softcam.recording.library import Library
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 20.0  # a disk that needs longer to finish a file hangs


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
    """A recording in progress. The recorder's lock guards these fields."""

    options: Any
    origin: Origin = field(default_factory=Origin)
    thread: threading.Thread | None = None
    name: str | None = None
    size: int = 0
    is_stopping: bool = False
    is_interrupted: bool = False  # by the end of the portal: the next start resumes it

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.origin.started_s


RunT = TypeVar("RunT", bound=Run)
StatusT = TypeVar("StatusT")
OptionsT = TypeVar("OptionsT")


class Recorder(ABC, Generic[RunT, StatusT, OptionsT]):
    """Runs one recording at a time on a dedicated thread. Any thread may call the public methods."""

    kind: str  # for messages and the log

    def __init__(
        self,
        library: Library,
        on_crash: Callable[[str], None],
        journal: Journal | None = None,
        stop_limit_s: float = STOP_LIMIT_S,
    ) -> None:
        self._library = library
        self._journal = Journal() if journal is None else journal
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

    @abstractmethod
    def start(self, options: OptionsT, origin: Origin | None = None) -> StatusT:
        """Start a recording. Raises RecordingError if one is running or nothing can be written, and CameraError.

        With an `origin` the recording starts at all events, and records as soon as disk and camera are available.
        """

    def stop(self, deadline_s: float | None = None, *, is_interrupted: bool = False) -> StatusT | None:
        """Stop the recording and finish its last file; None if there is none.

        Waits until `deadline_s` (monotonic clock), by default as long as a working disk may take. With `is_interrupted`
        the next start of the portal resumes it.
        """
        if deadline_s is None:
            deadline_s = time.monotonic() + self._stop_limit_s
        with self._changed:
            run = self._run
            if run is None:
                return None
            if not run.is_stopping:
                run.is_stopping, run.is_interrupted = True, is_interrupted
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

    def _save_entry(self, run: RunT) -> None:
        """For the next start, in case that this process ends before the recording."""
        origin, options = run.origin, asdict(run.options)
        state = origin.began_s, run.elapsed_s, time.time(), origin.is_automatic, run.name
        self._journal.save(self.kind, Entry(options, *state, *boot_clock()))

    def _remove_entry(self, run: RunT) -> None:
        """The recording is over, unless it is to be resumed."""
        if not run.is_interrupted:
            self._journal.save(self.kind, None)

    def _log_start(self, run: RunT, details: str = "") -> None:
        interrupted_s = run.origin.interrupted_s
        if interrupted_s is None:
            log.info("%s started%s", self.kind.capitalize(), details)
        else:
            log.info("%s resumed%s; interrupted at %s", self.kind.capitalize(), details, format_time(interrupted_s))

    def _require_space(self) -> None:
        """Raises RecordingError if nothing can be written."""
        try:
            self._library.enforce_quota()
            self._library.require_writable()
        except OSError as error:
            rule = f"recordings: must be a writable folder with free space, {self._library.folder}"
            raise RecordingError(f"{rule}: {error.strerror}") from error

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


def format_time(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
