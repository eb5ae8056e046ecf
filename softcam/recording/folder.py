"""What is in the folder of recordings, scanned again only if it may have changed. Any thread may call.

With thousands of files a scan takes a noticeable part of a second, and the recorder checks the size limit every second.
A folder's modification time shows which files are added and removed, but has a resolution of up to 2 s (FAT), and does
not show that a file grows.
"""

import contextlib
import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from softcam.recording import names
from softcam.recording.names import Kind, SortKey

_SETTLED_S: Final = 2.5  # longer than the resolution of a modification time
_MAX_AGE_S: Final = 30.0  # of the sizes of files that other programs write


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recordings to list, the newest first: those from `first` on that are earlier than `end`.

    A page has up to `limit` of them that are earlier than `cursor`.
    """

    kind: Kind | None = None
    day: str = ""  # in UTC, as in names
    first: SortKey | None = None
    end: SortKey | None = None
    cursor: SortKey | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The folder at one moment. `sizes` are in bytes, by recording, with thumbnails and stills."""

    names: Sequence[str]  # the oldest first
    keys: Sequence[SortKey]
    thumbnails: frozenset[str]  # the names of their files
    sizes: Mapping[str, int]
    kept: frozenset[str]  # recordings that are marked to keep

    def select(self, selection: Selection) -> tuple[list[str], int, bool]:
        """A page of the selected names, the newest first; how many are selected, and whether some follow the page."""
        begin = 0 if selection.first is None else bisect_left(self.keys, selection.first)
        end = len(self.keys) if selection.end is None else bisect_left(self.keys, selection.end)
        if selection.day:
            begin = max(begin, bisect_left(self.keys, (selection.day, 0, "")))
            end = min(end, bisect_right(self.keys, (f"{selection.day}~", 0, "")))
        found = [
            place
            for place in reversed(range(begin, max(begin, end)))
            if selection.kind in (None, names.kind_of(self.names[place]))
        ]
        page_end = len(self.keys) if selection.cursor is None else bisect_left(self.keys, selection.cursor)
        page = [self.names[place] for place in found if place < page_end]
        limit = len(page) if selection.limit is None else selection.limit
        return page[:limit], len(found), len(page) > limit

    def without(self, deleted: Collection[str]) -> "Listing":
        """The folder after these recordings were deleted."""
        left = [name for name in self.names if name not in deleted]
        sizes = {name: size for name, size in self.sizes.items() if name not in deleted}
        keys = [names.sort_key(name) for name in left]
        return replace(self, names=left, keys=keys, sizes=sizes, kept=self.kept.difference(deleted))


class Folder:
    """Scans one folder, and keeps the result while it is valid."""

    def __init__(self, path: Path, settled_s: float = _SETTLED_S, max_age_s: float = _MAX_AGE_S) -> None:
        self.path = path
        self._settled_s = settled_s
        self._max_age_s = max_age_s
        self._lock = threading.RLock()  # guards the fields below; held during a scan
        self._listing: Listing | None = None
        self._scanned_s = 0.0
        self._state: tuple[int, int, int] | None = None  # of the folder
        self._state_since_s = 0.0
        self._trusted_until_s = 0.0  # after a change by this process
        self._stills: dict[str, tuple[int, int]] = {}  # by folder of stills: its modification time, bytes
        self.scans = 0

    def read(self) -> Listing:
        """Raises OSError."""
        with self._lock:
            state, now_s = self._read_state(), time.monotonic()
            if state != self._state:
                self._state, self._state_since_s, self._listing, self._trusted_until_s = state, now_s, None, 0.0
            is_settled = now_s < self._trusted_until_s or self._scanned_s - self._state_since_s >= self._settled_s
            if self._listing is None or not is_settled or now_s - self._scanned_s > self._max_age_s:
                self._scanned_s, self._listing = now_s, self._scan()
                self.scans += 1
            return self._listing

    def invalidate(self) -> None:
        """The size of a file has changed, or this process has created one."""
        with self._lock:
            self._listing, self._trusted_until_s = None, 0.0

    def discard(self, deleted: Collection[str]) -> None:
        """This process has deleted these recordings since the last `read`: remove them from its result.

        The next scan is due when the modification time is settled, because others may have changed the folder too.
        """
        with self._lock, contextlib.suppress(OSError):
            if self._listing is not None:
                self._state, self._state_since_s = self._read_state(), time.monotonic()
                self._trusted_until_s = self._state_since_s + self._settled_s
                self._listing = self._listing.without(frozenset(deleted))

    def _read_state(self) -> tuple[int, int, int]:
        """Raises OSError."""
        status = self.path.stat()
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def stills_bytes(self, name: str) -> int:
        """The bytes of a time-lapse's stills, 0 for other kinds; summed again when others add or remove one."""
        if not names.is_timelapse(name):
            return 0
        folder = names.stills_of(name)
        with self._lock:
            try:
                changed_ns = (self.path / folder).stat().st_mtime_ns
                known_ns, size = self._stills.get(folder, (0, 0))
                if known_ns != changed_ns:
                    with os.scandir(self.path / folder) as stills:
                        size = sum(entry.stat().st_size for entry in stills)
            except OSError:  # there are none, or they are being deleted
                return 0
            self._stills[folder] = changed_ns, size
            return size

    def set_stills_bytes(self, name: str, size: int) -> None:
        """This process has added a still: the sum is now `size`. Raises OSError."""
        folder = names.stills_of(name)
        with self._lock:
            self._stills[folder] = (self.path / folder).stat().st_mtime_ns, size

    def _scan(self) -> Listing:
        """With the lock held. Raises OSError."""
        with os.scandir(self.path) as entries:
            present = {entry.name: entry for entry in entries}
        for folder in self._stills.keys() - present.keys():
            del self._stills[folder]
        sizes: dict[str, int] = {}
        found: list[str] = []
        thumbnails: set[str] = set()
        for name, entry in present.items():
            mp4 = f"{name}.mp4"  # of a folder of stills
            with contextlib.suppress(OSError):  # deleted meanwhile
                if names.is_recording(name) and entry.is_file(follow_symlinks=False):
                    sizes[name] = entry.stat().st_size + self.stills_bytes(name)
                    found.append(name)
                    thumbnail = present.get(names.thumbnail_of(name))
                    if thumbnail is not None and thumbnail.is_file(follow_symlinks=False):
                        thumbnails.add(thumbnail.name)
                        sizes[name] += thumbnail.stat(follow_symlinks=False).st_size
                elif names.is_timelapse(mp4) and mp4 not in present and entry.is_dir(follow_symlinks=False):
                    sizes[mp4] = self.stills_bytes(mp4)
        found.sort(key=names.sort_key)
        keys = [names.sort_key(name) for name in found]
        kept = frozenset(name for name in sizes if names.keep_mark_of(name) in present)
        return Listing(found, keys, frozenset(thumbnails), sizes, kept)
