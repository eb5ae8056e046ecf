"""Faults of the pattern camera, injected while it runs through a text file.

The file contains one word per line; it may be created, changed and deleted at any time, and without it there are no
faults. The words are documented in docs/sources.md. Any thread may call everything here; none is started.
"""

import logging
import time
from pathlib import Path
from typing import Final

from softcam.runtime.atomic_file import read_file

log = logging.getLogger(__name__)

KNOWN: Final = frozenset(
    {
        "hang",  # no frames while the word is in the file
        "hang-once",  # no frames until the stream is restarted or the camera is reopened
        "slow-open",  # opening takes 0.3 s
        "hang-open",  # open, stop, close or still does not return while the word is in the file
        "hang-stop",
        "hang-close",
        "hang-still",
        "missing",  # the camera does not exist; a running stream stops, as when a cable is unplugged
        "busy",  # another program uses the camera
        "refuse",  # it does not open mirrored
        "fail-restart",  # the stream cannot be restarted
        "no-focus",  # autofocus fails
        "endless-focus",  # autofocus never finishes
        "dark",  # the scene has 1 lux
        "near",  # the wall is closer, which the continuous autofocus notices
    }
)

_MAX_BYTES: Final = 4096
POLL_S: Final = 0.05  # how often a hanging call reads the file


class Faults:
    """Reads the faults file; without a path there are no faults."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reported: set[str] = set()  # unknown words; at worst, two threads report one twice
        self._has_hung_once = False  # of the thread that calls `is_new_hang_once`

    def words(self) -> frozenset[str]:
        """The faults in the file now; an unknown word is logged once."""
        if self._path is None:
            return frozenset()
        try:
            words = frozenset(read_file(self._path, _MAX_BYTES).decode(errors="replace").split())
        except OSError:
            return frozenset()
        for word in sorted(words - KNOWN - self._reported):
            self._reported.add(word)
            log.error("Faults file %s: unknown fault %r", self._path, word)
        return words & KNOWN

    def is_new_hang_once(self, words: frozenset[str]) -> bool:
        """Whether `hang-once` is new in the file: it has to be removed before it has an effect again."""
        had_hung_once, self._has_hung_once = self._has_hung_once, "hang-once" in words
        return self._has_hung_once and not had_hung_once

    def wait_while(self, word: str) -> None:
        while word in self.words():
            time.sleep(POLL_S)
