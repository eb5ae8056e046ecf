"""The log of a process, put together: the handler, the memory, the files in memory, and the copy on the disk.

`install` comes first, so that errors in the configuration are recorded too; `open` follows as soon as it is known where
the lines of the previous run are. Runs on the main thread; what is logged is recorded by the thread that logs it.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.runtime.deadline import Deadline
from softcam.runtime.log.copy import LogCopy
from softcam.runtime.log.events import Event
from softcam.runtime.log.files import LogFiles, merge, read_tail
from softcam.runtime.log.handler import LogHandler
from softcam.runtime.log.lines import MAX_ID, LogLine, decode, encode
from softcam.runtime.log.memory import LogMemory
from softcam.runtime.redact import Redactor

log = logging.getLogger(__name__)

_COPY_BYTES: Final = 64 * 1024  # of text; in the file up to six times that
_COPY_FILE_BYTES: Final = 8 * _COPY_BYTES
_COPY_AGE_S: Final = 600.0  # a portal that systemd restarts again and again must not wear out the card
_EXIT: Final = "Exit code"
_RESULT: Final = re.compile(r"([\w-]{1,20}) ([\w-]{1,20}) ([\w-]{1,20})")
_RESULT_BYTES: Final = 100
_UNKNOWN_END: Final = "killed, crashed, or the power failed"


@dataclass(frozen=True, slots=True)
class LogPlaces:
    """Where the log survives: `folder` is in memory, `copy` a file on the disk; None where there is none."""

    folder: Path | None = None
    name: str = "log"
    copy: Path | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], name: str = "", state_dir: str | None = None) -> "LogPlaces":
        """Those of a service under systemd, which has its own folder, or of a user; `name` is the camera's."""
        copy = None if state_dir is None else Path(state_dir, f"log-{name}.jsonl")
        service = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        if service.startswith("/"):
            return cls(Path(service), copy=copy)
        user = environ.get("XDG_RUNTIME_DIR", "")
        with suppress(OSError):
            if user.startswith("/") and name and Path(user).stat().st_uid == os.getuid():
                return cls(Path(user, "soft-stream"), f"log-{name}", copy)
        return cls(copy=copy)


class Logbook:
    """Records everything that is logged, from `install` until `close`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.memory = LogMemory()
        self._clock = clock
        self._handler = LogHandler(self._append)
        # Replaced by the main thread with the lock of the handler, which `_append` runs under.
        self._files: LogFiles | None = None
        self._copy: LogCopy | None = None
        self._places = LogPlaces()

    def install(self) -> None:
        logging.getLogger().addHandler(self._handler)

    def hide(self, secrets: Iterable[str]) -> None:
        """Remove these secrets from all lines from now on."""
        self._handler.hide(Redactor(secrets))

    def open(self, places: LogPlaces, on_crash: Callable[[str], None]) -> None:
        """Restore the lines of earlier runs, and keep those of this one where the next run finds them.

        Logs if the previous run ended without an exit code, and why if systemd knows; that line and the newest ones
        before it stay in the memory. `on_crash` is called if the thread that writes the copy ends unexpectedly.
        """
        copied = [] if places.copy is None else [*decode(read_tail(places.copy, _COPY_FILE_BYTES))]
        files, copy, problem = None, places.copy, None
        if places.folder is not None:
            try:
                files = LogFiles(places.folder, places.name)
            except BlockingIOError:
                copy, problem = None, f"another process uses {places.folder / places.name}"
            except OSError as error:
                problem = str(error)
        both = sorted((copied, [] if files is None else files.earlier), key=_last_id)
        earlier = merge(*both)
        if earlier and max(earlier[-1].id, *(line.run for line in earlier)) > MAX_ID // 2:
            earlier = []  # no portal has logged that much
            if files is not None:
                files.discard()
        base = _last_id(earlier)
        if not earlier or files is None or _last_id(files.earlier) < base:
            # The last lines of a run may be lost, but clients have seen their numbers: fewer than one per millisecond.
            base = max(base, int(self._clock() * 1000))
        self._handler.acquire()
        try:
            own = self.memory.restore(earlier, base)
            self._places, self._files = places, files
            self._write(own)
            if copy is not None:
                self._copy = LogCopy(copy, lambda: encode(self.memory.tail(_COPY_BYTES)))
        finally:
            self._handler.release()
        if self._copy is not None:
            self._copy.start(on_crash)
        if problem is not None:
            log.warning("Log lines will not survive this process: %s", problem)
        result = _take_result(places.folder)
        if earlier and not _has_exited(earlier):
            log.warning("Previous run ended unexpectedly: %s", result or _UNKNOWN_END, extra=Event.CRASHED.extra)
        self.memory.keep_newest()

    def record(self, level: int, message: str, error: BaseException | None = None) -> None:
        """Record a line that is not logged, because the program says it otherwise."""
        exc_info = None if error is None else (type(error), error, error.__traceback__)
        self._handler.handle(logging.LogRecord(__name__, level, __file__, 0, message, None, exc_info))

    def close(self, code: int, deadline: Deadline) -> None:
        """Record the exit code, and save the lines; waits for the disk until the deadline."""
        is_open = self._files is not None or self._copy is not None
        if is_open:
            self.record(logging.ERROR if code else logging.INFO, f"{_EXIT} {code}")
        if self._copy is not None:
            self._copy.close(deadline, must_save=code == 0 or self._files is None or not self._has_recent_copy())
        logging.getLogger().removeHandler(self._handler)
        self._handler.acquire()
        try:
            files, self._files, self._copy = self._files, None, None
        finally:
            self._handler.release()
        if files is not None:
            files.close()

    def _append(self, time_s: float, level: int, logger: str, thread: str, messages: list[str]) -> None:
        self._write(self.memory.append(time_s, level, logger, thread, messages))
        if self._copy is not None:
            self._copy.note_line(level)

    def _write(self, lines: list[LogLine]) -> None:
        if self._files is not None and lines:
            with suppress(OSError):  # no memory left: the line is in memory only until the next one is written
                self._files.append(lines)

    def _has_recent_copy(self) -> bool:
        with suppress(OSError):
            if self._places.copy is not None:
                return abs(time.time() - self._places.copy.stat().st_mtime) < _COPY_AGE_S
        return False


def _last_id(lines: list[LogLine]) -> int:
    return lines[-1].id if lines else 0


def _has_exited(lines: list[LogLine]) -> bool:
    """Whether the last run that logged has recorded its exit code; threads may have logged after it."""
    return any(
        line.logger == __name__ and line.message.startswith(_EXIT) for line in lines if line.run == lines[-1].run
    )


def _take_result(folder: Path | None) -> str | None:
    """What ended the previous run according to systemd, such as `watchdog (killed ABRT)`; asked for once.

    The unit's ExecStopPost= writes it (systemd/restart-backoff.sh).
    """
    if folder is None:
        return None
    path = folder / "result"
    found = _RESULT.fullmatch(read_tail(path, _RESULT_BYTES).decode("ascii", "replace").strip())
    with suppress(OSError):
        path.unlink()
    return None if found is None else f"{found[1]} ({found[2]} {found[3]})"
