"""The log in files in memory (a tmpfs): what has been written survives the process, however it ends.

A write to a file is in the kernel when it returns, so neither SIGKILL nor a crash loses a line. A file system in memory
does not wait for a disk, so the thread that logs does not either. Two files take turns: one is appended to until it is
full, then the other one is emptied. The caller's lock guards all methods.
"""

import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from softcam.runtime.log.lines import LogLine, decode, encode

FILE_BYTES: Final = 128 * 1024
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: it may be a pipe


class LogFiles:
    """Two files, open and locked until `close`."""

    def __init__(self, folder: Path, name: str, file_bytes: int = FILE_BYTES) -> None:
        """Raises OSError: BlockingIOError if another process uses the files."""
        self._file_bytes = file_bytes
        self._fds: list[int] = []
        self._unwritten = b""  # lines for which the file system had no space; some of them may be in the file
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for number in (0, 1):
                self._fds.append(_open(folder / f"{name}.{number}"))
            contents = [_read(fd, file_bytes) for fd in self._fds]
            halves = [[*decode(content)] for content in contents]
            newest = [half[-1].id if half else 0 for half in halves]
            self._current = newest.index(max(newest))
            self._size = os.fstat(self._fds[self._current]).st_size
        except OSError:
            self.close()
            raise
        # Its last line may be incomplete, and it need not be one of ours.
        self._is_torn = self._size > 0 and not contents[self._current].endswith(b"\n")
        # The lines that were there, in order.
        self.earlier = merge(halves[1 - self._current], halves[self._current])

    def append(self, lines: Iterable[LogLine]) -> None:
        """Raises OSError, such as ENOSPC; the next call continues on a new line, with the lines that are missing."""
        content = encode(lines)
        if len(self._unwritten) + len(content) <= self._file_bytes // 2:
            content = self._unwritten + content
        self._unwritten = content
        if self._size + len(content) > self._file_bytes:
            self._current = 1 - self._current
            os.ftruncate(self._fds[self._current], 0)
            self._size, self._is_torn = 0, False
        if self._is_torn:
            content = b"\n" + content
        self._is_torn = True
        written = os.pwrite(self._fds[self._current], content, self._size)
        self._size += written
        self._is_torn = written < len(content)
        if not self._is_torn:
            self._unwritten = b""

    def discard(self) -> None:
        """Empty both files. Raises OSError."""
        for fd in self._fds:
            os.ftruncate(fd, 0)
        self.earlier, self._size, self._is_torn = [], 0, False

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def read_tail(path: Path, max_bytes: int) -> bytes:
    """The last `max_bytes` of a file; empty if it cannot be read. Does not wait, whatever kind of file it is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return _read(fd, max_bytes)
    except OSError:
        return b""
    finally:
        os.close(fd)


def merge(older: list[LogLine], newer: list[LogLine]) -> list[LogLine]:
    """Both, without what the second one has too."""
    if not newer:
        return older
    return [line for line in older if line.id < newer[0].id] + newer


def _open(path: Path) -> int:
    fd = os.open(path, _FLAGS, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a file")
        os.fchmod(fd, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _read(fd: int, max_bytes: int) -> bytes:
    size = os.fstat(fd).st_size
    return os.pread(fd, max_bytes, max(0, size - max_bytes))
