"""Measures the memory of the process, and returns what is unused to the system. No thread.

A portal with a closed camera has to be small. Two things keep memory allocated: reference cycles, which Python collects
only after many allocations, and the heaps of the C library.
"""

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Final

_M_ARENA_MAX: Final = -8  # from glibc's malloc.h


def use_single_arena() -> None:
    """Make all threads share one malloc arena; has to be called before the first thread starts.

    By default glibc creates an arena per thread, and malloc_trim(3) keeps the top of each: tens of megabytes after one
    still. Contention costs nothing here, since few allocations happen without the interpreter lock.
    """
    with contextlib.suppress(AttributeError):  # only glibc has it; other C libraries retain less by themselves
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def resident_bytes() -> int:
    """The memory of this process that is in RAM (proc_pid_statm(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release_unused() -> None:
    """Collect garbage and return free pages to the system. Any thread may call it; it takes some milliseconds."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
