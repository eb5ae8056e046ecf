"""Work on the disk that keeps the state: in the order it was given, on a thread that lives while there is some.

A disk may take its time, or never answer again: nobody waits for it longer than a disk takes. No camera in here.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)

_LIMIT_S: Final = 5.0  # a worn card takes some seconds to write through, when others write as well


class BackgroundWriter:
    """Any thread may give it work."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the fields below
        self._work: deque[Callable[[], None]] = deque()
        self._given = 0
        self._done = 0
        self._is_running = False
        self._began_s: float | None = None  # when the work was begun that is under way

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk, for the status."""
        with self._changed:
            late_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        return f"the disk of the state folder has not answered for {late_s:.0f} s" if late_s >= _LIMIT_S else None

    def put(self, work: Callable[[], None]) -> int:
        """To be done soon; the number that `wait` takes."""
        with self._changed:
            self._work.append(work)
            self._given += 1
            number = self._given
            is_first, self._is_running = not self._is_running, True
        if is_first:
            spawn("keep-state", self._run, log.error)
        return number

    def do(self, work: Callable[[], None]) -> bool:
        """The same, and wait until it is done; False where the disk takes too long, and it is done when it can be."""
        number = self.put(work)
        until_s = time.monotonic() + _LIMIT_S
        with self._changed:
            while self._done < number:
                # A disk that did not answer before is not waited for again.
                late_s = until_s if self._began_s is None else min(until_s, self._began_s + _LIMIT_S)
                left_s = late_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            else:
                return True
        log.warning("The disk of the state folder takes more than %.0f s", _LIMIT_S)
        return False

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:  # the edge of the thread; the work that follows is another's
                log.exception("The state was not kept")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if self._began_s is not None:
                self._done += 1
            self._began_s = time.monotonic() if self._work else None
            self._is_running = bool(self._work)
            self._changed.notify_all()
            return self._work.popleft() if self._work else None
