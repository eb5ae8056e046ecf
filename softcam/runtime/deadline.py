"""A point in time by which an operation has to be done, on the monotonic clock. An immutable value; any thread."""

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
    def after(cls, timeout_s: float, clock: Clock = time.monotonic) -> "Deadline":
        """The deadline `timeout_s` seconds from now."""
        return cls(clock() + timeout_s, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 after the deadline."""
        return max(0.0, self.at_s - self.clock())

    @property
    def is_expired(self) -> bool:
        return self.clock() >= self.at_s

    def within(self, timeout_s: float) -> "Deadline":
        """This deadline, or the one `timeout_s` seconds from now where that is earlier."""
        return Deadline(min(self.at_s, self.clock() + timeout_s), self.clock)
