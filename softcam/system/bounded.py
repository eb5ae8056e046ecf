"""A read that the kernel may block for longer than a request should take. See `BoundedRead`."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from softcam.runtime.deadline import Deadline
from softcam.runtime.threads import spawn

_T = TypeVar("_T")


class BoundedRead(Generic[_T]):
    """Reads in a short-lived thread, so that the caller waits no longer than its deadline.

    Such a read cannot be cancelled: the file of the Wi-Fi signal waits for a lock that drivers hold, a network disk for
    its server. While one hangs, its value is None and no other is started, so there is at most one thread. Not
    thread-safe: the owner calls with a lock held.
    """

    def __init__(self, name: str, read: Callable[[], _T | None], is_present: Callable[[], bool] = lambda: True) -> None:
        """`name` is that of the thread. Without `is_present()`, nothing is started and the value is None."""
        self._name = name
        self._read = read
        self._is_present = is_present
        self._thread: threading.Thread | None = None
        self._values: list[_T | None] = []  # filled by the thread

    def start_read(self) -> None:
        """Start reading, unless an earlier read still hangs."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread, values = None, list[_T | None]()
        self._values = values
        if self._is_present():
            self._thread = spawn(self._name, lambda: values.append(self._read()), _nothing)

    def value(self, deadline: Deadline) -> _T | None:
        """What was read; None if that is not known at the deadline."""
        if self._thread is not None:
            self._thread.join(deadline.remaining_s)
        return self._values[0] if self._values else None


def _nothing(_reason: str) -> None:
    """A crash is logged; the value remains unknown, and the portal works without it."""
