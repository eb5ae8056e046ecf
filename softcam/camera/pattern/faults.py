"""Faults that a test, or a curious owner, may order from the pattern camera while it runs.

A text file names them, a word a line; it may appear, change and vanish at any moment, and a file that is not there
orders nothing. Any thread may ask; nothing here starts one.
"""

import logging
import threading
import time
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

KNOWN: Final = frozenset(
    {
        "hang",  # no frames while the word stands
        "hang-once",  # no frames until the stream is restarted or the camera is opened anew
        "hang-open",  # open, stop, close or still does not come back while the word stands
        "hang-stop",
        "hang-close",
        "hang-still",
        "missing",  # the camera is not there; running frames stop, as with a cable that came off
        "busy",  # another program has it
        "refuse",  # it does not open mirrored
        "fail-restart",  # the stream cannot be started again
        "no-focus",  # autofocus fails
        "endless-focus",  # autofocus never ends
        "dark",  # the scene has 1 lux
        "near",  # the wall comes nearer, which the continuous autofocus notices
    }
)

_POLL_S: Final = 0.05  # how soon a call that hangs notices that its word is gone


class Faults:
    """Reads the words; `path` None orders nothing, ever."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the two below
        self._told: set[str] = set()
        self._obeyed_once = False

    def words(self) -> frozenset[str]:
        """What is ordered at this moment."""
        if self._path is None:
            return frozenset()
        try:
            words = set(self._path.read_text(encoding="utf-8", errors="replace").split())
        except OSError:
            return frozenset()
        unknown = words - KNOWN
        if unknown:
            self._tell(unknown)
        return frozenset(words & KNOWN)

    def begins_hang_once(self, words: frozenset[str]) -> bool:
        """Whether `hang-once` is new among `words`; obeyed, it must vanish from the file before it counts again."""
        stands = "hang-once" in words
        with self._lock:
            is_new, self._obeyed_once = stands and not self._obeyed_once, stands
        return is_new

    def wait_while(self, word: str) -> None:
        """Return when `word` is not ordered, or no longer is."""
        while word in self.words():
            time.sleep(_POLL_S)

    def _tell(self, unknown: set[str]) -> None:
        with self._lock:
            new = sorted(unknown - self._told)
            self._told |= unknown
        for word in new:
            logger.error("faults file %s: %r is no fault that the pattern camera knows", self._path, word)
