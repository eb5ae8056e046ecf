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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.recording import names
from softcam.recording.names import Kind, SortKey

_SETTLED_S: Final = 2.5  # longer than the resolution of a modification time
_MAX_AGE_S: Final = 30.0  # of the sizes of files that other programs write


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recordings to list, the newest first: those from `first` on that are earlier than `end`."""

    kind: Kind | None = None
    day: str = ""  # in UTC, as in names
    first: SortKey | None = None
    end: SortKey | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The folder at one moment. `sizes` are in bytes, by recording, with thumbnails and stills."""

    names: Sequence[str]  # the oldest first
    keys: Sequence[SortKey]
    thumbnails: frozenset[str]  # the names of their files
    sizes: Mapping[str, int]

    def select(self, selection: Selection) -> tuple[list[str], int]:
        """The selected names, the newest first, and how many there would be without the limit."""
        begin = 0 if selection.first is None else bisect_left(self.keys, selection.first)
        end = len(self.keys) if selection.end is None else bisect_left(self.keys, selection.end)
        if selection.day:
            begin = max(begin, bisect_left(self.keys, (selection.day, 0, "")))
            end = min(end, bisect_right(self.keys, (f"{selection.day}~", 0, "")))
        found = [
            name
            for name in reversed(self.names[begin : max(begin, end)])
            if selection.kind in (None, names.kind_of(name))
        ]
        return found[: selection.limit], len(found)


class Folder:
    """Scans one folder, and keeps the result while it is valid."""

    def __init__(self, path: Path, settled_s: float = _SETTLED_S, max_age_s: float = _MAX_AGE_S) -> None:
        self.path = path
        self._settled_s = settled_s
        self._max_age_s = max_age_s
        self._lock = threading.Lock()  # guards the fields below
        self._listing: Listing | None = None
        self._scanned_s = 0.0
        self._state: tuple[int, int, int] | None = None  # of the folder
        self._state_since_s = 0.0
        self._stills: dict[str, tuple[int, int]] = {}  # by folder of stills: its modification time, bytes
        self.scans = 0

    def read(self) -> Listing:
        """Raises OSError."""
        status = self.path.stat()
        state = status.st_dev, status.st_ino, status.st_mtime_ns
        with self._lock:
            now_s = time.monotonic()
            if state != self._state:
                self._state, self._state_since_s, self._listing = state, now_s, None
            is_settled = self._scanned_s - self._state_since_s >= self._settled_s
            if self._listing is None or not is_settled or now_s - self._scanned_s > self._max_age_s:
                self._scanned_s, self._listing = now_s, self._scan()
                self.scans += 1
            return self._listing

    def invalidate(self) -> None:
        """The size of a file has changed."""
        with self._lock:
            self._listing = None

    def stills_bytes(self, name: str) -> int:
        """The bytes of a time-lapse's stills, 0 for other kinds; summed again when a still was added or removed."""
        if not names.is_timelapse(name):
            return 0
        folder = names.stills_of(name)
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
        return Listing(found, [names.sort_key(name) for name in found], frozenset(thumbnails), sizes)
