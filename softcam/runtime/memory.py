"""Gives back what the process keeps for later use: memory that nobody uses now.

A portal whose camera is closed is to be small, and two things keep it large: cycles of objects, which Python looks for
only when many new ones are made, and the C library's heaps. No thread of its own.
"""

import ctypes
import gc
from collections.abc import Callable
from typing import Final

_M_ARENA_MAX: Final = -8  # of glibc's malloc.h


def use_one_heap() -> None:
    """Let all threads share one heap; to be called before there are any.

    By default each thread has a heap of its own, of which malloc_trim(3) leaves the top, tens of megabytes after one
    still. That they wait for one another here costs nothing: few allocations happen without Python's own lock.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Free what is unreachable and hand free pages to the system; any thread may call, it takes some milliseconds."""
    gc.collect()
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function that only glibc has; other C libraries keep less by themselves."""
    try:
        return ctypes.CDLL(None)[name]
    except AttributeError:
        return None
