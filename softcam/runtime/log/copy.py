"""The newest lines of the log in a file on the disk, for the time after a power failure.

A disk may be an SD card, which wears out, and it may not respond. So the file is replaced rarely, on the thread
`log-writer`: some seconds after a warning or an error, but not more often than once a minute; ten minutes after any
other line; and at the end of the process. Without new lines the thread sleeps, and nothing is written. A save that
fails is tried again after the same minute.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softcam.runtime.atomic_file import remove_part, replace_file
from softcam.runtime.deadline import Deadline
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyIntervals:
    """Seconds from a line until it is saved: of a warning or an error, and of other lines; and between two saves."""

    urgent_s: float = 5.0
    other_s: float = 600.0
    pause_s: float = 60.0


class LogCopy:
    """Saves what `content` returns. `note_line` and `close` may be called by any thread; neither waits for the disk."""

    def __init__(
        self,
        path: Path,
        content: Callable[[], bytes],
        intervals: CopyIntervals = CopyIntervals(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._content = content
        self._intervals = intervals
        self._clock = clock
        # `put` may be called within itself, as a destructor does that logs. Each kind of event is in it once at most.
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._noted: set[str] = set()  # the kinds since the last save
        self._has_failed = False  # of the thread: whether the last save failed
        self._thread: threading.Thread | None = None  # of the thread that starts and closes

    def start(self, on_crash: Callable[[str], None]) -> None:
        self._thread = spawn("log-writer", self._run, on_crash)

    def note_line(self, level: int) -> None:
        """There is a line that is not in the file."""
        self._note("urgent" if level >= logging.WARNING else "other")

    def close(self, deadline: Deadline, *, must_save: bool = True) -> None:
        """End the thread, after saving new lines if `must_save`; waits until the deadline."""
        if self._thread is not None:
            self._note("save" if must_save else "end")
            self._thread.join(deadline.remaining_s)

    def _note(self, event: str) -> None:
        if event not in self._noted:
            self._noted.add(event)
            self._events.put(event)

    def _run(self) -> None:
        remove_part(self._path)
        saved_s = -math.inf
        while True:
            due_s = math.inf
            while (left_s := due_s - self._clock()) > 0:
                try:
                    event = self._events.get(timeout=None if left_s == math.inf else left_s)
                except queue.Empty:
                    break
                if event in ("save", "end"):
                    if event == "save" and due_s < math.inf:
                        self._save()
                    return
                delay_s = self._intervals.urgent_s if event == "urgent" else self._intervals.other_s
                due_s = min(due_s, max(self._clock() + delay_s, saved_s + self._intervals.pause_s))
            self._noted.clear()  # before the content is read: what is logged from here on is noted again
            is_saved = self._save()
            saved_s = self._clock()
            if not is_saved:
                self._note("urgent")

    def _save(self) -> bool:
        try:
            replace_file(self._path, self._content())
        except OSError as error:
            if not self._has_failed:
                log.warning("Failed to save the log to %s: %s", self._path, error.strerror or error)
            self._has_failed = True
            return False
        if self._has_failed:
            log.info("The log is saved again: %s", self._path)
        self._has_failed = False
        return True
