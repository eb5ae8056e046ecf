"""The list of recordings: what is in the folder, what the files contain, and their sizes. Any thread may call.

Nothing about the files is stored elsewhere, so they may be added and removed by other programs. What was read from a
file is cached until the file changes.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from softcam.errors import NoRecording, RecordingError
from softcam.imaging import jpeg
from softcam.mp4.index import Mp4Info, read_mp4
from softcam.recording import names
from softcam.recording.files import NOT_FOUND, is_locked, open_file
from softcam.recording.names import Kind
from softcam.recording.running import RunningFiles

_JPEG_HEAD_BYTES: Final = 1 << 18  # the size of a JPEG is within them


@dataclass(frozen=True, slots=True)
class Recording:
    """An entry of the list; None where a value does not apply or could not be read."""

    name: str
    kind: Kind
    began_s: float  # Unix time
    duration_s: float | None
    size: int  # bytes, including the stills of a time-lapse
    width: int | None
    height: int | None
    is_running: bool
    has_thumbnail: bool


@dataclass(frozen=True, slots=True)
class _CachedInfo:
    """What was read from a file while it had this inode, size and modification time."""

    state: tuple[int, int, int]
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    is_finished: bool = True
    end: int = 0


class Catalog:
    """Lists, reads and removes the recordings of one folder."""

    def __init__(self, folder: Path, running: RunningFiles, read_file: Callable[[int], Mp4Info] = read_mp4) -> None:
        """`read_file` reads an MP4 file from a descriptor; raises ValueError, OSError."""
        self._folder = folder
        self._running = running
        self._read_mp4 = read_file
        self._lock = threading.Lock()  # guards the caches
        self._info: dict[str, _CachedInfo] = {}
        self._stills: dict[str, tuple[int, int]] = {}  # of time-lapses: modification time of the folder, bytes
        self._thumbnails: dict[str, int] = {}  # bytes

    # --- entries ----------------------------------------------------------------------------------------------

    def entries(self) -> list[Recording]:
        """All recordings, the newest first. Raises OSError if the folder cannot be read."""
        present = {entry.name for entry in os.scandir(self._folder) if entry.is_file(follow_symlinks=False)}
        found = [
            entry for name in present if names.is_recording(name) and (entry := self._entry(name, present)) is not None
        ]
        with self._lock:
            for name in self._info.keys() - present:
                del self._info[name]
        return sorted(found, key=lambda entry: names.sort_key(entry.name), reverse=True)

    def entry(self, name: str) -> Recording:
        """Raises NoRecording."""
        path = self.path(name)
        thumbnail = names.thumbnail_of(name)
        entry = self._entry(path.name, {thumbnail} if (self._folder / thumbnail).exists() else set())
        if entry is None:
            raise NoRecording(NOT_FOUND)
        return entry

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The file, and how many of its bytes are complete. Raises NoRecording."""
        file = open_file(self.path(name))
        progress = self._running.progress(name)
        if progress is not None:
            return file, progress.whole
        info = self._read(name, file)
        # Another portal may be writing the file, or was interrupted: bytes after the last whole fragment are invalid.
        return file, info.state[1] if info.is_finished or names.kind_of(name) == "still" else info.end

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG. Raises NoRecording if there is none."""
        self.path(name)
        try:
            return (self._folder / names.thumbnail_of(name)).read_bytes()
        except OSError as error:
            raise NoRecording("no thumbnail of a recording with this name") from error

    def set_thumbnail(self, name: str, picture: bytes) -> None:
        """Raises OSError."""
        path = self._folder / names.thumbnail_of(name)
        with self._lock:
            self._thumbnails.pop(path.name, None)
        try:
            path.write_bytes(picture)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def path(self, name: str) -> Path:
        """The file's path; other names than those of recordings never reach the disk. Raises NoRecording."""
        if not names.is_recording(name):
            raise NoRecording(NOT_FOUND)
        return self._folder / name

    def is_finished(self, name: str, file: BinaryIO) -> bool:
        """Whether an MP4 file has its index."""
        return self._read(name, file).is_finished

    def remove(self, name: str) -> None:
        """Remove the file with its thumbnail and stills. Raises OSError."""
        (self._folder / names.thumbnail_of(name)).unlink(missing_ok=True)
        if names.kind_of(name) == "timelapse":
            shutil.rmtree(self._folder / names.stills_of(name), ignore_errors=True)
        (self._folder / name).unlink(missing_ok=True)
        with self._lock:
            self._info.pop(name, None)
            self._stills.pop(name, None)

    def _entry(self, name: str, present: set[str]) -> Recording | None:
        try:
            with open_file(self._folder / name) as file:
                info = self._read(name, file)
        except RecordingError:  # deleted meanwhile
            return None
        progress = self._running.progress(name)
        kind = names.kind_of(name)
        size = info.state[1] if progress is None else progress.whole
        return Recording(
            name,
            kind,
            names.start_of(name),
            info.duration_s,
            size + (self._stills_size(name) if kind == "timelapse" else 0),
            info.width,
            info.height,
            is_running=progress is not None or (not info.is_finished and is_locked(self._folder / name)),
            has_thumbnail=names.thumbnail_of(name) in present,
        )

    def _read(self, name: str, file: BinaryIO) -> _CachedInfo:
        """What the file contains; read again only if the file has changed."""
        status = os.fstat(file.fileno())
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            info = self._info.get(name)
        if info is not None and info.state == state:
            return info
        progress = self._running.progress(name)
        duration_s = None if progress is None else progress.duration_s
        if info is not None and info.width is not None and info.state[0] == state[0] and duration_s is not None:
            # The same file has grown. Reading it again would take seconds with a fragment for each second of a day.
            return replace(info, state=state, duration_s=duration_s)
        try:
            if names.kind_of(name) == "still":
                width, height = jpeg.size_of(os.pread(file.fileno(), _JPEG_HEAD_BYTES, 0))
                info = _CachedInfo(state, None, width, height)
            else:
                mp4 = self._read_mp4(file.fileno())
                info = _CachedInfo(state, mp4.duration_s, mp4.width, mp4.height, mp4.is_finished, mp4.end)
        except (ValueError, OSError):  # not an MP4 or JPEG file, or the disk fails
            info = _CachedInfo(state, is_finished=False)
        with self._lock:
            self._info[name] = info
        return info

    # --- sizes ------------------------------------------------------------------------------------------------

    def sizes(self) -> Iterator[tuple[str, int]]:
        """All recordings and their bytes, including stills whose MP4 file is missing. Raises OSError."""
        present = {entry.name: entry for entry in os.scandir(self._folder)}
        with self._lock:
            for gone in self._thumbnails.keys() - present.keys():
                del self._thumbnails[gone]
        for entry in present.values():
            mp4 = f"{entry.name}.mp4"
            if mp4 not in present and names.is_recording(mp4) and names.kind_of(mp4) == "timelapse":
                if entry.is_dir(follow_symlinks=False):
                    yield mp4, self._stills_size(mp4)
                continue
            if not names.is_recording(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            try:
                size = entry.stat().st_size + self._thumbnail_size(present.get(names.thumbnail_of(entry.name)))
            except OSError:  # deleted meanwhile
                continue
            yield entry.name, size + (self._stills_size(entry.name) if names.kind_of(entry.name) == "timelapse" else 0)

    def _thumbnail_size(self, entry: os.DirEntry[str] | None) -> int:
        """Read once: thumbnails do not change. Raises OSError."""
        if entry is None:
            return 0
        with self._lock:
            size = self._thumbnails.get(entry.name)
        if size is None:
            size = entry.stat(follow_symlinks=False).st_size
            with self._lock:
                self._thumbnails[entry.name] = size
        return size

    def _stills_size(self, name: str) -> int:
        """The bytes of a time-lapse's stills; summed again when a still was added or removed."""
        folder = self._folder / names.stills_of(name)
        try:
            changed_ns = folder.stat().st_mtime_ns
            with self._lock:
                known = self._stills.get(name)
            if known is not None and known[0] == changed_ns:
                return known[1]
            size = sum(entry.stat().st_size for entry in os.scandir(folder))
        except OSError:  # there are none, or they are being deleted
            return 0
        with self._lock:
            self._stills[name] = changed_ns, size
        return size
