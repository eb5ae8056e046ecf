"""The latest access units of a live stream, for many readers: one ring, in which each reader has a position.

There is no queue per reader, and what is sent is the same for all. A reader begins with a keyframe, gets every unit as
long as it keeps up, and continues with a keyframe when its next unit has left the ring. Used by one thread.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

_MIN_UNITS: Final = 3  # a camera may deliver one per second


class Unit(Protocol):
    """An access unit, or what is made of it."""

    @property
    def number(self) -> int:
        """Increases by one from unit to unit."""

    @property
    def is_keyframe(self) -> bool: ...

    @property
    def began_s(self) -> float:
        """When its exposure began."""

    @property
    def made_s(self) -> float:
        """When it was made, on the clock of the readers."""


U = TypeVar("U", bound=Unit)


@dataclass(frozen=True, slots=True)
class RingLimits:
    """Times in seconds."""

    length_s: float = 0.7  # a reader that is further behind is slow, and not only late
    fresh_keyframe_s: float = 0.25  # up to that age a keyframe is a good start: a new one would not arrive sooner
    slow_keyframe_interval_s: float = 1.0  # keyframes cost all readers bandwidth: slow ones request no more than this


class Ring(Generic[U]):
    """The units, and the keyframes that readers request."""

    def __init__(self, request_keyframe: Callable[[], None], limits: RingLimits | None = None) -> None:
        self._request_keyframe = request_keyframe
        self._limits = limits or RingLimits()
        self._units: deque[U] = deque()
        self._slow_keyframe_s = 0.0  # when slow readers may request a keyframe again

    def append(self, unit: U) -> None:
        units = self._units
        units.append(unit)
        while len(units) > _MIN_UNITS and unit.began_s - units[0].began_s > self._limits.length_s:
            units.popleft()

    def clear(self) -> None:
        self._units.clear()

    def new_reader(self, now_s: float) -> "Reader[U]":
        """A reader that begins with the latest keyframe, where that is fresh, or waits for the next one."""
        keyframe = self.keyframe
        is_fresh = keyframe is not None and now_s - keyframe.made_s < self._limits.fresh_keyframe_s
        return Reader(self, keyframe.number if keyframe is not None and is_fresh else self.end)

    @property
    def keyframe(self) -> U | None:
        """The latest one."""
        return next((unit for unit in reversed(self._units) if unit.is_keyframe), None)

    @property
    def begin(self) -> int:
        """The number of the first unit; `end` if there is none."""
        return self._units[0].number if self._units else 0

    @property
    def end(self) -> int:
        """The number after that of the last unit; 0 if there is none."""
        return self._units[-1].number + 1 if self._units else 0

    def unit(self, number: int) -> U:
        """The unit with a number from `begin` up to `end`."""
        return self._units[number - self._units[0].number]

    def request_keyframe_for_slow(self, now_s: float) -> None:
        if now_s >= self._slow_keyframe_s:
            self._slow_keyframe_s = now_s + self._limits.slow_keyframe_interval_s
            self._request_keyframe()


class Reader(Generic[U]):
    """A position in a ring; `Ring.new_reader` makes it."""

    __slots__ = ("_is_awaiting_keyframe", "_number", "_ring", "dropped", "received")

    def __init__(self, ring: Ring[U], number: int) -> None:
        self._ring = ring
        self._number = number  # of its next unit, or of the first keyframe that it may continue with
        self._is_awaiting_keyframe = True
        self.received = 0  # units
        self.dropped = 0  # that it was too slow for, between those that it has received

    @property
    def keyframe(self) -> U | None:
        """The keyframe that it may begin, or continue, with; None where it has to wait for one."""
        keyframe = self._ring.keyframe
        return None if keyframe is None or keyframe.number < self._number else keyframe

    def accept(self, unit: U) -> bool:
        """Whether it has received everything before this unit, which it receives now."""
        if unit.number != self._number or self._is_awaiting_keyframe:
            return False
        self._number += 1
        self.received += 1
        return True

    def take_unit(self, now_s: float) -> U | None:
        """The next unit, which it receives now; None where it has to wait."""
        ring = self._ring
        if self._number >= ring.end:
            return None
        if not self._is_awaiting_keyframe and self._number < ring.begin:
            self._is_awaiting_keyframe = True
            if ring.keyframe is None:
                self._skip_to(ring.end)
                ring.request_keyframe_for_slow(now_s)
        if self._is_awaiting_keyframe:
            keyframe = self.keyframe
            if keyframe is None:
                return None
            self._skip_to(keyframe.number)
            self._is_awaiting_keyframe = False
        unit = ring.unit(self._number)
        self.accept(unit)
        return unit

    def _skip_to(self, number: int) -> None:
        self.dropped += number - self._number if self.received else 0
        self._number = number
