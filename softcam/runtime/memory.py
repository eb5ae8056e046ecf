"""Returns unused memory to the system. No thread.

A portal with a closed camera has to be small. Two things keep memory allocated: reference cycles, which Python collects
only after many allocations, and the heaps of the C library.
"""

import ctypes
import gc
from collections.abc import Callable
from typing import Final

_M_ARENA_MAX: Final = -8  # from glibc's malloc.h


def use_single_arena() -> None:
    """Make all threads share one malloc arena; has to be called before the first thread starts.

    By default glibc creates an arena per thread, and malloc_trim(3) keeps the top of each: tens of megabytes after one
    still. Contention costs nothing here, since few allocations happen without the interpreter lock.
    """
    mallopt = _glibc_function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def release_unused() -> None:
    """Collect garbage and return free pages to the system. Any thread may call it; it takes some milliseconds."""
    gc.collect()
    malloc_trim = _glibc_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc_function(name: str) -> Callable[..., int] | None:
    """A function that only glibc has, or None; other C libraries retain less by themselves."""
    try:
        return ctypes.CDLL(None)[name]
    except AttributeError:
        return None
