"""A point in time by which an operation has to be done, on the monotonic clock."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment in seconds of the monotonic clock; `math.inf` never expires. Immutable, so any thread may use it."""

    at_s: float
    clock: Clock = field(default=time.monotonic, repr=False, compare=False)

    @classmethod
    def after(cls, timeout_s: float | None, clock: Clock = time.monotonic) -> "Deadline":
        """The deadline `timeout_s` seconds from now; None for one that never expires."""
        return cls(math.inf if timeout_s is None else clock() + timeout_s, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 after the deadline, `math.inf` where it never expires."""
        return max(0.0, self.at_s - self.clock())

    @property
    def timeout_s(self) -> float | None:
        """`remaining_s` as the standard library expects a timeout: None where the deadline never expires."""
        return None if self.at_s == math.inf else self.remaining_s

    @property
    def is_expired(self) -> bool:
        return self.clock() >= self.at_s

    def earlier(self, other: "Deadline") -> "Deadline":
        """The earlier of two deadlines."""
        return other if other.at_s < self.at_s else self

    def within(self, timeout_s: float) -> "Deadline":
        """This deadline, or the one `timeout_s` seconds from now where that is earlier."""
        return self.earlier(Deadline.after(timeout_s, self.clock))

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool]) -> bool:
        """Wait on `condition`, which the caller holds, until `predicate()` is true; returns its last value.

        The predicate is evaluated at least once, also after the deadline.
        """
        return condition.wait_for(predicate, self.timeout_s)
