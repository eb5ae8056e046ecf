"""The newest lines of the log, bounded in number and bytes, for requests and live streams.

One thread at a time adds lines, under the lock of the handler. Any thread reads, without a lock: one that holds a lock
which a caller of `logging` waits for could itself log, in a destructor that the garbage collector runs. A reader begins
with a copy of the list, which is atomic, as all changes of the list are.
"""

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from softcam.runtime.log.lines import LogLine, make_line

MAX_LINES: Final = 10_000
MAX_BYTES: Final = 1 << 20  # of text; the objects around it need about 200 bytes per line
KEPT_LINES: Final = 200
KEPT_BYTES: Final = 64 * 1024
_TRIMMED: Final = 0.9  # of the limits: the oldest lines are dropped in groups, as that moves all others


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines a client requests: those of `level` and above that contain `search`, which is case-folded."""

    level: int = 0
    search: str = ""

    def matches(self, line: LogLine) -> bool:
        return line.level >= self.level and (not self.search or self.search in line.text.casefold())


ALL: Final = Selection()


class LogMemory:
    """The lines of this run, preceded by those of earlier runs once they are restored.

    The oldest lines are dropped, except those that `keep_newest` keeps: behind these, there may be a gap.
    """

    def __init__(self, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: list[LogLine] = []
        self._kept: list[LogLine] = []  # replaced as a whole; those that are also in `_lines` are used from there
        self._bytes = 0
        self._last_id = 0
        self._base = 0  # the number in front of this run's first line
        self._run = 1
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def run(self) -> int:
        """The number of this run."""
        return self._run

    @property
    def last_id(self) -> int:
        """The number of the newest line; 0 if there never was one."""
        return self._last_id

    @property
    def oldest_id(self) -> int:
        """The number of the oldest line in memory; 0 if there is none."""
        lines, _ = self._copy()
        return lines[0].id if lines else 0

    # --- the thread that logs ---------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after new lines, on the thread that logged them: it must neither block, log, nor raise."""
        self._listeners = (*self._listeners, listener)

    def append(self, time_s: float, level: int, logger: str, thread: str, messages: Iterable[str]) -> list[LogLine]:
        """Add lines of this run, whose messages are printable; returns them."""
        added = []
        for message in messages:
            line = make_line(self._last_id + 1, self._run, time_s, level, logger, thread, message)
            self._add(line)
            added.append(line)
        for listener in self._listeners:
            listener()
        return added

    def restore(self, earlier: Sequence[LogLine], base: int = 0) -> list[LogLine]:
        """Put the lines of earlier runs, in order, before those of this run, which are renumbered and returned.

        Their numbers are higher than `base`. Before there is a reader.
        """
        run, self._run = self._run, max((line.run for line in earlier), default=0) + 1
        own = [line for line in self._lines if line.run == run]
        self._lines, self._bytes, self._last_id = [], 0, 0
        for line in earlier:
            self._add(line)
        self._last_id = self._base = max(self._last_id, base)
        renumbered = [replace(line, id=self._last_id + 1 + place, run=self._run) for place, line in enumerate(own)]
        for line in renumbered:
            self._add(line)
        return renumbered

    def keep_newest(self, max_lines: int = KEPT_LINES, max_bytes: int = KEPT_BYTES) -> None:
        """Keep the newest lines of this moment, whatever follows: at the start, those that show why there is a new run.

        Before there is a reader.
        """
        self._kept = self.tail(max_bytes)[-max_lines:]

    def _add(self, line: LogLine) -> None:
        self._lines.append(line)
        self._last_id = line.id
        self._bytes += len(line.text)
        if len(self._lines) <= self._max_lines and self._bytes <= self._max_bytes:
            return
        dropped, left = 0, len(self._lines)
        while left > 1 and (left > self._max_lines * _TRIMMED or self._bytes > self._max_bytes * _TRIMMED):
            self._bytes -= len(self._lines[dropped].text)
            dropped, left = dropped + 1, left - 1
        del self._lines[:dropped]

    # --- any thread -------------------------------------------------------------------------------------------

    def newest(self, limit: int, selection: Selection = ALL, before: int | None = None) -> tuple[list[LogLine], bool]:
        """The newest `limit` lines that match, the oldest first, and whether there are older ones that match.

        With `before`, only lines with a lower number.
        """
        lines, _ = self._copy()
        found: list[LogLine] = []
        for position in range(len(lines) if before is None else _count_up_to(lines, before - 1), 0, -1):
            line = lines[position - 1]
            if selection.matches(line):
                if len(found) == limit:
                    return found[::-1], True
                found.append(line)
        return found[::-1], False

    def after(self, last_id: int, limit: int) -> tuple[list[LogLine], int]:
        """Up to `limit` lines that follow line `last_id`, the oldest first, and how many in between are lost.

        Fewer than `limit` in front of a gap. Numbers that were skipped between two runs are not lost lines.
        """
        if last_id >= self._last_id:
            return [], 0
        lines, gap = self._copy()
        begin = _count_up_to(lines, last_id)
        found = lines[begin : min(begin + limit, gap) if begin < gap else begin + limit]
        if not found or begin not in (0, gap):
            return found, 0
        first = found[0].id - 1
        return found, first - max(last_id, self._base if first >= self._base else 0)

    def tail(self, max_bytes: int) -> list[LogLine]:
        """The newest lines with at most `max_bytes` of text, the oldest first."""
        lines = self._lines[:]
        for position in range(len(lines), 0, -1):
            max_bytes -= len(lines[position - 1].text)
            if max_bytes < 0:
                return lines[position:]
        return lines

    def _copy(self) -> tuple[list[LogLine], int]:
        """All lines, and how many of them are in front of the gap."""
        lines = self._lines[:]
        older = self._kept[: _count_up_to(self._kept, lines[0].id - 1)] if lines else []
        return older + lines, len(older)


def _count_up_to(lines: Sequence[LogLine], last_id: int) -> int:
    """How many of the lines have a number up to `last_id`."""
    return bisect.bisect_right(lines, last_id, key=lambda line: line.id)
