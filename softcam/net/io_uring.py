"""One part to many sockets by one system call, through io_uring(7), with plain sends as the fallback.

Layouts and numbers: include/uapi/linux/io_uring.h, the same on every architecture. Why it is worth having, and what was
not chosen: docs/decisions/0013. No thread here; an `IoUringSender` and a `BatchSender` belong to one thread at a time.
"""

import ctypes
import errno
import logging
import mmap
import os
import socket
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from softcam.net import sockets
from softcam.net.sockets import SEND_FLAGS, FdArray, address_of, send

log = logging.getLogger(__name__)

# With fewer sockets plain sends are as cheap as filling a ring and reading it.
_MIN_RING_SOCKETS: Final = 32
_RING_ENTRIES: Final = 256  # sends per system call; more sockets take several calls

syscall = sockets.libc.syscall
syscall.restype = ctypes.c_long

SETUP: Final = 425  # io_uring_setup
ENTER: Final = 426  # io_uring_enter
_OP_SEND: Final = 26
_SINGLE_MMAP: Final = 1  # both rings in one mapping, since Linux 5.4
_OFFSET_SQES: Final = 0x1000_0000
_32_BITS: Final = 0xFFFF_FFFF

# Positions of the 32-bit fields of io_uring_params; those with _AT hold offsets in the mapping.
_PARAMETERS: Final = 30
_SQ_ENTRIES, _CQ_ENTRIES, _FEATURES = 0, 1, 5
_SQ_TAIL_AT, _SQ_ARRAY_AT, _CQ_HEAD_AT, _CQ_TAIL_AT, _CQ_CQES_AT = 11, 16, 20, 21, 25
_SUBMISSION: Final = np.dtype(
    {
        "names": ["opcode", "fd", "addr", "len", "msg_flags", "user_data"],
        "formats": ["u1", "i4", "u8", "u4", "u4", "u8"],
        "offsets": [0, 4, 16, 24, 28, 32],
        "itemsize": 64,
    }
)
_COMPLETION: Final = np.dtype([("user_data", "u8"), ("res", "i4"), ("flags", "u4")])
_NO_SIZE: Final = ctypes.c_size_t(0)


class IoUringSender:
    """Sends one part to many sockets by one system call, through a dedicated io_uring.

    No Python code runs between two sends. Each send is done within the call or not at all (one that would have to wait
    returns EAGAIN), so no operation is pending and no memory is in use after `send_to_each` returned. What stays the
    same from part to part is written once: a thread that runs once per frame finds its caches cold, and each numpy call
    then costs some microseconds.
    """

    def __init__(self, entries: int, *, syscall: Callable[..., int] = syscall, send_opcode: int = _OP_SEND) -> None:
        """`entries`, a power of two, is the number of sends per system call; more sockets take several calls.

        Raises OSError where the kernel provides no ring that sends: too old, or forbidden by its settings or a sandbox.
        """
        self._syscall = syscall
        self._send_opcode = send_opcode
        params = (ctypes.c_uint32 * _PARAMETERS)()
        self._ring_fd: int = syscall(SETUP, entries, params)
        if self._ring_fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup: " + os.strerror(ctypes.get_errno()))
        try:
            self._map(params)
        except BaseException:
            os.close(self._ring_fd)
            raise
        self._prepared: FdArray | None = None  # the array that the submissions were written for
        self._submitted = 0  # since the start; positions in the queues are this number modulo their sizes
        self._completed = 0
        self.has_failed = False  # the kernel reported no result for a send: this ring must not be used again
        try:
            self._send_test_byte()
        except BaseException:
            self.close()
            raise

    def send_to_each(self, fds: FdArray, part: bytes) -> list[tuple[int, int]]:
        """As `sockets.send_to_each`. Fastest with the same array object as before, which must not be modified."""
        if len(fds) <= self._entries:
            return self._send(fds, part)
        partial = []
        for start in range(0, len(fds), self._entries):
            results = self._send(fds[start : start + self._entries], part)
            partial += [(start + index, sent) for index, sent in results]
        return partial

    def close(self) -> None:
        # Views refer to the mappings, which cannot be closed before them.
        del self._fd, self._addr, self._len, self._results
        for view in (self._order, self._words):
            view.release()
        self._rings.close()
        self._submissions.close()
        os.close(self._ring_fd)

    def _map(self, params: "ctypes.Array[ctypes.c_uint32]") -> None:
        if not params[_FEATURES] & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "io_uring needs Linux 5.4")
        sq, cq = params[_SQ_ENTRIES], params[_CQ_ENTRIES]
        order_at, results_at = params[_SQ_ARRAY_AT], params[_CQ_CQES_AT]
        size = max(order_at + 4 * sq, results_at + _COMPLETION.itemsize * cq)
        how = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._rings = mmap.mmap(self._ring_fd, size, how)
        self._submissions = mmap.mmap(self._ring_fd, sq * _SUBMISSION.itemsize, how, offset=_OFFSET_SQES)
        # The kernel reads and writes these only within io_uring_enter, on this thread, so no barriers are needed.
        self._words = memoryview(self._rings).cast("I")
        self._sq_tail, self._cq_head, self._cq_tail = (
            params[at] // 4 for at in (_SQ_TAIL_AT, _CQ_HEAD_AT, _CQ_TAIL_AT)
        )
        self._order = self._words[order_at // 4 : order_at // 4 + sq]
        # Two rounds of 0, 1, 2 …: a slice from any position is the order in which that position is the first one.
        self._orders = memoryview(np.tile(np.arange(sq, dtype=np.uint32), 2).tobytes()).cast("I")
        self._results = np.frombuffer(self._rings, _COMPLETION, cq, results_at)
        submissions = np.frombuffer(self._submissions, _SUBMISSION, sq)
        submissions["opcode"] = self._send_opcode
        submissions["msg_flags"] = SEND_FLAGS
        submissions["user_data"] = np.arange(sq)
        self._fd, self._addr, self._len = submissions["fd"], submissions["addr"], submissions["len"]
        self._entries = sq

    def _send_test_byte(self) -> None:
        """Raises OSError where the ring does not send: before Linux 5.6, or where a sandbox forbids io_uring_enter.

        Without this test clients would be disconnected: an unknown operation fails as if the peer had closed.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if self._send(np.array([ours.fileno()], np.int32), b"?") or not self._submitted:
                raise OSError(errno.EOPNOTSUPP, "io_uring does not send")

    def _send(self, fds: FdArray, part: bytes) -> list[tuple[int, int]]:
        count, size, entries = len(fds), len(part), self._entries
        if fds is not self._prepared:
            self._fd[:count] = fds
            self._prepared = fds
        self._addr[:count] = address_of(part)
        self._len[:count] = size
        first_send, words = self._submitted, self._words
        turn = -first_send % entries
        self._order[:] = self._orders[turn : turn + entries]
        words[self._sq_tail] = (first_send + count) & _32_BITS
        taken = max(self._syscall(ENTER, self._ring_fd, count, 0, 0, None, _NO_SIZE), 0)
        self._submitted = first_send + taken
        if taken != count:  # the kernel had no memory for the rest, which was not started
            words[self._sq_tail] = self._submitted & _32_BITS
        done = (words[self._cq_tail] - self._completed) & _32_BITS
        first = self._completed % len(self._results)
        finished = self._results[first : first + done]
        if len(finished) < done:
            finished = np.concatenate([finished, self._results[: done - len(finished)]])
        is_all = done == count and bool((finished["res"] == size).all())
        partial = [] if is_all else self._partial_results(fds, part, taken, finished)
        self._completed += done
        words[self._cq_head] = self._completed & _32_BITS
        return partial

    def _partial_results(
        self, fds: FdArray, part: bytes, taken: int, finished: npt.NDArray[np.void]
    ) -> list[tuple[int, int]]:
        results = np.full(len(fds), -errno.EIO, np.int32)
        results[finished["user_data"]] = finished["res"]
        self.has_failed |= len(finished) != taken
        for index in range(taken, len(fds)):
            results[index] = send(int(fds[index]), part)
        return [(index, int(results[index])) for index in np.flatnonzero(results != len(part)).tolist()]


class BatchSender:
    """Sends parts to many sockets: through a ring where there are enough of them and the kernel allows it."""

    def __init__(
        self, min_ring_sockets: float = _MIN_RING_SOCKETS, make_ring: Callable[[int], IoUringSender] = IoUringSender
    ) -> None:
        """A ring is used from `min_ring_sockets` sockets on; created with the first such batch."""
        self._min_ring_sockets = min_ring_sockets
        self._make_ring = make_ring
        self._ring: IoUringSender | None = None

    def send_to_each(self, fds: list[int], fd_array: FdArray, part: bytes) -> list[tuple[int, int]]:
        """As `sockets.send_to_each`; the sockets in two forms, of which each way of sending needs one."""
        if len(fds) < self._min_ring_sockets:
            return sockets.send_to_each(fds, part)
        if self._ring is None:
            try:
                self._ring = self._make_ring(_RING_ENTRIES)
            except OSError as error:
                self._disable_ring(f"unavailable, using send(): {error}", logging.INFO)
                return sockets.send_to_each(fds, part)
        partial = self._ring.send_to_each(fd_array, part)
        if self._ring.has_failed:
            self._disable_ring("failed, using send(): some sends have no result", logging.ERROR)
        return partial

    def release_ring(self) -> None:
        """Release the ring, if there is one; the next batch creates a new one."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _disable_ring(self, reason: str, level: int) -> None:
        self.release_ring()
        self._min_ring_sockets = float("inf")
        log.log(level, "io_uring %s", reason)
