"""System calls that keep the interpreter lock, for the event loop: send, and the wake-up through an eventfd.

`socket.send` releases the lock, and beside one busy Python thread (a frame hook) gets it back a switch interval later:
once per client. These calls cannot block, so no other thread has to wait for them. No thread here.
"""

import ctypes
import socket
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

FdArray = npt.NDArray[np.int32]

# No argtypes: converting by them costs more than the rest of a call. What is not an int or bytes is passed as a C type.
libc = ctypes.PyDLL(None, use_errno=True)
_send = libc.send
_send.restype = ctypes.c_ssize_t
_write = libc.write
_write.restype = ctypes.c_ssize_t

# The kernel accepts no more while that many bytes are unsent: the next part of a throttled client is then a new one,
# not one that waited in megabytes of socket buffer. socket.TCP_NOTSENT_LOWAT exists since Python 3.12; the number is
# that of tcp(7).
_TCP_NOTSENT_LOWAT: Final = 25
_NOTSENT_BYTES: Final = 16384
SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_ONE: Final = (1).to_bytes(8, sys.byteorder)
_ONE_BYTES: Final = ctypes.c_size_t(len(_ONE))


def prepare_stream(connection: socket.socket) -> None:
    """Send small parts at once, and keep little in the buffer of a TCP connection. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)


def signal_eventfd(fd: int) -> None:
    """Increment an eventfd, which wakes the thread that waits for it."""
    _write(fd, _ONE, _ONE_BYTES)


def send(fd: int, part: bytes, start: int = 0) -> int:
    """Send what the kernel accepts of `part` from byte `start` on; returns the number of bytes, or a negative errno."""
    # The rest of a part is passed by its address: a slice would be a copy of it.
    data = ctypes.c_void_p(address_of(part) + start) if start else part
    sent: int = _send(fd, data, ctypes.c_size_t(len(part) - start), SEND_FLAGS)
    return sent if sent >= 0 else -ctypes.get_errno()


def send_to_each(fds: Sequence[int], part: bytes) -> list[tuple[int, int]]:
    """`send` the part to each of the sockets; returns (index, result) of those that did not accept all of it."""
    size = len(part)
    c_size = ctypes.c_size_t(size)
    partial = []
    for index, fd in enumerate(fds):
        sent = _send(fd, part, c_size, SEND_FLAGS)
        if sent != size:
            partial.append((index, sent if sent >= 0 else -ctypes.get_errno()))
    return partial


def address_of(part: bytes) -> int:
    """The address of the bytes of `part`, valid while there is a reference to it."""
    return ctypes.cast(ctypes.c_char_p(part), ctypes.c_void_p).value or 0
