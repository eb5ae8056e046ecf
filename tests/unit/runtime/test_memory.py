"""Memory that is not used any more."""

import gc
import weakref

from softcam.runtime import memory


class Node:
    """An object in a reference cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_reference_cycles_are_released() -> None:
    gc.disable()
    try:
        node = Node()
        reference = weakref.ref(node)
        del node
        assert reference() is not None
        memory.release_unused()
        assert reference() is None
    finally:
        gc.enable()
