"""A named pipe into which another program writes its video, as a file for PyAV with a deadline for each read.

FFmpeg's own way to it hangs in the kernel until somebody opens the other end, maybe for ever. No thread of its own.
"""

import os
import select
from pathlib import Path


class Pipe:
    """Reads what comes, and never waits longer than `limit_s` for it."""

    def __init__(self, path: Path, limit_s: float) -> None:
        """Raises OSError. Nobody has to write into it yet."""
        self.name = str(path)  # its ending tells FFmpeg something of what is in it
        self._limit_ms = round(limit_s * 1000)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Some bytes; none when the writer has closed it. Raises TimeoutError when nothing comes."""
        while self._poll.poll(self._limit_ms):
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:
                continue  # another reader was faster
        raise TimeoutError(0, "nobody writes into it")

    def close(self) -> None:
        os.close(self._descriptor)
