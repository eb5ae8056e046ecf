"""What is being recorded, kept in the state folder, so that the next start resumes what a restart or crash interrupted.

One file per camera, written when a recording starts, with each new file of it, and when it ends. If that fails, it is
tried again. Any thread may call.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from softcam.runtime.atomic_file import read_file, remove_part, replace_file

log = logging.getLogger(__name__)

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
CLOCK_STEP_S: Final = 2.0  # more than a clock is corrected by without being set
_MAX_BYTES: Final = 1 << 20  # an entry for each kind of recording has some hundred
_MAX_NUMBER: Final = 1e11  # as Unix time, the year 5138
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a recording began, which may be in an earlier process: then `interrupted_s` is the end of that process."""

    began_s: float = field(default_factory=time.time)  # Unix time
    started_s: float = field(default_factory=time.monotonic)  # the same moment on this process's monotonic clock
    interrupted_s: float | None = None  # Unix time
    is_automatic: bool = False  # started by --recordings-autostart
    recorded_s: float = 0.0  # before the interruption
    is_of_this_boot: bool = True  # `began_s` is
    is_interrupted_in_this_boot: bool = False

    def after_step(self, step_s: float) -> "Origin":
        """The same moments after the wall clock was set: it did not show those of another boot."""
        began_s = self.began_s + step_s if self.is_of_this_boot else self.began_s
        interrupted_s = self.interrupted_s
        if interrupted_s is not None and self.is_interrupted_in_this_boot:
            interrupted_s += step_s
        return replace(self, began_s=began_s, interrupted_s=interrupted_s)


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording that was running at `saved_s` (Unix time), `elapsed_s` after its beginning by the monotonic clock.

    `boot_id` and `boot_s` are what `boot_clock` returned at that moment; `recorded_s` is without pauses, and
    `is_of_boot` whether the recording began in that boot.
    """

    options: object  # as in JSON; `restore` returns those of the recorder
    began_s: float
    elapsed_s: float
    saved_s: float
    is_automatic: bool
    name: str | None  # its newest file
    boot_id: str = ""
    boot_s: float = 0.0
    recorded_s: float = 0.0
    is_of_boot: bool = True

    def origin(self, written_s: float, now_s: float, boot_id: str, boot_s: float) -> Origin:
        """The origin of the resumed recording; `written_s` is when the newest file was written last, in Unix time.

        Within one boot, the elapsed time does not depend on the wall clock, and what it showed is corrected if it was
        set in between. Before that clock is set after a power cut, it may be earlier than the interruption.
        """
        is_same_boot = boot_id == self.boot_id != ""
        step_s = (now_s - boot_s) - (self.saved_s - self.boot_s) if is_same_boot else 0.0
        if abs(step_s) <= CLOCK_STEP_S:
            step_s = 0.0
        saved_s = self.saved_s + step_s
        if written_s + step_s <= max(now_s, saved_s):  # else the file was written after the clock was set
            written_s += step_s
        interrupted_s = max(saved_s, written_s)
        since_s = boot_s - self.boot_s if is_same_boot else max(interrupted_s, now_s) - saved_s
        started_s = time.monotonic() - self.elapsed_s - since_s
        recorded_s = self.recorded_s + min(interrupted_s - saved_s, since_s)  # the newest file began when it was saved
        began_s = self.began_s + step_s if self.is_of_boot else self.began_s
        flags = is_same_boot and self.is_of_boot, is_same_boot
        return Origin(began_s, started_s, interrupted_s, self.is_automatic, recorded_s, *flags)


def restore(kind: type[_Record], values: Any) -> _Record:
    """A dataclass from a JSON object. Raises TypeError or ValueError if names, types or numbers do not fit."""
    record = kind(**values)
    for name, types in get_type_hints(kind).items():
        value = getattr(record, name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(value, types) and not (is_number and isinstance(0.0, types)):
            raise TypeError(f"{name}: unexpected value {value!r}")
        if is_number and not 0 <= value <= _MAX_NUMBER:
            raise ValueError(f"{name}: must be from 0 to {_MAX_NUMBER:g}")
    return record


def boot_clock() -> tuple[str, float]:
    """The id of this boot, "" if it is unknown, and the seconds since then, whatever the wall clock shows."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        boot_id = ""
    return boot_id, time.clock_gettime(time.CLOCK_BOOTTIME)


class Journal:
    """The entries by kind of recording. Without a path nothing is saved."""

    def __init__(self, path: Path | None = None, retry: Callable[[Callable[[], bool]], object] | None = None) -> None:
        """`retry` calls the function that it is passed later, on another thread, until that returns True."""
        self._path = path
        self._retry = retry
        self.error: str | None = None  # why the file is not as it should be
        self._lock = threading.Lock()  # guards `_entries` and the file
        self._entries: dict[str, Entry] = {}

    def remove_leftover(self) -> None:
        """Remove what a crash of an earlier process has left; before the first call of `save`."""
        if self._path is not None:
            remove_part(self._path)

    def load(self) -> Mapping[str, Entry]:
        """What an earlier process was recording when it ended."""
        if self._path is None:
            return {}
        with self._lock:
            try:
                content = json.loads(read_file(self._path, _MAX_BYTES))
                self._entries = {str(kind): restore(Entry, values) for kind, values in content.items()}
            except FileNotFoundError:
                pass
            except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                log.warning("Interrupted recordings are not resumed: %s cannot be read: %s", self._path, reason)
            return dict(self._entries)

    def save(self, kind: str, entry: Entry | None) -> None:
        """Replace the entry of a kind; None removes it."""
        with self._lock:
            if self._path is None or self._entries.get(kind) == entry:
                return
            entries = {**self._entries, kind: entry}
            self._entries = {each: value for each, value in entries.items() if value is not None}
        if not self._write() and self._retry is not None:
            self._retry(self._write)

    def _write(self) -> bool:
        """Write the entries; False if that failed."""
        with self._lock:
            if self._path is None:
                return True
            content = {each: asdict(value) for each, value in self._entries.items()}
            try:
                replace_file(self._path, json.dumps(content).encode())
            except OSError as error:
                reason = f"{self._path}: {error.strerror or error}"
                if reason != self.error:
                    log.warning("A restart will not resume what is recorded now: %s", reason)
                self.error = reason
                return False
            before, self.error = self.error, None
            if before is not None:
                log.info("A restart will resume what is recorded now: %s is saved again", self._path)
            return True
