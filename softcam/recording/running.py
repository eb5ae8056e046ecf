"""The files that this process is writing, and how far each of them is complete. Any thread may call."""

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from softcam.recording.files import lock_file
from softcam.recording.names import MAX_PER_SECOND, Kind, format_name


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is complete, as reported by its writer."""

    whole: int = 0  # bytes
    duration_s: float | None = None


class RunningFiles:
    """Creates the files of one folder and keeps track of them until they are closed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # guards both
        self._progress: dict[str, Progress] = {}
        self._descriptors: dict[str, int] = {}

    def create(self, kind: Kind, began_s: float) -> tuple[str, int]:
        """A new empty file: its name and a locked descriptor, which the caller closes. Raises OSError."""
        for number in range(1, MAX_PER_SECOND + 1):
            name = format_name(kind, began_s, number)
            # Under the lock: a thread of this process that finds the file knows that it runs, and skips its lock.
            with self._lock:
                try:
                    descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                except FileExistsError:
                    continue
                self._progress[name] = Progress()
                self._descriptors[name] = descriptor
            lock_file(descriptor, name)
            return name, descriptor
        raise OSError(errno.EEXIST, "too many recordings start in one second")

    def progress(self, name: str) -> Progress | None:
        """None for a file that this process is not writing."""
        with self._lock:
            return self._progress.get(name)

    def update(self, name: str, progress: Progress) -> None:
        with self._lock:
            if name in self._progress:
                self._progress[name] = progress

    def check(self, name: str) -> None:
        """Raises OSError if the file is no longer in the folder: then what is written to it is lost."""
        with self._lock:
            descriptor = self._descriptors[name]
        try:
            is_same = os.path.samestat((self._folder / name).lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            self._folder.stat()  # raises its own error if the folder is missing
            is_same = False
        if not is_same:
            raise FileNotFoundError(errno.ENOENT, "the file was removed while it was written")

    def remove(self, name: str) -> Progress:
        """Stop tracking the file; returns its last progress."""
        with self._lock:
            self._descriptors.pop(name, None)
            return self._progress.pop(name, Progress())
