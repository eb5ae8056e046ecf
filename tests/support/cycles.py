"""Finds large memory that reference cycles keep: the interpreter frees it only after many allocations."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

LARGE: Final = 20_000  # bytes; the smallest plane of a frame in tests has more


@contextmanager
def without_collector() -> Iterator[Callable[[], list[str]]]:
    """Yields a function that returns what large memory cycles hold that were made in the block."""
    gc.collect()
    gc.disable()
    try:
        yield _large_in_cycles
    finally:
        gc.enable()


def _large_in_cycles() -> list[str]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return _large(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def _large(found: Iterable[object]) -> list[str]:
    """Buffers that these objects refer to, each with its owner; an array may be a view of the memory of another."""
    large = {}
    for owner in found:
        for each in gc.get_referents(owner):
            while isinstance(each, np.ndarray) and each.base is not None:
                each = each.base
            size = each.nbytes if isinstance(each, np.ndarray | memoryview) else 0
            size = len(each) if isinstance(each, bytes | bytearray) else size
            if size >= LARGE:
                large[id(each)] = f"{size} bytes in {type(owner).__name__} {str(owner)[:200]}"
    return sorted(large.values())
