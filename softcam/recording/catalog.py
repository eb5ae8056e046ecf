"""The list of recordings: what is in the folder, what the files contain, and their sizes. Any thread may call.

Nothing about the files is stored elsewhere, so they may be added and removed by other programs. What was read from a
file is cached until the file changes.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from softcam.errors import NoRecording, RecordingError
from softcam.imaging import jpeg
from softcam.mp4.index import InvalidMp4, Mp4Info, finished_parts
from softcam.recording import names
from softcam.recording.files import JPEG_HEAD_BYTES, NOT_FOUND, is_locked, is_whole_jpeg, open_file
from softcam.recording.folder import Folder, Selection
from softcam.recording.names import Kind
from softcam.runtime.atomic_file import GROUP_FILE, read_file

VIEW_S: Final = 60.0  # that long after the last request, another view of an unfinished file begins
_MAX_THUMBNAIL_BYTES: Final = 1 << 20


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
    is_kept: bool  # marked: not deleted to free space


@dataclass(frozen=True, slots=True)
class RunningFile:
    """A file that this process is writing, and how far it is complete, as reported by its writer."""

    descriptor: int
    whole: int = 0  # bytes
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What was read from a file while it had this inode, size and modification time."""

    state: tuple[int, int, int]
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    is_finished: bool = True
    end: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What players get of a file. `head` replaces its first bytes, and `tail` follows the first `whole` bytes.

    So an unfinished file has an index, without which many players cannot seek.
    """

    whole: int
    modified_s: float  # Unix time
    head: bytes = b""
    tail: bytes = b""


class _SharedView:
    """A view for all requests of a file. The catalog's lock guards `used_s`."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self._lock = threading.Lock()  # guards the view, which one request builds
        self._view: View | None = None

    def mark_used(self) -> None:
        self.used_s = time.monotonic()

    def get(self, build: Callable[[], View]) -> View:
        with self._lock:
            if self._view is None:
                self._view = build()
            return self._view


class Catalog:
    """Lists and reads the recordings of one folder, and knows which of them this process is writing."""

    def __init__(self, folder: Folder, read_file: Callable[[int], Mp4Info], view_s: float) -> None:
        """`read_file` reads an MP4 file from a descriptor; raises ValueError, OSError."""
        self._folder = folder
        self._read_mp4 = read_file
        self._lock = threading.Lock()  # guards the fields below
        self._running: dict[str, RunningFile] = {}
        self._views: dict[str, _SharedView] = {}  # of unfinished files
        self._view_s = view_s
        self._info: dict[str, FileInfo] = {}

    def entries(self, selection: Selection | None = None) -> list[Recording]:
        """The selected recordings, the newest first; by default all. Raises OSError if the folder cannot be read."""
        return self.select(selection or Selection())[0]

    def select(self, selection: Selection) -> tuple[list[Recording], int, bool]:
        """A page of the selected recordings, as `Listing.select`. Raises OSError."""
        listing = self._folder.read()
        selected, total, has_more = listing.select(selection)
        with self._lock:
            self._drop_expired_views()
            for name in self._info.keys() - listing.sizes.keys() - self._running.keys():
                del self._info[name]
        found = (self._entry(name, has_thumbnail=names.thumbnail_of(name) in listing.thumbnails) for name in selected)
        return [entry for entry in found if entry is not None], total, has_more

    def entry(self, name: str) -> Recording:
        """Raises NoRecording."""
        self.path_of(name)
        entry = self._entry(name, has_thumbnail=(self._folder.path / names.thumbnail_of(name)).exists())
        if entry is None:
            raise NoRecording(NOT_FOUND)
        return entry

    def open_recording(self, name: str) -> tuple[BinaryIO, int]:
        """The file, and how many of its bytes are complete. Raises NoRecording."""
        file = open_file(self.path_of(name))
        running = self.running_file(name)
        if running is not None:
            return file, running.whole
        info = self.read_info(name, file)
        # Another portal may be writing the file, or was interrupted: bytes after the last whole fragment are invalid.
        whole = info.state[1] if info.is_finished or names.kind_of(name) == "still" else info.end
        if not whole:
            file.close()
            raise NoRecording(f"{name} is empty")
        return file, whole

    def open_view(self, name: str, *, has_index: bool = False) -> tuple[BinaryIO, View]:
        """The file, and what players get of it. Raises NoRecording.

        That of a file that is being written has an index only with `has_index`, because a download that continues
        expects the file. It remains the same while it is being played, by many requests.
        """
        file, whole = self.open_recording(name)
        view = View(whole, os.fstat(file.fileno()).st_mtime)
        if names.kind_of(name) == "still" or self.read_info(name, file).is_finished:
            return file, view
        if not has_index and (self.running_file(name) is not None or is_locked(self._folder.path / name)):
            return file, view
        with self._lock:
            self._drop_expired_views()
            shared = self._views.setdefault(name, _SharedView())
            shared.mark_used()
        return file, shared.get(lambda: _with_index(view, file))

    def _drop_expired_views(self) -> None:
        """With the lock held."""
        since_s = time.monotonic() - self._view_s
        self._views = {name: shared for name, shared in self._views.items() if shared.used_s > since_s}

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG. Raises NoRecording if there is none."""
        self.path_of(name)
        picture = b""
        with contextlib.suppress(OSError):
            picture = read_file(self._folder.path / names.thumbnail_of(name), _MAX_THUMBNAIL_BYTES)
        if not is_whole_jpeg(picture):
            raise NoRecording("no thumbnail of a recording with this name")
        return picture

    def used_bytes(self) -> int:
        """The size of all recordings. Raises OSError."""
        return sum(self.sizes().values())

    def sizes(self) -> dict[str, int]:
        """All recordings and their bytes, with thumbnails and stills, also stills whose MP4 file is missing.

        Raises OSError.
        """
        sizes = dict(self._folder.read().sizes)
        with self._lock:
            running = dict(self._running)
        for name in running.keys() & sizes.keys():
            sizes[name] = max(sizes[name], running[name].whole + self._folder.stills_bytes(name))
        return sizes

    def kept_names(self) -> frozenset[str]:
        """The recordings that are marked as ones to keep. Raises OSError."""
        return self._folder.read().kept

    def is_kept(self, name: str) -> bool:
        """Whether the recording is marked as one to keep."""
        return (self._folder.path / names.keep_mark_of(name)).exists()

    def path_of(self, name: str) -> Path:
        """The file's path; other names than those of recordings never reach the disk. Raises NoRecording."""
        if not names.is_recording(name):
            raise NoRecording(NOT_FOUND)
        return self._folder.path / name

    # --- files that this process is writing -------------------------------------------------------------------

    def create_file(self, name: str) -> int:
        """Create a file, which is running until `remove_running`; returns its descriptor. Raises OSError."""
        # Under the lock: a thread of this process that finds the file knows that it runs, and skips its lock.
        with self._lock:
            descriptor = os.open(
                self._folder.path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, GROUP_FILE
            )
            self._info.pop(name, None)  # of a file that was deleted
            self._running[name] = RunningFile(descriptor)
        self._folder.invalidate()
        return descriptor

    def update_progress(self, name: str, whole: int, duration_s: float | None = None) -> None:
        """`whole` bytes of a running recording are complete, with a duration of `duration_s`."""
        with self._lock:
            self._running[name] = replace(self._running[name], whole=whole, duration_s=duration_s)

    def running_file(self, name: str) -> RunningFile | None:
        """None for a file that this process is not writing."""
        with self._lock:
            return self._running.get(name)

    def running_names(self) -> set[str]:
        """The files that this process is writing."""
        with self._lock:
            return set(self._running)

    def remove_running(self, name: str) -> RunningFile:
        """The file is complete."""
        self._folder.invalidate()
        with self._lock:
            return self._running.pop(name)

    # --- cached facts -----------------------------------------------------------------------------------------

    def _entry(self, name: str, *, has_thumbnail: bool) -> Recording | None:
        try:
            with open_file(self._folder.path / name) as file:
                info = self.read_info(name, file)
        except RecordingError:  # deleted meanwhile
            return None
        running = self.running_file(name)
        return Recording(
            name,
            names.kind_of(name),
            names.start_of(name),
            info.duration_s,
            (info.state[1] if running is None else running.whole) + self._folder.stills_bytes(name),
            info.width,
            info.height,
            is_running=running is not None or (not info.is_finished and is_locked(self._folder.path / name)),
            has_thumbnail=has_thumbnail,
            is_kept=self.is_kept(name),
        )

    def read_info(self, name: str, file: BinaryIO) -> FileInfo:
        """What the file contains; read again only if the file has changed."""
        status = os.fstat(file.fileno())
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            info = self._info.get(name)
            running = self._running.get(name)
        if info is not None and info.state == state:
            return info
        duration_s = None if running is None else running.duration_s
        if info is not None and info.width is not None and info.state[0] == state[0] and duration_s is not None:
            # The same file has grown. Reading it again would take seconds with a fragment for each second of a day.
            return replace(info, state=state, duration_s=duration_s)
        try:
            if names.kind_of(name) == "still":
                width, height = jpeg.size_of(os.pread(file.fileno(), JPEG_HEAD_BYTES, 0))
                info = FileInfo(state, None, width, height)
            else:
                mp4 = self._read_mp4(file.fileno())
                info = FileInfo(state, mp4.duration_s, mp4.width, mp4.height, mp4.is_finished, mp4.end)
        except (ValueError, OSError):  # not an MP4 or JPEG file, or the disk fails
            info = FileInfo(state, is_finished=False)
        with self._lock:
            self._info[name] = info
        return info


def _with_index(view: View, file: BinaryIO) -> View:
    """The view with an index, if the file can have one."""
    with contextlib.suppress(InvalidMp4, OSError):
        return View(view.whole, view.modified_s, *finished_parts(file.fileno(), view.whole) or ())
    return view
