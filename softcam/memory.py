"""Gives back what the process keeps for later use: memory that nobody uses now. Any thread may call.

A portal whose camera is closed is to be small, and two things keep it large: cycles of objects, which Python looks for
only when many new ones are made, and the C library's heaps, which shrink only from their ends.
"""

import ctypes
import gc


def give_back() -> None:
    """Free what is unreachable and hand free pages to the system; takes some tens of milliseconds."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # glibc's own; other C libraries keep less
        return
    trim(0)
