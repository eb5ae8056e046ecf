"""What both recorders share: one recording at a time, its thread, its end within a deadline, its entry in the journal,
and the last error.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from softcam.errors import PortalError, RecordingError
from softcam.recording.journal import CLOCK_STEP_S, Entry, Journal, Origin, boot_clock
from softcam.recording.library import Library
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.events import Event, extra_of
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_INTERRUPTED: Final = Event.RECORDING_INTERRUPTED.extra

STOP_LIMIT_S: Final = 20.0  # a disk that needs longer to finish a file hangs


OptionsT = TypeVar("OptionsT")


def _boot_unix_s() -> float:
    """When the machine was started, by its wall clock (Unix time); changes when that clock is set."""
    return time.time() - boot_clock()[1]


class Run(Generic[OptionsT]):
    """A recording in progress. The recorder's lock guards these fields and is held while a method runs."""

    def __init__(self, options: OptionsT, origin: Origin | None = None) -> None:
        self.options = options
        self.origin = origin or Origin()
        self.thread: threading.Thread | None = None
        self.name: str | None = None  # its newest file
        self.size = 0
        self.recorded_s = self.origin.recorded_s  # without pauses and interruptions
        self.paused: str | None = None  # why nothing is recorded
        self.is_writing = False  # the newest file, or the one that follows it at once
        self.is_stopping = False
        self.is_interrupted = False  # by the end of the portal: the next start resumes it
        self._boot_unix_s = _boot_unix_s()  # when the times of `origin` were right

    @property
    def is_on_request(self) -> bool:
        """Started by a client, which gets the error if that fails, and not by the start of the portal."""
        return self.origin.interrupted_s is None and not self.origin.is_automatic

    @property
    def since_start_s(self) -> float:
        """Seconds since the recording began, with pauses and interruptions."""
        return time.monotonic() - self.origin.started_s

    @property
    def shown_name(self) -> str | None:
        """The newest file for the status: None while nothing is written, when it may have been deleted."""
        return self.name if self.is_writing or self.is_stopping else None

    @property
    def elapsed_s(self) -> float:
        """What was recorded until now, without pauses and interruptions."""
        return self.recorded_s

    def follow_clock(self) -> None:
        """If the wall clock was set since the recording began, correct when that was."""
        boot_unix_s = _boot_unix_s()
        step_s = boot_unix_s - self._boot_unix_s
        if abs(step_s) > CLOCK_STEP_S:
            self.origin, self._boot_unix_s = self.origin.after_step(step_s), boot_unix_s

    def start_thread(self, name: str, record: Callable[[], None], on_crash: Callable[[str], None]) -> None:
        """Raises RuntimeError if the system has no more threads."""
        self.thread = spawn(name, record, on_crash)

    def request_stop(self, *, is_interrupted: bool) -> None:
        """Only the first request decides whether it is an interruption."""
        if not self.is_stopping:
            self.is_stopping, self.is_interrupted = True, is_interrupted

    def begin_file(self, name: str) -> None:
        """This file is the newest one, and is being written."""
        self.name, self.is_writing = name, True

    def suspend(self) -> None:
        """Nothing is written for now."""
        self.is_writing = False

    def report_pause(self, reason: str | None) -> None:
        """Why nothing is recorded; None if it is."""
        self.paused = reason


RunT = TypeVar("RunT", bound=Run[Any])
StatusT = TypeVar("StatusT")


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
        self._cut_short_s: float | None = None  # one value, which any thread reads without the lock

    @property
    def cut_short_s(self) -> float | None:
        """When the end of the portal interrupted a recording that was not resumed, until another one is requested.

        Unix time; None if there is none.
        """
        return self._cut_short_s

    def report_cut_short(self, interrupted_s: float, reason: str) -> None:
        """Log that an interrupted recording is not resumed, and keep it for the status."""
        self._cut_short_s = interrupted_s
        moment = format_time(interrupted_s)
        kind = self.kind.capitalize()
        log.warning("%s was interrupted at %s and is not resumed: %s", kind, moment, reason, extra=_INTERRUPTED)

    @property
    def running(self) -> StatusT | None:
        """The status of the recording in progress."""
        with self._changed:
            return None if self._run is None else self._read_status(self._run)

    def _read_status(self, run: RunT) -> StatusT:
        """With the lock held."""
        run.follow_clock()
        return self._status(run)

    @abstractmethod
    def start(self, options: OptionsT, origin: Origin | None = None) -> StatusT:
        """Start a recording. Raises RecordingError if one is running or nothing can be written, and CameraError.

        With an `origin` the recording starts at all events, and records as soon as disk and camera are available.
        """

    def stop(self, deadline: Deadline | None = None, *, is_interrupted: bool = False) -> StatusT | None:
        """Stop the recording and finish its last file; None if there is none. One that is starting ends without a file.

        Waits until the deadline, by default as long as a working disk may take. With `is_interrupted` the next start of
        the portal resumes it.
        """
        if deadline is None:
            deadline = Deadline.after(self._stop_limit_s)
        with self._changed:
            run = self._run
            if run is None:
                if not is_interrupted:
                    self.last_error = None  # of a recording that could not be started
                return None
            run.request_stop(is_interrupted=is_interrupted)
            self._changed.notify_all()
            # While it starts there is no thread yet; then none is started, and `start` ends the run.
            self._changed.wait_for(lambda: run.thread is not None or self._run is not run, deadline.remaining_s)
            thread = run.thread
        if thread is not None:
            thread.join(deadline.remaining_s)
        with self._changed:
            return self._read_status(run)

    @abstractmethod
    def _status(self, run: RunT) -> StatusT:
        """Called with the lock held."""

    def _begin_run(self, run: RunT) -> None:
        """Make `run` the recording in progress; with the lock held. Raises RecordingError if there is one already."""
        if self._run is not None:
            raise RecordingError(f"a {self.kind} is already running; stop it first")
        self._run = run
        self.last_error = None
        if run.is_on_request:
            self._cut_short_s = None

    def _end_run(self) -> None:
        with self._changed:
            self._run = None
            self.last_error = None  # what could not be recorded is no longer requested
            self._changed.notify_all()

    def _save_entry(self, run: RunT) -> None:
        """For the next start, in case that this process ends before the recording."""
        with self._changed:
            run.follow_clock()
            origin, name, recorded_s = run.origin, run.name, run.elapsed_s
        state = origin.began_s, run.since_start_s, time.time(), origin.is_automatic, name
        self._journal.save(
            self.kind, Entry(asdict(run.options), *state, *boot_clock(), recorded_s, origin.is_of_this_boot)
        )

    def _remove_entry(self, run: RunT) -> None:
        """The recording is over, unless it is to be resumed."""
        if not run.is_interrupted:
            self._journal.save(self.kind, None)

    def _log_start(self, run: RunT, details: str = "") -> None:
        interrupted_s = run.origin.interrupted_s
        if interrupted_s is None:
            log.info("%s started%s", self.kind.capitalize(), details)
        else:
            kind, moment = self.kind.capitalize(), format_time(interrupted_s)
            log.info("%s resumed%s; interrupted at %s", kind, details, moment, extra=_INTERRUPTED)

    def _require_space(self) -> None:
        """Raises RecordingError if nothing can be written."""
        try:
            self._library.enforce_quota()
            self._library.require_writable()
        except OSError as error:
            rule = f"recordings: must be a writable folder with free space, {self._library.folder}"
            raise RecordingError(f"{rule}: {error.strerror}") from error

    def _start_thread(self, run: RunT, name: str, record: Callable[[RunT], None]) -> None:
        """Raises RecordingError, also if `stop` was called since the run began."""
        try:
            with self._changed:
                if run.is_stopping:
                    raise RecordingError(f"the {self.kind} was stopped before it started")
                run.start_thread(name, lambda: record(run), self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads
            raise RecordingError(f"cannot record: {error}") from error

    def _report_error(self, error: str, reason: str | None = None, cause: OSError | None = None) -> None:
        """Keep the error for the status, and log it unless it is the same as before.

        `reason` is why the recording in progress is paused, by default the error; `cause` is that of the disk, if any.
        """
        with self._changed:
            is_new = error != self.last_error
            self.last_error = error
            if self._run is not None:
                self._run.report_pause(reason or error)
        if is_new:
            self._log_error(error, cause)

    def _report_failed_start(self, run: RunT, error: BaseException) -> None:
        """After the end of the run. The status shows the error only if no client got it."""
        if run.is_stopping or not isinstance(error, PortalError):
            return
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else None
        if run.is_on_request:
            self._log_error(str(error), cause)
        else:
            self._report_error(str(error), cause=cause)

    def _log_error(self, error: str, cause: OSError | None) -> None:
        extra = Event.RECORDING_FAILED.extra if cause is None else extra_of(cause)
        log.warning("%s: %s", self.kind.capitalize(), error, extra=extra)

    def _clear_error(self, run: RunT) -> None:
        """It records again; with the lock held."""
        self.last_error = None
        run.report_pause(None)


def format_time(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
