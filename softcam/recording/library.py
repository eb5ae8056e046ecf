"""The folder of recordings: names, a list, what they fill, and which of them go when there is no more room.

A recording's name tells its kind and when it began, in UTC: `2026-11-20_23-15-02.mp4`, `…_timelapse.mp4` with a folder
of its stills beside it, `….jpg` for a still. A thumbnail lies beside each under a hidden name. Nothing is kept about
them elsewhere, so files may be added and taken away behind our back. No thread of its own; any may call.

Who writes a file holds a lock on it (flock), so that portals which share a folder leave each other's files alone.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal

from softcam.errors import NoRecording, RecordingError
from softcam.imaging import jpeg
from softcam.mp4 import index
from softcam.mp4.index import InvalidMp4
from softcam.recording.disk import Disk

log = logging.getLogger(__name__)

Kind = Literal["video", "timelapse", "still"]

NAME_PATTERN: Final = r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}(-\d{1,3})?(_timelapse\.mp4|\.mp4|\.jpg)"
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
_TAILS: Final[dict[Kind, str]] = {"video": ".mp4", "timelapse": "_timelapse.mp4", "still": ".jpg"}
_MOST_OF_A_SECOND: Final = 1000  # recordings with the same name but for a number
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.01  # longer than another portal looks whether a file is locked
_JPEG_HEAD: Final = 1 << 18  # bytes in which a JPEG has told its size


@dataclass(frozen=True, slots=True)
class Recording:
    """An entry of the list; null is what it does not have, or could not be read."""

    name: str
    kind: Kind
    began_s: float  # Unix time
    duration_s: float | None
    size: int  # bytes, with the stills of a time-lapse
    width: int | None
    height: int | None
    is_running: bool
    has_thumbnail: bool


@dataclass(frozen=True, slots=True)
class _Growth:
    """How far a file of our own is, whose writer tells it."""

    whole: int = 0  # bytes
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read from a file when it had this number, size and time."""

    state: tuple[int, int, int]
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    is_finished: bool = True
    end: int = 0


class Library:
    """One folder."""

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        """Makes the folder where it can; a folder that is not there now may come later, as a stick does."""
        self.folder = folder
        self.max_bytes = max_bytes
        self.quota = max_bytes  # the limit, or what the disk can give where that is less; None without a limit
        self._disk = Disk(folder)
        self._lock = threading.Lock()  # guards the next five
        self._running: dict[str, _Growth] = {}  # our own
        self._descriptors: dict[str, int] = {}  # of our own that run
        self._known: dict[str, _Known] = {}
        self._folders: dict[str, tuple[int, int]] = {}  # of time-lapses: time of the last change, bytes
        self._thumbnails: dict[str, int] = {}  # bytes of each
        self._making_room = threading.Lock()  # one thread at a time deletes
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("There is no folder for recordings: %s: %s", folder, error.strerror)
        with contextlib.suppress(OSError):
            self._disk.require()

    # --- what there is ----------------------------------------------------------------------------------------

    def entries(self) -> list[Recording]:
        """All recordings, the newest first. Raises OSError where the folder cannot be read."""
        shown = {entry.name for entry in os.scandir(self.folder) if entry.is_file(follow_symlinks=False)}
        entries = [entry for name in shown if _NAME.fullmatch(name) and (entry := self._entry(name, shown)) is not None]
        with self._lock:
            for name in self._known.keys() - shown:
                del self._known[name]
        return sorted(entries, key=lambda entry: _order(entry.name), reverse=True)

    def entry(self, name: str) -> Recording:
        """Raises NoRecording."""
        thumbnail = _thumbnail_of(name)
        shown = {thumbnail} if _NAME.fullmatch(name) and (self.folder / thumbnail).exists() else set()
        found = self._entry(name, shown) if _NAME.fullmatch(name) else None
        if found is None:
            raise NoRecording("there is no recording of that name")
        return found

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The file, and how many bytes of it are whole. Raises NoRecording."""
        file = _open(self._path(name))
        with self._lock:
            growth = self._running.get(name)
        if growth is not None:
            whole = growth.whole
        else:
            known = self._read(name, file)
            # Another portal may be writing it, or was when it was cut: what stands behind the whole part is none.
            whole = known.state[1] if known.is_finished or name.endswith(".jpg") else known.end
        return file, whole

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG. Raises NoRecording where there is none."""
        self._path(name)
        try:
            return (self.folder / _thumbnail_of(name)).read_bytes()
        except OSError as error:
            raise NoRecording("there is no thumbnail of a recording of that name") from error

    def used_bytes(self) -> int:
        """What all recordings fill. Raises OSError."""
        return sum(size for _, size in self._sizes())

    def free_bytes(self) -> int:
        """What the disk has left for us. Raises OSError."""
        return self._disk.free()[0]

    # --- what comes in ----------------------------------------------------------------------------------------

    def create(self, kind: Kind, began_s: float) -> tuple[str, int]:
        """A new empty file: its name and a descriptor, locked. It runs until `close_recording`. Raises OSError."""
        self._disk.require()
        moment = datetime.fromtimestamp(began_s, UTC).strftime("%Y-%m-%d_%H-%M-%S")
        for number in range(1, _MOST_OF_A_SECOND):
            name = f"{moment}{'' if number == 1 else f'-{number}'}{_TAILS[kind]}"
            # Whoever of us sees the file knows that it runs, and does not try its lock.
            with self._lock:
                try:
                    descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                except FileExistsError:
                    continue
                self._running[name] = _Growth()
                self._descriptors[name] = descriptor
            _lock(descriptor, name)
            return name, descriptor
        raise OSError(errno.EEXIST, "too many recordings began in one second")

    def check(self, name: str) -> None:
        """Raises OSError where a running file is not in the folder any more: what is written into it is lost."""
        with self._lock:
            descriptor = self._descriptors[name]
        try:
            is_ours = os.path.samestat((self.folder / name).lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            self.folder.stat()  # its own words where the folder is away
            is_ours = False
        if not is_ours:
            raise FileNotFoundError(errno.ENOENT, "the file was taken away while it was written")

    def check_writable(self) -> None:
        """Raises OSError where no file can be made and written in the folder."""
        self._disk.require()
        with tempfile.TemporaryFile(dir=self.folder, prefix=".") as file:
            file.write(b"x")

    def update_progress(self, name: str, whole: int, duration_s: float | None = None) -> None:
        """So many bytes of a running recording are whole now; a movie is so long with them."""
        with self._lock:
            if name in self._running:
                self._running[name] = _Growth(whole, duration_s)

    def close_recording(self, name: str) -> None:
        """It runs no more; where nothing came of it, it is taken away."""
        with self._lock:
            growth = self._running.pop(name, _Growth())
            self._descriptors.pop(name, None)
        if not growth.whole:
            self._remove(name)

    def add_still(self, picture: bytes, taken_s: float, thumbnail: bytes | None = None) -> Recording:
        """Keep a JPEG. Raises OSError."""
        self.enforce_quota(len(picture) + len(thumbnail or b""))
        name, descriptor = self.create("still", taken_s)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(picture)
                file.flush()
                os.fdatasync(file.fileno())
            self.update_progress(name, len(picture))
            if thumbnail is not None:
                self.set_thumbnail(name, thumbnail)
        finally:
            self.close_recording(name)
        return self.entry(name)

    def add_to_timelapse(self, name: str, number: int, picture: bytes) -> None:
        """A still into the folder of a running time-lapse. Raises OSError."""
        folder = self.folder / _stills_of(name)
        folder.mkdir(mode=0o755, exist_ok=True)
        path = folder / f"{number:06}.jpg"
        part = folder / f".{number:06}.jpg"
        try:
            part.write_bytes(picture)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def set_thumbnail(self, name: str, picture: bytes) -> None:
        """Raises OSError."""
        path = self.folder / _thumbnail_of(name)
        with self._lock:
            self._thumbnails.pop(path.name, None)
        try:
            path.write_bytes(picture)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    # --- what goes out ----------------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Raises NoRecording, RecordingError while it runs."""
        path = self._path(name)
        with self._lock:
            is_running = name in self._running
        if is_running or (path.suffix == ".mp4" and _is_locked(path)):
            raise RecordingError(f"{name} is being written; stop the recording first")
        if not path.exists() and not (_kind_of(name) == "timelapse" and (self.folder / _stills_of(name)).is_dir()):
            raise NoRecording("there is no recording of that name")
        try:
            self._remove(name)
        except OSError as error:
            raise RecordingError(f"{name} cannot be deleted: {error.strerror}") from error

    def enforce_quota(self, needed: int = 0) -> None:
        """See that so many bytes may be written. Raises OSError where the disk, or what we may fill of it, is full.

        With a limit the oldest go, also where the disk is smaller than the limit; without one nothing is ever taken
        away.
        """
        with self._making_room:
            self._disk.require()
            free, reserve = self._disk.free()
            short = needed + reserve - free
            if self.max_bytes is None:
                if short > 0:
                    raise OSError(errno.ENOSPC, f"the disk is full but for {free // 1_000_000} MB")
                return
            sizes = sorted(self._sizes(), key=lambda entry: _order(entry[0]))
            used = sum(size for _, size in sizes)
            self.quota = min(self.max_bytes, max(0, used + free - reserve))
            short = max(short, used + needed - self.max_bytes)
            for name, size in sizes:
                if short <= 0:
                    return
                try:
                    self.delete(name)
                except RecordingError as error:
                    log.debug("%s stays: %s", name, error)
                    continue
                log.info("Deleted %s, the oldest, to make room", name)
                short -= size
            if short > 0:
                raise OSError(errno.ENOSPC, "there is no room, and no older recording that could go")

    def recover(self) -> int:
        """Give files that a crash cut their end and their index; how many there were. Raises OSError."""
        mended = 0
        for name in sorted(entry.name for entry in os.scandir(self.folder)):
            if not name.endswith(".mp4") or not _NAME.fullmatch(name):
                continue
            with self._lock:
                if name in self._running:
                    continue
            try:
                mended += self._recover(name)
            except InvalidMp4 as error:
                log.debug("%s is no movie of ours: %s", name, error)
            except BlockingIOError:
                log.debug("%s is another portal's, which is writing it", name)
            except (OSError, RecordingError) as error:
                log.warning("%s was cut, and stays as it is: %s", name, error)
        return mended

    # --- inside -----------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        """Only names of our own reach the disk. Raises NoRecording."""
        if not _NAME.fullmatch(name):
            raise NoRecording("there is no recording of that name")
        return self.folder / name

    def _entry(self, name: str, shown: set[str]) -> Recording | None:
        try:
            with _open(self.folder / name) as file:
                known = self._read(name, file)
        except RecordingError:  # deleted meanwhile
            return None
        with self._lock:
            growth = self._running.get(name)
        kind = _kind_of(name)
        is_running = growth is not None or (not known.is_finished and _is_locked(self.folder / name))
        return Recording(
            name,
            kind,
            _began_s(name),
            known.duration_s,
            (known.state[1] if growth is None else growth.whole)
            + (self._stills_bytes(name) if kind == "timelapse" else 0),
            known.width,
            known.height,
            is_running,
            _thumbnail_of(name) in shown,
        )

    def _read(self, name: str, file: BinaryIO) -> _Known:
        """What a file tells of itself, read anew when it has changed."""
        told = os.fstat(file.fileno())
        state = (told.st_ino, told.st_size, told.st_mtime_ns)
        with self._lock:
            known, growth = self._known.get(name), self._running.get(name)
        if known is not None and known.state == state:
            return known
        is_same_file = known is not None and known.width is not None and known.state[0] == state[0]
        if known is not None and is_same_file and growth is not None and growth.duration_s is not None:
            # It only grew. To read it anew takes seconds where it has a fragment for each second of a day.
            return replace(known, state=state, duration_s=growth.duration_s)
        try:
            if name.endswith(".jpg"):
                width, height = jpeg.size_of(os.pread(file.fileno(), _JPEG_HEAD, 0))
                known = _Known(state, None, width, height)
            else:
                movie = index.read_mp4(file.fileno())
                known = _Known(state, movie.duration_s, movie.width, movie.height, movie.is_finished, movie.end)
        except (ValueError, OSError):  # no movie, no JPEG, or a disk that fails
            known = _Known(state, is_finished=False)
        with self._lock:
            self._known[name] = known
        return known

    def _sizes(self) -> Iterator[tuple[str, int]]:
        """Names of all recordings and the bytes that each fills; also of stills whose movie is gone."""
        found = list(os.scandir(self.folder))
        names = {entry.name: entry for entry in found}
        with self._lock:
            for gone in self._thumbnails.keys() - names.keys():
                del self._thumbnails[gone]
        for entry in found:
            movie = f"{entry.name}.mp4"
            if movie not in names and _NAME.fullmatch(movie) and _kind_of(movie) == "timelapse":
                if entry.is_dir(follow_symlinks=False):
                    yield movie, self._stills_bytes(movie)
                continue
            if not _NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            try:
                size = entry.stat().st_size + self._thumbnail_bytes(names.get(_thumbnail_of(entry.name)))
            except OSError:  # deleted meanwhile
                continue
            yield entry.name, size + (self._stills_bytes(entry.name) if _kind_of(entry.name) == "timelapse" else 0)

    def _thumbnail_bytes(self, entry: os.DirEntry[str] | None) -> int:
        """Looked up once: no file changes its picture. Raises OSError."""
        if entry is None:
            return 0
        with self._lock:
            known = self._thumbnails.get(entry.name)
        if known is None:
            known = entry.stat(follow_symlinks=False).st_size
            with self._lock:
                self._thumbnails[entry.name] = known
        return known

    def _stills_bytes(self, name: str) -> int:
        """What the stills of a time-lapse fill; counted when one has come or gone since."""
        folder = self.folder / _stills_of(name)
        try:
            changed_ns = folder.stat().st_mtime_ns
            with self._lock:
                known = self._folders.get(name)
            if known is not None and known[0] == changed_ns:
                return known[1]
            size = sum(entry.stat().st_size for entry in os.scandir(folder))
        except OSError:  # there is none, or it is being deleted
            return 0
        with self._lock:
            self._folders[name] = changed_ns, size
        return size

    def _remove(self, name: str) -> None:
        (self.folder / _thumbnail_of(name)).unlink(missing_ok=True)
        if _kind_of(name) == "timelapse":
            shutil.rmtree(self.folder / _stills_of(name), ignore_errors=True)
        (self.folder / name).unlink(missing_ok=True)
        with self._lock:
            self._known.pop(name, None)
            self._folders.pop(name, None)

    def _recover(self, name: str) -> bool:
        with _open(self.folder / name, os.O_RDWR) as file:
            if self._read(name, file).is_finished:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused where another portal is writing it
            movie = index.write_index(file.fileno())
        if not movie.is_finished:
            return False
        log.info("%s was cut; it has its end now, after %.1f s", name, movie.duration_s)
        return True


def _open(path: Path, access: int = os.O_RDONLY) -> BinaryIO:
    """Raises RecordingError, NoRecording for what is no file."""
    try:
        # No link leads out of the folder, and nothing blocks on opening.
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NoRecording("there is no recording of that name") from error
    except OSError as error:
        raise RecordingError(f"{path.name} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoRecording("there is no recording of that name")
    return os.fdopen(descriptor, "rb" if access == os.O_RDONLY else "r+b")


def _lock(descriptor: int, name: str) -> None:
    """Where the file system has locks; those of some networks have none."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another portal just looks whether it is locked
            time.sleep(_LOCK_PAUSE_S)
        except OSError:
            break
        else:
            return
    log.debug("%s cannot be locked", name)


def _is_locked(path: Path) -> bool:
    """Whether somebody is writing it."""
    try:
        with _open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, RecordingError):  # it is gone, or its file system has no locks
        return False
    return False


def _kind_of(name: str) -> Kind:
    if name.endswith(".jpg"):
        return "still"
    return "timelapse" if name.endswith(_TAILS["timelapse"]) else "video"


def _order(name: str) -> tuple[str, int, str]:
    """By when it began; within a second by number."""
    found = _NAME.fullmatch(name)
    number = found[1] if found is not None else None
    return name[:19], int(number[1:]) if number else 1, name


def _began_s(name: str) -> float:
    try:
        return datetime.strptime(name[:19], "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC).timestamp()
    except ValueError:  # the 31st of February, made by hand
        return 0.0


def _thumbnail_of(name: str) -> str:
    return f".{name}.jpg"


def _stills_of(name: str) -> str:
    return name.removesuffix(".mp4")
