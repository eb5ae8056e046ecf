"""The log on standard error, whose reader may stop reading: a terminal that hangs, a pipe into a stopped program.

A write to it would then block the thread that logs, and with it every other thread that logs, up to the whole portal.
So a line that cannot be written at once is waited for only briefly, and lost if the reader does not return; the memory
of the log has it nevertheless.
"""

import contextlib
import logging
import os
import select
import stat
from typing import Final, TextIO

# A pipe that poll() calls writable has room for this much, and so has a socket (pipe(7); net/unix/af_unix.c in Linux).
_CHUNK_BYTES: Final = 4096
_PATIENCE_MS: Final = 200  # once; until the reader returns, nothing else is waited for


class StderrHandler(logging.Handler):
    """Writes records to a stream's file descriptor."""

    def __init__(self, stream: TextIO) -> None:
        """Raises OSError or ValueError if the stream has no file descriptor."""
        super().__init__()
        self._fd = _without_blocking(stream.fileno())
        # The lock of the base class guards these.
        self._lost = 0  # lines since the reader stopped
        self._is_torn = False  # whether the end of a line is missing

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{self.format(record)}\n"
            if self._lost:
                text = f"{self._lost} lines of the log were lost, as standard error was not read\n{text}"
            data = b"\n" * self._is_torn + text.encode("utf-8", "backslashreplace")
            written = self._write(data)
            self._lost = self._lost + 1 if written < len(data) else 0
            if written:
                self._is_torn = data[written - 1 : written] != b"\n"
        except Exception:  # noqa: BLE001 - logging's own way to report it
            self.handleError(record)

    def _write(self, data: bytes) -> int:
        """Returns the number of bytes that were written."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        written = 0
        while written < len(data) and poll.poll(0 if self._lost else _PATIENCE_MS):
            try:
                written += os.write(self._fd, data[written : written + _CHUNK_BYTES])
            except BlockingIOError:
                break
            except OSError:  # nobody will ever read it
                return len(data)
        return written


def log_handler(stream: TextIO | None) -> logging.Handler:
    """The handler for a stream, which is None if it was closed before the process started."""
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            return StderrHandler(stream)
    return logging.StreamHandler(stream)


def _without_blocking(fd: int) -> int:
    """A terminal with its own mode. The mode of `fd` itself also belongs to the shell and to other programs."""
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):  # another user's terminal, as after sudo
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return fd
