"""The folder of recordings, as recorders and the API use it. Starts no thread; any thread may call."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from softcam.errors import NoRecording, RecordingError
from softcam.mp4.index import Mp4Info, read_mp4
from softcam.recording import recovery
from softcam.recording.catalog import Catalog, Recording
from softcam.recording.disk import Disk
from softcam.recording.files import NOT_FOUND, is_locked
from softcam.recording.names import Kind, kind_of, stills_of
from softcam.recording.quota import Quota
from softcam.recording.running import Progress, RunningFiles

log = logging.getLogger(__name__)


class Library:
    """One folder of recordings: creates, lists, deletes and recovers them, and keeps to the size limit."""

    def __init__(self, folder: Path, max_bytes: int | None, read_file: Callable[[int], Mp4Info] = read_mp4) -> None:
        """Creates the folder if possible; it may also appear later, as a USB stick does."""
        self.folder = folder
        self._disk = Disk(folder)
        self._running = RunningFiles(folder)
        self._catalog = Catalog(folder, self._running, read_file)
        self._quota = Quota(self._disk, max_bytes, self._catalog.sizes, self.delete)
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("Recordings folder %s is not available: %s", folder, error.strerror)
        with contextlib.suppress(OSError):
            self._disk.require()

    # --- reading ----------------------------------------------------------------------------------------------

    def entries(self) -> list[Recording]:
        """All recordings, the newest first. Raises OSError if the folder cannot be read."""
        return self._catalog.entries()

    def entry(self, name: str) -> Recording:
        """Raises NoRecording."""
        return self._catalog.entry(name)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The file, and how many of its bytes are complete. Raises NoRecording."""
        return self._catalog.open(name)

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG. Raises NoRecording if there is none."""
        return self._catalog.thumbnail(name)

    def used_bytes(self) -> int:
        """The size of all recordings. Raises OSError."""
        return sum(size for _, size in self._catalog.sizes())

    def free_bytes(self) -> int:
        """What the disk has available for recordings. Raises OSError."""
        return self._disk.free()[0]

    @property
    def max_bytes(self) -> int | None:
        """The configured limit on the size of all recordings."""
        return self._quota.max_bytes

    @property
    def quota(self) -> int | None:
        """The limit in bytes, or what the disk has room for if that is less; None without a limit."""
        return self._quota.limit

    # --- writing ----------------------------------------------------------------------------------------------

    def create(self, kind: Kind, began_s: float) -> tuple[str, int]:
        """A new empty file: its name and a locked descriptor, which the caller closes before `close_recording`.

        Raises OSError.
        """
        self._disk.require()
        return self._running.create(kind, began_s)

    def check(self, name: str) -> None:
        """Raises OSError if a running file is no longer in the folder: then what is written to it is lost."""
        self._running.check(name)

    def check_writable(self) -> None:
        """Raises OSError if no file can be created and written in the folder."""
        self._disk.require()
        with tempfile.TemporaryFile(dir=self.folder, prefix=".") as file:
            file.write(b"x")

    def update_progress(self, name: str, whole: int, duration_s: float | None = None) -> None:
        """`whole` bytes of a running recording are complete, with a duration of `duration_s`."""
        self._running.update(name, Progress(whole, duration_s))

    def close_recording(self, name: str) -> None:
        """The recording is finished; a file without content is removed."""
        if not self._running.remove(name).whole:
            self._catalog.remove(name)

    def add_still(self, picture: bytes, taken_s: float, thumbnail: bytes | None = None) -> Recording:
        """Save a JPEG. Raises OSError."""
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
        """Save a still to the folder of a running time-lapse. Raises OSError."""
        folder = self.folder / stills_of(name)
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
        self._catalog.set_thumbnail(name, picture)

    # --- deleting and recovering ------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Raises NoRecording, and RecordingError while it is being written."""
        path = self._catalog.path(name)
        if self._running.progress(name) is not None or (path.suffix == ".mp4" and is_locked(path)):
            raise RecordingError(f"{name} is being written; stop the recording first")
        if not path.exists() and not (kind_of(name) == "timelapse" and (self.folder / stills_of(name)).is_dir()):
            raise NoRecording(NOT_FOUND)
        try:
            self._catalog.remove(name)
        except OSError as error:
            raise RecordingError(f"{name} cannot be deleted: {error.strerror}") from error

    def enforce_quota(self, needed: int = 0) -> None:
        """Make sure that `needed` bytes may be written, deleting the oldest recordings if there is a limit.

        Raises OSError if the disk or the limit is reached.
        """
        self._quota.enforce(needed)

    def recover(self) -> int:
        """Recover files that a crash interrupted; returns their number. Raises OSError."""
        return recovery.recover(self.folder, self._catalog, self._running)
