"""Writes responses of known length: a header, followed by bytes or a part of a file. Runs on the request thread.

The timeout is for a stalled transfer, not for the whole: a large file over a slow line may take long. Progress is what
the client has acknowledged: the kernel buffers megabytes at once, and then blocks for long.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Final

from softcam.web.http.messages import FileResponse

_MAX_CHUNK: Final = 1 << 20  # bytes per sendfile() call, which cannot time out while it reads a slow disk
# Bytes that the client must acknowledge within the timeout. No usable line is slower, and each response costs a thread.
_MIN_PROGRESS: Final = 4096
_POLL_MS: Final = 1000  # a socket is writable only once much of its buffer is free: check progress in between


class ResponseWriter:
    """Sends one response. Raises TimeoutError if the client acknowledges next to nothing for `timeout_s`."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        connection.settimeout(0)  # with a timeout, every call would block
        self._connection = connection
        self._timeout_s = timeout_s
        self._sent = -self._unacknowledged()  # bytes of the previous response do not count
        self._arrived = 0
        self._deadline_s = time.monotonic() + timeout_s
        self._poll = select.poll()
        self._poll.register(connection, select.POLLOUT)

    def send(self, header: bytes, body: bytes | FileResponse = b"") -> None:
        """Send a header and a body. Raises ConnectionAbortedError if the file of the body became shorter."""
        length = body.length if isinstance(body, FileResponse) else len(body)
        # Sent alone, the header would delay the body until it is acknowledged.
        self._send_bytes(header, socket.MSG_MORE if length else 0)
        if isinstance(body, FileResponse):
            for part in body.parts():
                if isinstance(part, bytes):
                    self._send_bytes(part)
                else:
                    self._send_file(body.file.fileno(), *part)
        else:
            self._send_bytes(body)

    def _send_file(self, source: int, begin: int, end: int) -> None:
        target, length = self._connection.fileno(), end - begin
        self._send_all(lambda at: os.sendfile(target, source, begin + at, min(length - at, _MAX_CHUNK)), length)

    def _send_bytes(self, content: bytes, flags: int = 0) -> None:
        view = memoryview(content)
        self._send_all(lambda at: self._connection.send(view[at:], flags), len(content))

    def _send_all(self, send_from: Callable[[int], int], length: int) -> None:
        at = 0
        while at < length:
            try:
                sent = send_from(at)
            except BlockingIOError:
                left_s = self._deadline_s - time.monotonic()
                self._poll.poll(min(_POLL_MS, max(1, int(left_s * 1000) + 1)))
            else:
                if not sent:
                    raise ConnectionAbortedError("the file became shorter while being sent")
                at += sent
                self._sent += sent
            self._check_progress()

    def _check_progress(self) -> None:
        now_s = time.monotonic()
        arrived = self._sent - self._unacknowledged()
        if arrived - self._arrived >= _MIN_PROGRESS:
            self._arrived = arrived
            self._deadline_s = now_s + self._timeout_s
        elif now_s >= self._deadline_s:
            raise TimeoutError(
                errno.ETIMEDOUT, f"the client acknowledged {arrived - self._arrived} bytes in {self._timeout_s} s"
            )

    def _unacknowledged(self) -> int:
        """Bytes in the kernel's send buffer, unsent or unacknowledged."""
        packed = fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", packed)[0])
