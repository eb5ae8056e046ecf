"""System calls that keep the interpreter's lock, for the fan-out: send, poke, and one send to many sockets at once.

`socket.send` gives the lock up, and beside one busy Python thread (a frame hook) has it back a switch interval later:
once for every viewer. These calls cannot block, so nobody waits for them. No thread in here; a `IoUringSender`
belongs to one.
"""

import ctypes
import errno
import mmap
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Descriptors = npt.NDArray[np.int32]

# No argtypes: converting by them costs more than the rest of a call. What is no int or bytes comes as a C type.
_libc = ctypes.PyDLL(None, use_errno=True)
_send = _libc.send
_send.restype = ctypes.c_ssize_t
_write = _libc.write
_write.restype = ctypes.c_ssize_t
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_ONE: Final = (1).to_bytes(8, sys.byteorder)
_ONE_BYTES: Final = ctypes.c_size_t(len(_ONE))


def poke(event: int) -> None:
    """Count an eventfd up, which wakes who waits for it."""
    _write(event, _ONE, _ONE_BYTES)


def send(descriptor: int, part: bytes, at: int = 0) -> int:
    """Send what the kernel takes now of `part`, from byte `at` on: how many bytes, or minus the error's number."""
    # The rest of a part goes by its address: a slice would be a copy of it.
    start = ctypes.c_void_p(_address(part) + at) if at else part
    sent: int = _send(descriptor, start, ctypes.c_size_t(len(part) - at), _SEND_FLAGS)
    return sent if sent >= 0 else -ctypes.get_errno()


def send_to_each(descriptors: Sequence[int], part: bytes) -> list[tuple[int, int]]:
    """`send` the part to each of the sockets: (place, result) of those that did not take all of it."""
    size = len(part)
    size_in_c = ctypes.c_size_t(size)
    short = []
    for place, descriptor in enumerate(descriptors):
        sent = _send(descriptor, part, size_in_c, _SEND_FLAGS)
        if sent != size:
            short.append((place, sent if sent >= 0 else -ctypes.get_errno()))
    return short


def _address(part: bytes) -> int:
    """Where the bytes of `part` lie, good for as long as somebody holds it."""
    return ctypes.cast(ctypes.c_char_p(part), ctypes.c_void_p).value or 0


# --- io_uring(7). Layouts and numbers: include/uapi/linux/io_uring.h, the same on every architecture.

_SETUP: Final = 425
_ENTER: Final = 426
_OP_SEND: Final = 26
_SINGLE_MMAP: Final = 1  # both rings in one mapping, since Linux 5.4
_OFFSET_SQES: Final = 0x1000_0000
_32_BITS: Final = 0xFFFF_FFFF

_PARAMETERS: Final = np.dtype(
    [
        ("sq_entries", "u4"),
        ("cq_entries", "u4"),
        ("flags", "u4"),
        ("sq_thread_cpu", "u4"),
        ("sq_thread_idle", "u4"),
        ("features", "u4"),
        ("wq_fd", "u4"),
        ("reserved", "u4", 3),
        # Where these lie in the mapping.
        *((f"sq_{name}_at", "u4") for name in ("head", "tail", "mask", "entries", "flags", "dropped", "array")),
        ("sq_reserved", "u4", 3),
        *((f"cq_{name}_at", "u4") for name in ("head", "tail", "mask", "entries", "overflow", "cqes", "flags")),
        ("cq_reserved", "u4", 3),
    ]
)
_SUBMISSION: Final = np.dtype(
    [
        ("opcode", "u1"),
        ("flags", "u1"),
        ("ioprio", "u2"),
        ("fd", "i4"),
        ("off", "u8"),
        ("addr", "u8"),
        ("len", "u4"),
        ("msg_flags", "u4"),
        ("user_data", "u8"),
        ("rest", "u8", 3),
    ]
)
_COMPLETION: Final = np.dtype([("user_data", "u8"), ("res", "i4"), ("flags", "u4")])
_NO_SIZE: Final = ctypes.c_size_t(0)


class IoUringSender:
    """Sends one part to many sockets by one system call, through an io_uring of its own.

    No Python runs between two sends. Each is made within the call or not at all (what would have to wait ends with
    EAGAIN), so nothing is ever under way, and no memory is used, after `send_to_each` returned. What stays the same
    from part to part is written once: whose turn comes between two frames finds its caches cold, and each call of
    numpy then costs some microseconds. For one thread at a time.
    """

    def __init__(self, entries: int) -> None:
        """`entries`, a power of two: so many sends are in one call, and more take several.

        Raises OSError where the kernel has no ring to give: too old, or forbidden by its settings or a sandbox.
        """
        told = np.zeros(1, _PARAMETERS)
        self._descriptor: int = _syscall(_SETUP, entries, ctypes.c_void_p(told.ctypes.data))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup: " + os.strerror(ctypes.get_errno()))
        try:
            self._map(told[0])
        except BaseException:
            os.close(self._descriptor)
            raise
        self._prepared: Descriptors | None = None  # whom the submissions are written for
        self._submitted = 0  # since the beginning; places in the queues are this, modulo their sizes
        self._completed = 0
        self.has_failed = False  # the kernel kept silent on a send: this ring is of no more use
        try:
            self._try_out()
        except BaseException:
            self.close()
            raise

    def send_to_each(self, descriptors: Descriptors, part: bytes) -> list[tuple[int, int]]:
        """As the function of that name. It is quickest with the very same array as before, which must not change."""
        if len(descriptors) <= self._entries:
            return self._send(descriptors, part)
        short = []
        for start in range(0, len(descriptors), self._entries):
            some = self._send(descriptors[start : start + self._entries], part)
            short += [(start + place, sent) for place, sent in some]
        return short

    def close(self) -> None:
        """Give all of it back to the kernel."""
        # Views point into the mappings, which cannot be closed before these are gone.
        del self._fd, self._addr, self._len, self._results
        for view in (self._order, self._words):
            view.release()
        self._rings.close()
        self._submissions.close()
        os.close(self._descriptor)

    def _map(self, told: Any) -> None:
        if not told["features"] & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "the kernel's io_uring is older than Linux 5.4")
        sq, cq = int(told["sq_entries"]), int(told["cq_entries"])
        order_at, results_at = int(told["sq_array_at"]), int(told["cq_cqes_at"])
        size = max(order_at + 4 * sq, results_at + _COMPLETION.itemsize * cq)
        how = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._rings = mmap.mmap(self._descriptor, size, how)
        self._submissions = mmap.mmap(self._descriptor, sq * _SUBMISSION.itemsize, how, offset=_OFFSET_SQES)
        # What this process writes the kernel reads in io_uring_enter alone, and the other way round: in one thread,
        # one after the other, so no barriers are needed.
        self._words = memoryview(self._rings).cast("I")
        self._sq_tail, self._cq_head, self._cq_tail = (
            int(told[name]) // 4 for name in ("sq_tail_at", "cq_head_at", "cq_tail_at")
        )
        self._order = self._words[order_at // 4 : order_at // 4 + sq]
        # Two rounds of 0, 1, 2 …: from any place on, it is the order that begins there with the first submission.
        self._orders = memoryview(np.tile(np.arange(sq, dtype=np.uint32), 2).tobytes()).cast("I")
        self._results = np.frombuffer(self._rings, _COMPLETION, cq, results_at)
        submissions = np.frombuffer(self._submissions, _SUBMISSION, sq)
        submissions["opcode"] = _OP_SEND
        submissions["msg_flags"] = _SEND_FLAGS
        submissions["user_data"] = np.arange(sq)
        self._fd, self._addr, self._len = submissions["fd"], submissions["addr"], submissions["len"]
        self._entries = sq

    def _try_out(self) -> None:
        """Raises OSError where there is a ring that does not send: before Linux 5.6, or with its calls half forbidden.

        Without this, viewers would pay for it: a send that the kernel does not know fails as if they had left.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if self._send(np.array([ours.fileno()], np.int32), b"?") or not self._submitted:
                raise OSError(errno.EOPNOTSUPP, "this kernel's io_uring does not send")

    def _send(self, descriptors: Descriptors, part: bytes) -> list[tuple[int, int]]:
        count, size, entries = len(descriptors), len(part), self._entries
        if descriptors is not self._prepared:
            self._fd[:count] = descriptors
            self._prepared = descriptors
        self._addr[:count] = _address(part)
        self._len[:count] = size
        began, words = self._submitted, self._words
        turn = -began % entries
        self._order[:] = self._orders[turn : turn + entries]
        words[self._sq_tail] = (began + count) & _32_BITS
        taken = max(_syscall(_ENTER, self._descriptor, count, 0, 0, None, _NO_SIZE), 0)
        self._submitted = began + taken
        if taken != count:  # it had no memory for the rest, which was not begun
            words[self._sq_tail] = self._submitted & _32_BITS
        done = (words[self._cq_tail] - self._completed) & _32_BITS
        first = self._completed % len(self._results)
        finished = self._results[first : first + done]
        if len(finished) < done:
            finished = np.concatenate([finished, self._results[: done - len(finished)]])
        is_all = done == count and bool((finished["res"] == size).all())
        short = [] if is_all else self._short(descriptors, part, taken, finished)
        self._completed += done
        words[self._cq_head] = self._completed & _32_BITS
        return short

    def _short(
        self, descriptors: Descriptors, part: bytes, taken: int, finished: npt.NDArray[np.void]
    ) -> list[tuple[int, int]]:
        results = np.full(len(descriptors), -errno.EIO, np.int32)
        results[finished["user_data"]] = finished["res"]
        self.has_failed |= len(finished) != taken
        for place in range(taken, len(descriptors)):
            results[place] = send(int(descriptors[place]), part)
        return [(place, int(results[place])) for place in np.flatnonzero(results != len(part)).tolist()]
