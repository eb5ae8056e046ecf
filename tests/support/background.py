"""What tests run in other threads, and how they wait for it."""

import threading
import time
from collections.abc import Callable
from typing import Any

from softcam.runtime.deadline import Deadline
from tests.support.timeouts import PATIENCE_S


def eventually(predicate: Callable[[], object], what: str = "it") -> None:
    """Return as soon as `predicate()` is true. Raises AssertionError if it never is."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not predicate():
        assert time.monotonic() < deadline_s, f"{what} did not come true within {PATIENCE_S} s"
        time.sleep(0.001)


def soon() -> Deadline:
    """A deadline that only a fault reaches."""
    return Deadline.after(PATIENCE_S)


def soon_s() -> float:
    """The same, in seconds of the monotonic clock."""
    return soon().at_s


def waiters(condition: threading.Condition) -> int:
    """How many threads wait on `condition` now."""
    return len(condition._waiters)  # type: ignore[attr-defined]


class ReadDeadline(float):
    """A deadline that reports when it is first compared with the time."""

    def __init__(self, _at_s: float) -> None:
        self.was_read = threading.Event()

    def __add__(self, other: float) -> float:
        self.was_read.set()
        return float(self) + other

    def __sub__(self, other: float) -> float:
        self.was_read.set()
        return float(self) - other


class Background:
    """Runs a call in another thread, and keeps its result or its error for the test's thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="test background", daemon=True)
        self._thread.start()

    @classmethod
    def waiting(cls, call: Callable[[float], Any], deadline_s: ReadDeadline | None = None) -> "Background":
        """Run `call` with a deadline; return when it waits, that is, when it has looked how long it may wait.

        It does so with the lock held that every change needs, so that no change can be missed from then on.
        """
        deadline_s = deadline_s or ReadDeadline(soon_s())
        background = cls(lambda: call(deadline_s))
        assert deadline_s.was_read.wait(PATIENCE_S), "the call does not wait"
        return background

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the call does not return"
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001 - raised by `result`
            self._error = error


class Flow:
    """A thread that runs within a block of a test."""

    def __init__(self, run: Callable[[], None], is_over: threading.Event) -> None:
        self._thread = threading.Thread(target=run, name="test frames", daemon=True)
        self._is_over = is_over

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
