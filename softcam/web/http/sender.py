"""Writes whole answers: a header, and behind it bytes or a part of a file. Runs on the thread of the request.

The limit is on standstill, not on the whole: a large file over a slow line takes its time. What counts is what the
other side has acknowledged, since the kernel takes megabytes at once and is then silent for long.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Sequence
from typing import Final

from softcam.web.http.messages import FileResponse

_PIECE: Final = 1 << 20  # bytes for one call: while it reads a slow disk, the thread cannot look at the clock
# Within one limit at least so much has to arrive. Less is no line that anybody has, and each answer costs a thread.
_LEAST: Final = 4096
_WAIT_MS: Final = 1000  # a socket counts as writable only when a good part of its buffer is free: look now and then


class ResponseWriter:
    """Sends one answer. Raises TimeoutError when the other side takes next to nothing for `limit_s`."""

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        connection.settimeout(0)  # with a timeout every call would wait by itself
        self._connection = connection
        self._limit_s = limit_s
        self._sent = -self._unacknowledged()  # what was on its way before is no progress of ours
        self._arrived = 0
        self._deadline_s = time.monotonic() + limit_s
        self._poll = select.poll()
        self._poll.register(connection, select.POLLOUT)

    def send(self, *pieces: bytes) -> None:
        """All pieces, together as long as the kernel takes them: a header that travels alone waits for an answer."""
        left: Sequence[memoryview] = [memoryview(piece) for piece in pieces if piece]
        while left:
            try:
                taken = self._connection.sendmsg(left)
            except BlockingIOError:
                self._wait()
                continue
            self._count(taken)
            while left and taken >= len(left[0]):
                taken -= len(left[0])
                left = left[1:]
            if taken:
                left = [left[0][taken:], *left[1:]]

    def send_file(self, header: bytes, part: FileResponse) -> None:
        """Raises ConnectionAbortedError where the file is shorter than was said."""
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            self.send(header)
            self._send_bytes(part)
        finally:
            # Also sends what is left over.
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _send_bytes(self, part: FileResponse) -> None:
        source, target = part.file.fileno(), self._connection.fileno()
        at, end = part.begin, part.begin + part.length
        while at < end:
            try:
                taken = os.sendfile(target, source, at, min(end - at, _PIECE))
            except BlockingIOError:
                self._wait()
                continue
            if not taken:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            at += taken
            self._count(taken)

    def _wait(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        self._poll.poll(min(_WAIT_MS, max(1, int(left_s * 1000) + 1)))
        self._look()

    def _count(self, taken: int) -> None:
        self._sent += taken
        self._look()

    def _look(self) -> None:
        now_s = time.monotonic()
        arrived = self._sent - self._unacknowledged()
        if arrived - self._arrived >= _LEAST:
            self._arrived = arrived
            self._deadline_s = now_s + self._limit_s
        elif now_s >= self._deadline_s:
            raise TimeoutError(errno.ETIMEDOUT, f"the client took {arrived - self._arrived} bytes in {self._limit_s} s")

    def _unacknowledged(self) -> int:
        """How many bytes the kernel has, or has sent and heard nothing of."""
        told = fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        count: int = struct.unpack("i", told)[0]
        return count
