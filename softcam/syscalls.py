"""System calls that keep the interpreter's lock, for the fan-out: send, poke, and one send to many sockets at once.

`socket.send` gives the lock up, and beside one busy Python thread (a frame hook) has it back a switch interval later:
once for every viewer. These calls cannot block, so nobody waits for them. No thread in here; a `SendRing` belongs to
one.
"""

import ctypes
import errno
import mmap
import os
import socket
import sys
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


def send_to_each(descriptors: Descriptors, part: bytes) -> list[tuple[int, int]]:
    """`send` the part to each of the sockets: (place, result) of those that did not take all of it."""
    size = len(part)
    size_in_c = ctypes.c_size_t(size)
    short = []
    for place, descriptor in enumerate(descriptors.tolist()):
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


class SendRing:
    """Sends one part to many sockets by one system call, through an io_uring of its own.

    As cheap as a loop in C: no Python runs between two sends. Each is made within the call or not at all (what would
    have to wait ends with EAGAIN), so nothing is ever under way, and no memory is used, after `send_to_each` returned.
    For one thread at a time.
    """

    def __init__(self, entries: int) -> None:
        """Raises OSError where the kernel has none to give: too old, or forbidden by its settings or a sandbox."""
        told = np.zeros(1, _PARAMETERS)
        self._descriptor: int = _syscall(_SETUP, entries, ctypes.c_void_p(told.ctypes.data))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup: " + os.strerror(ctypes.get_errno()))
        try:
            self._map(told[0])
        except BaseException:
            os.close(self._descriptor)
            raise

    def _map(self, told: Any) -> None:
        if not told["features"] & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "the kernel's io_uring is older than Linux 5.4")
        self._entries = int(told["sq_entries"])
        cq_entries = int(told["cq_entries"])
        size = max(told["sq_array_at"] + self._entries * 4, told["cq_cqes_at"] + cq_entries * _COMPLETION.itemsize)
        self._rings = mmap.mmap(self._descriptor, int(size), mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._sqes_map = mmap.mmap(
            self._descriptor,
            self._entries * _SUBMISSION.itemsize,
            mmap.MAP_SHARED | mmap.MAP_POPULATE,
            offset=_OFFSET_SQES,
        )
        # What this process writes, the kernel reads in io_uring_enter alone, and the other way round: in one thread,
        # one after the other, so no barriers are needed.
        self._sq_tail = np.frombuffer(self._rings, np.uint32, 1, int(told["sq_tail_at"]))
        self._cq_head = np.frombuffer(self._rings, np.uint32, 1, int(told["cq_head_at"]))
        self._cq_tail = np.frombuffer(self._rings, np.uint32, 1, int(told["cq_tail_at"]))
        self._completions = np.frombuffer(self._rings, _COMPLETION, cq_entries, int(told["cq_cqes_at"]))
        array = np.frombuffer(self._rings, np.uint32, self._entries, int(told["sq_array_at"]))
        array[:] = np.arange(self._entries)  # the n-th place of the queue is the n-th submission, once and for all
        submissions = np.frombuffer(self._sqes_map, _SUBMISSION, self._entries)
        submissions["opcode"] = _OP_SEND
        submissions["msg_flags"] = _SEND_FLAGS
        self._fd, self._addr, self._len = submissions["fd"], submissions["addr"], submissions["len"]
        self._user_data = submissions["user_data"]
        self._steps = np.arange(cq_entries, dtype=np.int64)
        self._submitted = 0  # since the beginning; the queues' places are this, modulo their sizes
        self._completed = 0

    def send_to_each(self, descriptors: Descriptors, part: bytes) -> list[tuple[int, int]]:
        """As the function of that name."""
        short: list[tuple[int, int]] = []
        for start in range(0, len(descriptors), self._entries):
            results = self._send(descriptors[start : start + self._entries], part)
            short += [(start + int(place), int(results[place])) for place in np.flatnonzero(results != len(part))]
        return short

    def close(self) -> None:
        """Give all of it back to the kernel."""
        # Arrays point into the mappings, which cannot be closed before these are gone.
        del self._sq_tail, self._cq_head, self._cq_tail, self._completions
        del self._fd, self._addr, self._len, self._user_data
        self._rings.close()
        self._sqes_map.close()
        os.close(self._descriptor)

    def _send(self, descriptors: Descriptors, part: bytes) -> npt.NDArray[np.int32]:
        """The result of each, as `send` has it; no more of them than entries."""
        count, first = len(descriptors), self._submitted
        steps = self._steps[:count]
        at = (steps + first) % self._entries
        self._fd[at] = descriptors
        self._addr[at] = _address(part)
        self._len[at] = len(part)
        self._user_data[at] = steps + first
        self._sq_tail[0] = (first + count) & _32_BITS
        taken = max(_syscall(_ENTER, self._descriptor, count, 0, 0, None, ctypes.c_size_t(0)), 0)
        self._submitted += taken
        self._sq_tail[0] = self._submitted & _32_BITS  # what the kernel had no memory for was not begun
        results = np.full(count, -errno.EIO, np.int32)
        done = (int(self._cq_tail[0]) - self._completed) & _32_BITS
        finished = self._completions[(self._steps[:done] + self._completed) % len(self._completions)]
        self._completed += done
        self._cq_head[0] = self._completed & _32_BITS
        places = finished["user_data"].astype(np.int64) - first
        results[places[places >= 0]] = finished["res"][places >= 0]
        for place in range(taken, count):
            results[place] = send(int(descriptors[place]), part)
        return results
