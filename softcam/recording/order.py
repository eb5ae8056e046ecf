"""The order in which recordings ended, whatever the clock said: kept in a hidden file of the folder, a name per line.

A Raspberry Pi has no clock that survives a power cut, so names and times of files may be years off. Recordings that the
file does not list were copied in, or are older than the file: they count as the newest at the moment they are found.
Portals that share the folder append to the same file; the last line of a name counts. Any thread may call.
"""

import errno
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from softcam.recording import names
from softcam.runtime.atomic_file import GROUP_FILE, remove_part, write_file

log = logging.getLogger(__name__)


class Order:
    """The order of one folder.

    If its file cannot be written, this process still knows what it has seen, and writes it with the next call.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".order"
        self._lock = threading.Lock()  # guards the fields below, and the file
        self._places: dict[str, int] = {}
        self._next = 0
        self._unsaved: list[str] = []  # what could not be appended to the file
        self._read_to: tuple[int, int] = 0, 0  # inode of the file, and the bytes of it that were read

    def append(self, ended: Iterable[str]) -> None:
        """These recordings end now, in this order."""
        with self._lock:
            self._read()
            self._append(ended)

    def arrange(self, present: set[str]) -> list[str]:
        """The names, the first to end first."""
        with self._lock:
            self._read()
            self._append(sorted(present - self._places.keys(), key=names.sort_key))
            return sorted(present, key=self._places.__getitem__)

    def forget_others(self, present: set[str]) -> None:
        """Remove the lines of recordings that no longer exist, if the disk permits it."""
        with self._lock:
            remove_part(self._path)
            self._read()
            if len(self._places) > len(present):
                known = sorted(self._places.keys() & present, key=self._places.__getitem__)
                try:
                    write_file(self._path, "".join(f"{name}\n" for name in known).encode())
                except OSError as error:
                    log.debug("Order of recordings not shortened: %s", error)
                    return
                self._places.clear()
                self._unsaved.clear()

    def _append(self, ended: Iterable[str]) -> None:
        for name in ended:
            self._set(name)
            self._unsaved.append(name)
        if not self._unsaved:
            return
        lines = "".join(f"\n{name}" for name in self._unsaved)  # a line that a power cut has cut off ends here
        content = f"{lines}\n".encode()
        try:
            with open(self._path, "ab", buffering=0, opener=_open) as file:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            log.debug("Order of recordings not saved: %s", error)
        else:
            self._unsaved.clear()

    def _set(self, name: str) -> None:
        self._places[name] = self._next
        self._next += 1

    def _read(self) -> None:
        """What was appended since the last time; an incomplete line at the end is read again."""
        try:
            with open(self._path, "rb", opener=_open) as file:
                inode, done = self._read_to
                status = os.fstat(file.fileno())
                file.seek(done if status.st_ino == inode and status.st_size >= done else 0)
                begin = file.tell()
                content = file.read()
        except OSError:  # missing, or the disk fails
            return
        whole = content.rfind(b"\n") + 1
        self._read_to = status.st_ino, begin + whole
        for line in content[:whole].decode(errors="replace").split("\n"):
            if names.is_recording(line):
                self._set(line)


def _open(path: str, flags: int) -> int:
    """Without waiting for the other end of a pipe, and not through a link, which could lead to a device."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, GROUP_FILE)
