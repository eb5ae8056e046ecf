"""A named pipe into which another program writes its video, as a file object for PyAV with a timeout for each read.

FFmpeg itself would block in the kernel until another process opens the other end. No thread is started here.
"""

import os
import select
from pathlib import Path


class Pipe:
    """Reads the pipe, and waits for data at most `timeout_s` each time."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Open the pipe, even without a writer. Raises OSError."""
        self.name = str(path)  # FFmpeg derives the format from the extension
        self._timeout_ms = round(timeout_s * 1000)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none when the writer has closed the pipe. Raises TimeoutError."""
        while self._poll.poll(self._timeout_ms):
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:
                continue  # another reader was faster
        raise TimeoutError(0, "no data")

    def close(self) -> None:
        os.close(self._descriptor)
